"""Keys that sign reports: Ed25519, one line of 64 hex digits in a file of its own."""

from __future__ import annotations

import os
from pathlib import Path

from runtime.links.process.settings import SettingsError
from runtime.links.trust import signatures

_BYTES = 32


def create(path: Path) -> str:
    """Writes a new private key, readable by its owner only, and its public half beside it; returns the public half.

    Raises SettingsError when there is a file already: a key that is lost cannot be had again.
    """
    private = signatures.generate()
    public = signatures.public_key(private)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(private.hex() + "\n")
        path.with_name(f"{path.name}.pub").write_text(public + "\n")
    except FileExistsError as error:
        raise SettingsError(f"{path} is there already. Name another file.") from error
    except OSError as error:
        raise SettingsError(f"{path} cannot be written ({error.strerror}).") from error
    return public


def read_private(path: Path) -> bytes:
    """Raises SettingsError for a file that is no private key."""
    return _key(_read(path), f"{path} is no private key of 64 hex digits. Make one with `foothill hil key FILE`.")


def read_public(text: str) -> str:
    """A public key given as 64 hex digits, or as the file that holds them. Raises SettingsError."""
    wrong = f"{text[:80]!r} is neither a public key of 64 hex digits nor a file with one."
    if len(text) == 2 * _BYTES and not os.path.exists(text):
        return _key(text, wrong).hex()
    return _key(_read(Path(text)), wrong).hex()


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read ({getattr(error, 'strerror', '') or 'it is no text'}).") from error


def _key(text: str, wrong: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError as error:
        raise SettingsError(wrong) from error
    if len(key) != _BYTES:
        raise SettingsError(wrong)
    return key
