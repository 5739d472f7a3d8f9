"""The fleet's signed targets (TUF): their paths, their roles, and what the small ones contain."""

from __future__ import annotations

from typing import Literal

import msgspec

CONTROL_KEYS = "keys/control.json"
"""The keys that sign documents, identities, certificates, engines, chunks and tickets; a target of the top role."""

Use = Literal["desired", "identity", "certificate", "engine", "ticket", "chunk"]


class ControlKey(msgspec.Struct, frozen=True):
    """One Ed25519 key (`public_key` in hex) and what it may sign: values of `Use`.

    A use that a reader does not know grants nothing there, and must not cost it the keys that it does know.
    """

    key_id: str
    public_key: str
    uses: tuple[str, ...]


class ControlKeys(msgspec.Struct, frozen=True):
    """The content of `keys/control.json`."""

    keys: tuple[ControlKey, ...]


class BundleFacts(msgspec.Struct, frozen=True):
    """The `custom` field of a bundle's target: proves which digest a name@version is."""

    name: str
    version: str
    tier: Literal["edge", "cloud"]


def role_of(model: str) -> str:
    """The delegated role that signs all bundles of one logical model."""
    return f"model-{model}"


def bundle_path(model: str, digest: str) -> str:
    """The target path of a bundle's manifest; `digest` is `sha256:<64 hex>`."""
    return f"bundles/{model}/{digest.removeprefix('sha256:')}.json"
