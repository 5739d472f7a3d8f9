"""How a user and a password are shown to a camera over RTSP: Digest where it asks for that, else Basic."""

from __future__ import annotations

import hashlib
import re
import secrets
from base64 import b64encode
from collections.abc import Callable, Iterable

_PARAMETER = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_HASHES: dict[str, str] = {"MD5": "md5", "SHA-256": "sha256"}

Answer = Callable[[str, str], str]
"""The header `Authorization` for a method and the address that is asked for."""


def answer_to(challenges: Iterable[str], login: tuple[str, str]) -> Answer | None:
    """To the best of what the headers `WWW-Authenticate` offer; None where nothing of it is known."""
    offered = [_parsed(challenge) for challenge in challenges]
    digests = [told for scheme, told in offered if scheme == "digest" and _algorithm(told)]
    if digests:
        best = max(digests, key=lambda told: _algorithm(told) == "sha256")
        return Digest(best, login)
    if any(scheme == "basic" for scheme, _ in offered):
        shown = "Basic " + b64encode(":".join(login).encode()).decode()
        return lambda _method, _url: shown
    return None


class Digest:
    """RFC 7616, and RFC 2069 where the camera names no `qop`."""

    def __init__(self, told: dict[str, str], login: tuple[str, str]) -> None:
        self._told = told
        self._user, self._password = login
        self._count = 0

    def __call__(self, method: str, url: str) -> str:
        realm, nonce = self._told.get("realm", ""), self._told.get("nonce", "")
        own, what = self._hash(f"{self._user}:{realm}:{self._password}"), self._hash(f"{method}:{url}")
        shown = {"username": self._user, "realm": realm, "nonce": nonce, "uri": url}
        if "auth" in re.split(r"[\s,]+", self._told.get("qop", "")):
            self._count += 1
            count, own_nonce = f"{self._count:08x}", secrets.token_hex(8)
            shown["response"] = self._hash(f"{own}:{nonce}:{count}:{own_nonce}:auth:{what}")
            plain = f", qop=auth, nc={count}"
            shown["cnonce"] = own_nonce
        else:
            shown["response"] = self._hash(f"{own}:{nonce}:{what}")
            plain = ""
        if "opaque" in self._told:
            shown["opaque"] = self._told["opaque"]
        if "algorithm" in self._told:
            plain += f", algorithm={self._told['algorithm']}"
        return "Digest " + ", ".join(f'{name}="{_quoted(value)}"' for name, value in shown.items()) + plain

    def _hash(self, text: str) -> str:
        return hashlib.new(_algorithm(self._told), text.encode(), usedforsecurity=False).hexdigest()


def _parsed(challenge: str) -> tuple[str, dict[str, str]]:
    scheme, _, rest = challenge.strip().partition(" ")
    found = {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(rest)}
    return scheme.lower(), {name: value.replace('\\"', '"').replace("\\\\", "\\") for name, value in found.items()}


def _algorithm(told: dict[str, str]) -> str:
    """As hashlib calls it; "" for one that is not known."""
    return _HASHES.get(told.get("algorithm", "MD5").upper(), "")


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "").replace("\n", "")
