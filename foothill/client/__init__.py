"""The Python client: `Client` and `AsyncClient` ask a router where to go and then talk to the nearest node."""

from contracts.predictions import Classification, Detection, Embedding
from foothill.client.answers import Answer, Inferred, Predicted
from foothill.client.async_client import AsyncClient
from foothill.client.failures import RequestError
from foothill.client.sync_client import Client
from foothill.client.tensors import Tensor

__all__ = [
    "Answer",
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
