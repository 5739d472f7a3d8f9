"""What may be wrong with a build or a load of a TensorRT engine, each with its own way out."""

from __future__ import annotations

from contracts.errors import FoothillError


class NotInstalled(FoothillError):  # noqa: N818 - it names what was found
    """No runtime of this kind can be imported here."""

    def __init__(self, message: str) -> None:
        super().__init__("unavailable", message)


class OptionRefused(FoothillError):  # noqa: N818 - it names what was found
    """The installed version, or this board, lacks what was asked for. Nothing was built."""

    def __init__(self, message: str) -> None:
        super().__init__("bad_request", message)


class ModelRefused(FoothillError):  # noqa: N818 - it names what was found
    """NVIDIA's parser does not take the ONNX file."""

    def __init__(self, message: str) -> None:
        super().__init__("bad_bundle", message)


class BuildFailed(FoothillError):  # noqa: N818 - it names what was found
    """The builder gave up, or its process died."""

    def __init__(self, message: str) -> None:
        super().__init__("internal", message)


class EngineRefused(FoothillError):  # noqa: N818 - it names what was found
    """The runtime does not take an engine file, or the engine is not the bundle's model."""

    def __init__(self, message: str) -> None:
        super().__init__("bad_bundle", message)
