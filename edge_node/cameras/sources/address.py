"""Where a camera is, and who asks it: its address, and a password that stays out of every log."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import quote, urlsplit, urlunsplit

Kind = Literal["rtsp", "http", "mjpeg", "snapshot", "file", "folder", "device", "pattern"]

_SCHEMES: dict[str, Kind] = {"rtsp": "rtsp", "rtsps": "rtsp", "http": "http", "https": "http", "pattern": "pattern"}
_MOST_SECRET_BYTES = 4096


class Login(NamedTuple):
    """`password_env` names a variable of the environment, `password_file` a file whose first line it is."""

    user: str = ""
    password_env: str = ""
    password_file: str = ""

    def password(self, environment: Mapping[str, str] = os.environ) -> str:
        """Read anew each time, so that it can be changed without a restart. Raises ValueError."""
        if self.password_file:
            return _first_line(Path(self.password_file))
        if self.password_env and self.password_env not in environment:
            raise ValueError(f"password_env: {self.password_env} is not set in the environment of this process.")
        return environment[self.password_env] if self.password_env else ""


class Address(NamedTuple):
    """`url` names no user and no password; `path` is that of a file, folder or device."""

    kind: Kind
    url: str
    path: Path = Path()

    @property
    def shown(self) -> str:
        """Without what may follow a question mark: some cameras take their password there."""
        return self.url.partition("?")[0]

    def with_login(self, user: str, password: str) -> str:
        """For FFmpeg alone: what comes of it must not be shown to anybody."""
        if not user:
            return self.url
        parts = urlsplit(self.url)
        told = f"{quote(user, safe='')}:{quote(password, safe='')}@{parts.netloc}"
        return urlunsplit(parts._replace(netloc=told))


def parse(url: str, *, kind: Kind | None = None, base: Path = Path()) -> Address:
    """What `url` names; a path is one relative to `base`. Raises ValueError that says what to write."""
    scheme, colon, _ = url.partition(":")
    if not colon or scheme.lower() not in (*_SCHEMES, "file"):
        return _local(url, kind, base)
    if scheme.lower() == "file":
        return _local(urlsplit(url).path, kind, base)
    found = _SCHEMES[scheme.lower()]
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "a password in an address ends up in logs: name the user as `user`, and the password by `password_env` or "
            "`password_file`."
        )
    if found != "pattern" and not parts.hostname:
        raise ValueError(f"{url[:200]!r} names no host: write {scheme}://HOST[:PORT]/PATH.")
    return Address(_told(kind, found, url), url)


def _told(kind: Kind | None, found: Kind, url: str) -> Kind:
    """What the operator says it is, where that can be."""
    if kind is None or kind == found or (found == "http" and kind in ("mjpeg", "snapshot")):
        return kind or found
    raise ValueError(f"kind {kind!r} does not fit the address {url[:200]!r}: leave it out.")


def _local(path: str, kind: Kind | None, base: Path) -> Address:
    if not path or "\0" in path:
        raise ValueError(
            "it names nothing: write rtsp://HOST/PATH, http://HOST/PATH, the path of a file, folder or device, or "
            "pattern:."
        )
    if kind is not None and kind not in ("file", "folder", "device"):
        raise ValueError(f"kind {kind!r} does not fit the path {path[:200]!r}: leave it out.")
    where = base / path
    if path.startswith("/dev/"):
        return Address(kind or "device", path, where)
    return Address(kind or ("folder" if where.is_dir() else "file"), str(where), where)


def _first_line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            line = file.read(_MOST_SECRET_BYTES).partition(b"\n")[0].strip()
        return line.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"password_file: {path} cannot be read ({reason}).") from error
