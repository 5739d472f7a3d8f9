"""How a user and a password are shown to a camera over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

DENIED = "it refuses the user and password: correct `user`, `password_env` or `password_file`"


def auth_for(refusal: httpx.Response, login: tuple[str, str]) -> httpx.Auth:
    """By Digest where the camera asks for it (RFC 7616), else by Basic (RFC 7617)."""
    import httpx

    asks_digest = refusal.headers.get("WWW-Authenticate", "").lower().startswith("digest")
    return httpx.DigestAuth(*login) if asks_digest else httpx.BasicAuth(*login)
