"""Foothill: edge-cloud hybrid inference. The base install is this client; every other part is an extra."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contracts.predictions import Classification, Detection, Embedding
    from foothill.client import AsyncClient, Client, Inferred, Predicted, RequestError, Tensor

__all__ = [
    "AsyncClient",
    "Classification",
    "Client",
    "Detection",
    "Embedding",
    "Inferred",
    "Predicted",
    "RequestError",
    "Tensor",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # The command line imports this package too, and must not wait for an HTTP library it may not need.
    if name in __all__:
        return getattr(import_module("foothill.client"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
