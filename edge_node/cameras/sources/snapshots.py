"""Pictures that are fetched one by one: snapshots of a camera over HTTP, and files that somebody puts into a folder."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import FoothillError
from edge_node.cameras.sources.address import Address
from edge_node.cameras.sources.http_login import DENIED, auth_for
from edge_node.cameras.sources.shot import Still
from edge_node.cameras.sources.source import Corrupt, Facts
from edge_node.cameras.sources.trouble import Trouble, without
from edge_node.cameras.sources.wishes import Wishes
from runtime.serving.pictures import images
from runtime.serving.pictures.picture import Size

if TYPE_CHECKING:
    import httpx

_MOST_BYTES = 64 << 20
_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png"}
_MOST_BAD = 10
"""So many answers in a row that are no picture are no camera."""
_SETTLED_S = 0.5
"""A file that was written to a moment ago may not be whole."""


class Snapshots:
    """Asks an address again and again: by Basic or Digest authentication, whichever the camera wants."""

    def __init__(self, address: Address, login: tuple[str, str], wishes: Wishes, corrupt: Corrupt) -> None:
        import httpx

        self._address = address
        self._login = login
        self._wishes = wishes
        self._corrupt = corrupt
        self._auth: httpx.Auth | None = None
        self.received_bytes = 0
        self._client = httpx.Client(timeout=wishes.stall_s, follow_redirects=False, trust_env=False)

    @property
    def facts(self) -> Facts:
        return Facts("jpeg")

    def shots(self, stopped: threading.Event) -> Iterator[Still]:
        number = bad = 0
        next_s = time.monotonic()
        while not stopped.wait(max(0.0, next_s - time.monotonic())):
            next_s = max(next_s + self._wishes.interval_s, time.monotonic())
            at_s, (data, media_type) = time.time(), self._fetch()
            shot = _still(data, media_type, at_s, number + 1, self._wishes.max_pixels)
            bad = bad + 1 if shot is None else 0
            if shot is None:
                self._corrupt()
                if bad >= _MOST_BAD:
                    raise Trouble("lost", f"its answer is no JPEG or PNG picture, but {media_type[:80] or 'unknown'}")
                continue
            number += 1
            yield shot

    def close(self) -> None:
        self._client.close()

    def _fetch(self) -> tuple[bytes, str]:
        """The body and its type. Raises Trouble."""
        import httpx

        try:
            told, data = self._ask()
            if told.status_code == 401 and self._auth is None and self._login[0]:
                self._auth = auth_for(told, self._login)
                told, data = self._ask()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Trouble("lost", without((self._login[1],), str(error) or type(error).__name__)) from None
        if told.status_code in (401, 403):
            raise Trouble("denied", DENIED)
        if told.status_code != 200:
            raise Trouble("lost", f"it answers with status {told.status_code}")
        return data, told.headers.get("Content-Type", "")

    def _ask(self) -> tuple[httpx.Response, bytes]:
        with self._client.stream("GET", self._address.url, auth=self._auth) as told:
            data = bytearray()
            for piece in told.iter_bytes():
                data += piece
                if len(data) > _MOST_BYTES:
                    raise Trouble("lost", f"its picture has more than {_MOST_BYTES >> 20} MiB")
            self.received_bytes += len(data)
            return told, bytes(data)


class Folder:
    """Every picture in it, in the order of their names, and each that comes later."""

    def __init__(self, address: Address, wishes: Wishes, corrupt: Corrupt) -> None:
        self._path = address.path
        self._wishes = wishes
        self._corrupt = corrupt
        self.received_bytes = 0
        self._listed()

    @property
    def facts(self) -> Facts:
        return Facts("pictures")

    def shots(self, stopped: threading.Event) -> Iterator[Still]:
        seen: set[str] = set()
        number = 0
        while not stopped.is_set():
            there = self._listed()
            seen &= there.keys()
            for name in sorted(there.keys() - seen):
                seen.add(name)
                shot = self._shot(there[name], number + 1)
                if shot is None:
                    self._corrupt()
                    continue
                number += 1
                yield shot
                if stopped.is_set() or (self._wishes.pace == "realtime" and stopped.wait(self._wishes.interval_s)):
                    return
            stopped.wait(self._wishes.interval_s)

    def close(self) -> None:
        pass

    def _shot(self, path: Path, number: int) -> Still | None:
        try:
            with path.open("rb") as file:
                data = file.read(_MOST_BYTES)
            at_s = path.stat().st_mtime
        except OSError:
            return None
        return _still(data, _TYPES[path.suffix.lower()], at_s, number, self._wishes.max_pixels)

    def _listed(self) -> dict[str, Path]:
        """Pictures by name that nobody writes to any more. Raises Trouble."""
        try:
            with os.scandir(self._path) as entries:
                pictures = [entry for entry in entries if Path(entry.name).suffix.lower() in _TYPES]
                before_s = time.time() - _SETTLED_S
                return {entry.name: Path(entry.path) for entry in pictures if entry.stat().st_mtime < before_s}
        except OSError as error:
            raise Trouble("lost", f"the folder cannot be read ({error.strerror})") from error


def _still(data: bytes, media_type: str, at_s: float, number: int, max_pixels: int) -> Still | None:
    """None for what is no picture."""
    kind = media_type.partition(";")[0].strip().lower()
    try:
        seen = images.look(data, "image/jpeg" if kind in ("", "image/jpg") else kind, max_pixels=max_pixels)
        return Still(images.decode(data, seen, "bgr", at_least=Size(*seen.size)), at_s, number)
    except FoothillError:
        return None
