"""The fleet's secrets: one small file each, readable by the owner only, created at first need.

The root key lies here as well. A fleet that must survive the loss of this machine keeps it elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from runtime.links.process.settings import SettingsError
from runtime.links.trust import signatures

CONTROL = "control"
TICKET = "ticket"


class KeyFiles:
    """A directory of keys, each 32 bytes written as 64 hex digits."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def signing(self, name: str) -> bytes:
        """The Ed25519 private key `name`."""
        return bytes.fromhex(self._text(f"{name}.key", lambda: signatures.generate().hex()))

    def tickets(self) -> list[bytes]:
        """The Ed25519 private keys with which routers sign tickets: `ticket.key`, and each `ticket-NAME.key` beside."""
        self.signing(TICKET)
        names = sorted(path.stem for path in self._directory.glob(f"{TICKET}*.key"))
        return [self._ticket(name) for name in names if name == TICKET or name.startswith(f"{TICKET}-")]

    def _ticket(self, name: str) -> bytes:
        """Operators make these by hand. Raises SettingsError for one that is no key."""
        try:
            return signatures.checked_private(self._text(f"{name}.key", str))
        except ValueError as error:
            raise SettingsError(f"{self.path(name)}: {error}. Make it with: openssl rand -hex 32") from error

    def hop(self) -> str:
        """The shared key of `Foothill-Hop`, in hex: routers, nodes and the cloud tier know it."""
        return self._text("hop.key", lambda: secrets.token_hex(32))

    def path(self, name: str) -> Path:
        return self._directory / f"{name}.key"

    def _text(self, file: str, create: Callable[[], str]) -> str:
        return read_or_create(self._directory / file, create)


def read_or_create(path: Path, create: Callable[[], str]) -> str:
    """The one line in a file that only its owner may read, created when it is missing; two starters agree on one."""
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(create() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
        temporary.unlink()
    return path.read_text().strip()
