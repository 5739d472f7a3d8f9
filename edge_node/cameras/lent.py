"""Cameras that the API has added: kept over restarts, apart from those of the configuration file."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from contracts.decoding import UNREADABLE
from contracts.errors import FoothillError
from edge_node.cameras.config import CameraConfig

FILE = "cameras.json"
_MODE = 0o600
"""What follows a `?` in an address may be a secret."""


class Lent:
    """The file in a node's state directory. Blocks."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE

    def read(self) -> tuple[CameraConfig, ...]:
        """Raises FoothillError `bad_request` for a file that somebody has spoiled."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise _bad(self._path, error.strerror or str(error)) from error
        try:
            return msgspec.json.decode(data, type=tuple[CameraConfig, ...])
        except UNREADABLE as error:
            raise _bad(self._path, str(error)) from error

    def write(self, cameras: tuple[CameraConfig, ...]) -> None:
        """All of them or, whatever happens, those of before. Raises FoothillError `unavailable`."""
        new = self._path.with_suffix(".new")
        try:
            with new.open("wb") as file:
                os.fchmod(file.fileno(), _MODE)
                file.write(msgspec.json.format(msgspec.json.encode(cameras), indent=2))
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError as error:
            raise FoothillError(
                "unavailable", f"{self._path} cannot be written ({error.strerror}). Make room, and try again."
            ) from error


def _bad(path: Path, why: str) -> FoothillError:
    return FoothillError("bad_request", f"{path} cannot be read: {why}. Correct it, or remove it to begin without.")
