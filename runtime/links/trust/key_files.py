"""Secrets that lie in files, so that no configuration and no command line holds one."""

from __future__ import annotations

import os
from pathlib import Path

from runtime.links.process.settings import SettingsError
from runtime.links.trust.signatures import checked_private

LOCAL_HOP_KEY = Path("state/fleet/keys/hop.key")
"""Where a fleet manager with default settings, started in the same directory, keeps the hop key."""

_LEAST_KEY_BYTES = 16


def find_hop_key_file(named: str) -> str:
    """`named`; for "" the file of a fleet manager that runs from this directory with its defaults, "" without one."""
    return named or (str(LOCAL_HOP_KEY) if os.path.isfile(LOCAL_HOP_KEY) else "")


def read_hop_key(path: Path, setting: str = "hop_key_file") -> bytes:
    """The key in hexadecimal that marks requests between hops. Raises SettingsError naming `setting`."""
    text = _read(path, setting)
    try:
        key = bytes.fromhex(text)
    except ValueError as error:
        raise SettingsError(f"{setting} {path}: this is not hexadecimal. Copy it from the fleet manager.") from error
    if len(key) < _LEAST_KEY_BYTES:
        raise SettingsError(f"{setting} {path}: {len(key)} bytes are too few for a key; at least {_LEAST_KEY_BYTES}.")
    return key


def read_ticket_key(path: Path, setting: str = "tickets.key_file") -> bytes:
    """The private key that signs tickets, in hexadecimal. Raises SettingsError naming `setting`."""
    try:
        return checked_private(_read(path, setting))
    except ValueError as error:
        raise SettingsError(
            f"{setting} {path}: {error}. Copy keys/ticket.key from the fleet manager's state directory."
        ) from error


def read_token(path: Path, setting: str = "admin_token_file") -> str:
    """A bearer token. Raises SettingsError naming `setting`."""
    token = _read(path, setting)
    if not token:
        raise SettingsError(f"{setting} {path} is empty. Write a long random token into it.")
    return token


def _read(path: Path, setting: str) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise SettingsError(f"{setting} {path} cannot be read ({error.strerror}). Correct the path.") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{setting} {path} is no text. Write the secret itself into it.") from error
