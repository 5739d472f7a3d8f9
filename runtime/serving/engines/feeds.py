"""How arrays get into a session of ONNX Runtime and out of it: as they lie, or bound to page-locked memory on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from runtime.serving.engines.pinned import Pinned
from runtime.serving.engines.providers import ON_NVIDIA
from runtime.serving.engines.tensors import Array


class Feed(Protocol):
    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array], options: Any) -> Sequence[Array]:
        """The outputs named, in their order. Raises what ONNX Runtime raises."""
        ...

    def close(self) -> None: ...


def feed_for(session: Any, open_pinned: Callable[[], Pinned]) -> Feed:
    """Page-locked where a GPU computes and the model has no text. Raises what `open_pinned` raises."""
    on_gpu = any(provider in ON_NVIDIA for provider in session.get_providers())
    text = any(tensor.type == "tensor(string)" for tensor in (*session.get_inputs(), *session.get_outputs()))
    return PinnedFeed(session, open_pinned()) if on_gpu and not text else PlainFeed(session)


class PlainFeed:
    """The session reads arrays where they are. Best where the provider computes in the same memory."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array], options: Any) -> Sequence[Array]:
        answers: Sequence[Array] = self._session.run(outputs, feeds, options)
        return answers

    def close(self) -> None:
        del self._session


class PinnedFeed:
    """Inputs go through page-locked buffers that are kept between runs, which a GPU reads without a copy by its driver.

    Outputs come back into new arrays: they outlive the run. Text cannot be bound.
    """

    def __init__(self, session: Any, pinned: Pinned) -> None:
        self._session = session
        self._pinned = pinned

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array], options: Any) -> Sequence[Array]:
        binding = self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, self._pinned.copy(name, array))
        for name in outputs:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding, options)
        answers: Sequence[Array] = binding.copy_outputs_to_cpu()
        return answers

    def close(self) -> None:
        del self._session
        self._pinned.close()
