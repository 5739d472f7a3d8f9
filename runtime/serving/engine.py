"""What runs a model: one protocol, implemented once per runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from runtime.serving.tensors import Array


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
