"""What runs a model: one protocol, implemented once per runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from contracts.errors import FoothillError
from runtime.serving.engines.tensors import Array


class Interrupted(FoothillError):  # noqa: N818 - it names what happened
    """A run that was given up before its end."""

    def __init__(self) -> None:
        super().__init__("unavailable", "The run was given up: nobody waited for it any more. Send the request again.")

    def __reduce__(self) -> tuple[object, ...]:
        return (Interrupted, ())


class Engine(Protocol):
    """Runs one loaded artifact. `run` blocks."""

    @property
    def provider(self) -> str:
        """What really computes, such as `CPUExecutionProvider`."""
        ...

    @property
    def concurrent(self) -> bool:
        """Whether runs may be under way in several threads at once, and gain by it; else there is one at a time."""
        ...

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name. Raises FoothillError `bad_tensor` for values that the model refuses, `internal` when the
        runtime fails."""
        ...

    def close(self) -> None:
        """Frees the model's memory; nothing may be run afterwards."""
        ...


@runtime_checkable
class Interruptible(Protocol):
    """An engine that can give up a run under way."""

    def interrupt(self, thread: int) -> None:
        """Gives up the run in the thread of that identity, from another one: it raises Interrupted soon, or ends as if
        nothing had been said. Runs in other threads go on."""
        ...
