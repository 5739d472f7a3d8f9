"""What it took to open a model: the part of a cold start that is the bundle's own."""

from __future__ import annotations

from typing import NamedTuple


class Opening(NamedTuple):
    """Seconds. `load_s` until the engine has the weights, `first_answer_s` from the same beginning until the golden
    inputs were answered as they must be, `warm_up_s` for the runs after that, by which service times are learnt."""

    load_s: float
    first_answer_s: float
    warm_up_s: float

    @property
    def whole_s(self) -> float:
        return self.first_answer_s + self.warm_up_s

    def __str__(self) -> str:
        return (
            f"loaded in {self.load_s:.3f} s, first answer after {self.first_answer_s:.3f} s, "
            f"warm-up {self.warm_up_s:.3f} s"
        )
