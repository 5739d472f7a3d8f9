"""From a picture to what the model takes: the gate, the size and the colours, in whichever thread has the time."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from contracts.errors import FoothillError
from edge_node.cameras.gate import MotionGate, Verdict
from edge_node.cameras.sources.shot import Shot
from runtime.serving.engines.tensors import Array
from runtime.serving.models.loaded import LoadedModel
from runtime.serving.pictures.preprocess import shrunk


class Prepared(NamedTuple):
    """A picture behind the gate, for the model that was `loaded` then: `tensor` is None for one that need not be
    seen."""

    verdict: Verdict
    tensor: Array | None
    loaded: LoadedModel | None


class Taken(NamedTuple):
    """A picture of the source, and as much of `prepared` as was done where it was decoded."""

    shot: Shot
    prepared: Prepared | None


class Preparation:
    """For one camera. `ahead` runs in the thread of its source, `complete` in any; no two of them at once: a picture is
    prepared ahead only while nobody is busy with another."""

    def __init__(self, gate: MotionGate) -> None:
        self._gate = gate
        self._loaded: LoadedModel | None = None
        self._owes = False

    def ahead(self, shot: Shot) -> Taken:
        """For the model of the last picture. What goes wrong is told where the picture is seen, which tries again."""
        prepared = None
        with contextlib.suppress(Exception):
            verdict = self._look(shot)
            prepared = Prepared(verdict, None, None)
            prepared = _prepared(shot, self._loaded, verdict)
        return Taken(shot, prepared)

    def ready(self, taken: Taken, loaded: LoadedModel | None) -> Prepared | None:
        """What was prepared ahead, if it was for that model; the next ones will be. On the event loop."""
        self._loaded = loaded
        return taken.prepared if taken.prepared is not None and taken.prepared.loaded is loaded else None

    def complete(self, taken: Taken, loaded: LoadedModel | None) -> Prepared:
        """Raises FoothillError, code bad_bundle, for a model that takes no pictures."""
        return _prepared(
            taken.shot, loaded, taken.prepared.verdict if taken.prepared is not None else self._look(taken.shot)
        )

    def gave_way(self, taken: Taken) -> None:
        """Nobody will see it: what moved in it is to be seen in the next."""
        self._owes |= taken.prepared is not None and taken.prepared.verdict != "still"

    def _look(self, shot: Shot) -> Verdict:
        """The gate compares with a picture that passed it, and that nobody saw if it gave way."""
        verdict = self._gate.look(shot.luma(), shot.at_s)
        owes, self._owes = self._owes, False
        return "held" if owes and verdict == "still" else verdict


def _prepared(shot: Shot, loaded: LoadedModel | None, verdict: Verdict) -> Prepared:
    if verdict == "still" or loaded is None:
        return Prepared(verdict, None, loaded)
    if loaded.preprocessor is None or loaded.manifest.preprocess is None:
        raise FoothillError("bad_bundle", f"{loaded.manifest.reference} does not say how a picture becomes a tensor.")
    spec = loaded.manifest.preprocess
    picture = shot.picture(spec.colour, shrunk(shot.size, spec))
    return Prepared(verdict, loaded.preprocessor.normalise(loaded.preprocessor.resize(picture)), loaded)
