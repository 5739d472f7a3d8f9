"""Routes of the protocol's extensions that are not served: each says so, and what there is in its place."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from aiohttp import web

from contracts.errors import FoothillError


class Extension(NamedTuple):
    name: str
    paths: tuple[str, ...]
    instead: str


EXTENSIONS = (
    Extension("trace", ("/v2/trace/setting", "/v2/models/{model}/trace/setting"), "Send a traceparent header"),
    Extension("logging", ("/v2/logging",), "Logs are set where the process is started"),
    Extension("system shared memory", ("/v2/systemsharedmemory/{rest:.+}",), "Send tensors in the request"),
    Extension("CUDA shared memory", ("/v2/cudasharedmemory/{rest:.+}",), "Send tensors in the request"),
    Extension(
        "generate", ("/v2/models/{model}/generate", "/v2/models/{model}/generate_stream"), "Use the model's infer route"
    ),
)
"""https://github.com/triton-inference-server/server/tree/main/docs/protocol"""


def routes() -> list[web.RouteDef]:
    return [web.route("*", path, partial(_refuse, extension)) for extension in EXTENSIONS for path in extension.paths]


async def _refuse(extension: Extension, _: web.Request) -> web.Response:
    raise FoothillError(
        "not_found",
        f"The {extension.name} extension of the protocol is not served here. {extension.instead}; "
        f"`GET /v2` lists the extensions there are.",
    )
