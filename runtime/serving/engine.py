"""What runs a model: one protocol, implemented once per runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from contracts.errors import FoothillError
from runtime.serving.tensors import Array


class Interrupted(FoothillError):  # noqa: N818 - it names what happened
    """A run that was given up before its end."""

    def __init__(self) -> None:
        super().__init__("unavailable", "The run was given up: nobody waited for it any more. Send the request again.")

    def __reduce__(self) -> tuple[object, ...]:
        return (Interrupted, ())


class Engine(Protocol):
    """Runs one loaded artifact. `run` blocks and is called from one thread at a time."""

    @property
    def provider(self) -> str:
        """What really computes, such as `CPUExecutionProvider`."""
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
    """An engine that can give up the run under way."""

    def interrupt(self) -> None:
        """From another thread, during a run: it then raises Interrupted soon, or ends as if nothing had been said."""
        ...
