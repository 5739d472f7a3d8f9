"""Where a webhook is, what it is told, and how it knows that it is this node that tells it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec

from runtime.links.http.exposure import is_loopback
from runtime.links.process.settings import SettingsError
from runtime.links.trust.key_files import read_token

Type = Literal["track", "crossing", "rule", "picture", "counts", "state"]


class Secrets(NamedTuple):
    """`token` is shown as it is, with `key` bodies are signed; "" for none of them."""

    token: str
    key: str


class WebhookConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[webhooks]]`; docs/cameras.md explains each key. `cameras` and `types` () are all of them."""

    url: str
    cameras: tuple[str, ...] = ()
    types: tuple[Type, ...] = ()
    token_env: str = ""
    token_file: str = ""
    secret_file: str = ""
    insecure: bool = False

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            is_complete = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            is_complete = False
        if not is_complete or any(letter.isspace() for letter in self.url):
            raise ValueError("webhook: url: write https://HOST[:PORT]/PATH")
        if "@" in parts.netloc:
            raise ValueError("webhook: url: a password in it ends up in logs: send a token, by token_env or token_file")
        if self.token_env and self.token_file:
            raise ValueError(f"webhook {self.origin}: token_env and token_file are one too many")
        if parts.scheme == "http" and not is_loopback(parts.hostname or "") and not self.insecure:
            raise ValueError(
                f"webhook {self.origin}: on this way anybody may read and change what is said: use https, or in a "
                "network of friends insecure = true"
            )

    @property
    def origin(self) -> str:
        """For people: some services have their secrets in the path."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def secrets(self, environment: Mapping[str, str] = os.environ) -> Secrets:
        """Read anew each time, so that they can be changed without a restart. Blocks. Raises ValueError."""
        try:
            token = read_token(Path(self.token_file), "token_file") if self.token_file else ""
            key = read_token(Path(self.secret_file), "secret_file") if self.secret_file else ""
        except SettingsError as error:
            raise ValueError(str(error)) from error
        if self.token_env and not environment.get(self.token_env):
            raise ValueError(f"token_env: {self.token_env} is not set in the environment of this process")
        token = environment[self.token_env] if self.token_env else token
        if not (token.isascii() and token.isprintable()):
            raise ValueError("the token is not one line of visible ASCII characters")
        return Secrets(token, key)
