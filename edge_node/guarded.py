"""An engine that tells, once, when it first fails: native engines may stop working where ONNX Runtime would go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from contracts.errors import FoothillError
from runtime.serving.engines.engine import Engine, Interrupted, Interruptible
from runtime.serving.engines.tensors import Array


class GuardedEngine:
    """`failed` is called with the message of the first failure, on the engine's thread."""

    concurrent = False

    def __init__(self, engine: Engine, failed: Callable[[str], None]) -> None:
        self._engine = engine
        self._failed = failed
        self._told = False

    @property
    def provider(self) -> str:
        return self._engine.provider

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            return self._engine.run(inputs)
        except Interrupted:
            # Nobody waited for it any more: that says nothing of the engine.
            raise
        except FoothillError as error:
            # Values that the model cannot take speak against their caller, not against the engine.
            if error.code != "bad_tensor" and not self._told:
                self._told = True
                self._failed(error.message)
            raise

    def interrupt(self, thread: int) -> None:
        if isinstance(self._engine, Interruptible):
            self._engine.interrupt(thread)

    def close(self) -> None:
        self._engine.close()
