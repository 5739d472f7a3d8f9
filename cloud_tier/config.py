"""The configuration of the cloud tier: one TOML file, see `docs/config.md`."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from contracts.boards import BOARDS
from contracts.errors import FoothillError
from contracts.headers import MAX_DEADLINE_MS
from contracts.manifest import is_digest, parse_reference
from contracts.topics import NODE_NAME
from runtime.links.access.admission import AuthConfig
from runtime.links.http.https import HttpsConfig
from runtime.links.trust.tls import TlsConfig
from runtime.serving.engines.providers import Choice

_URL = re.compile(r"https?://[^\s/]+(/\S*)?")
Positive = Annotated[int, msgspec.Meta(gt=0)]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Keys of `cloud.toml`.

    `models` maps each logical model to its bundle, as NAME@VERSION or digest. `root` is the path of the fleet's TUF
    root metadata (empty: taken from the fleet at the first start and pinned under `state_dir`). `hop_key_file` empty:
    that of a fleet manager which runs from this directory with its defaults; without one no hop is believed, so that
    holders cannot audit. Without `admin_token_file` the admin routes are closed. `auth` says who may call; without it
    the tier listens beyond this machine only when `insecure`.
    `region` is where this tier stands; "" lies in no residency claim. `target` empty: the CPU of this machine.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8090
    name: str = "cloud"
    region: str = ""
    fleet_url: str = "http://127.0.0.1:8070"
    root: str = ""
    models: dict[str, str] = msgspec.field(default_factory=lambda: {"digits": "digits-cloud@1"})
    state_dir: str = "./state/cloud"
    target: str = ""
    threads: Positive = 1
    provider: Choice = "auto"
    provider_fallback: bool = False
    max_body_bytes: Positive = 16 << 20
    max_pixels: Annotated[int, msgspec.Meta(gt=0, le=200_000_000)] = 50_000_000
    max_waiting: Positive = 256
    default_deadline_ms: Annotated[float, msgspec.Meta(gt=0, le=MAX_DEADLINE_MS)] = 10_000.0
    hop_key_file: str = ""
    admin_token_file: str = ""
    insecure: bool = False
    auth: AuthConfig = AuthConfig()
    https: HttpsConfig = HttpsConfig()
    tls: TlsConfig = TlsConfig()

    def __post_init__(self) -> None:
        if not NODE_NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name!r} is not lower-case letters, digits and '-', at most 63.")
        if self.region and not NODE_NAME.fullmatch(self.region):
            raise ValueError(f"region {self.region!r} is not lower-case letters, digits and '-', at most 63.")
        if not _URL.fullmatch(self.fleet_url):
            raise ValueError(f"fleet_url {self.fleet_url!r} is not a URL; write http://HOST:PORT.")
        if self.target and self.target not in BOARDS:
            raise ValueError(f"target {self.target!r} is not in the board table: use one of {', '.join(BOARDS)}.")
        for model, bundle in self.models.items():
            _check_model(model, bundle)


def _check_model(model: str, bundle: str) -> None:
    if not NODE_NAME.fullmatch(model):
        raise ValueError(f"models: {model!r} is not lower-case letters, digits and '-', at most 63.")
    if is_digest(bundle):
        return
    try:
        parse_reference(bundle)
    except FoothillError as error:
        raise ValueError(f"models.{model}: {error.message} A digest sha256:... is taken too.") from error
