"""A real TUF repository in a directory, signed by throw-away keys, that a test bends as it likes."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from contracts.manifest import decode, digest_of
from contracts.targets import CONTROL_KEYS, bundle_path, role_of
from runtime.links.trust.signatures import key_id


class TufRepository:
    """`directory/metadata` and `directory/targets`, as the fleet serves them under `/tuf/`."""

    def __init__(self, directory: Path, *, expires_in: timedelta = timedelta(days=1)) -> None:
        self.directory = directory
        for part in ("metadata", "targets"):
            (directory / part).mkdir(parents=True, exist_ok=True)
        self.signer = CryptoSigner.generate_ed25519()
        self.expires_in = expires_in
        self.root = Root(version=1, consistent_snapshot=True)
        self.timestamp, self.snapshot, self.targets = Timestamp(), Snapshot(), Targets()
        self.published = 0
        self.models: dict[str, Targets] = {}
        for role in ("root", "timestamp", "snapshot", "targets"):
            self.root.add_key(self.signer.public_key, role)
        self.targets.delegations = Delegations({self.signer.public_key.keyid: self.signer.public_key}, {})
        self.root_bytes = self.publish_root()

    def publish_root(self, *signers: CryptoSigner) -> bytes:
        self.root.expires = _now() + timedelta(days=365)
        data = _signed(self.root, *(signers or (self.signer,)))
        self._write("metadata", f"{self.root.version}.root.json", data)
        return data

    def rotate_root(self) -> bytes:
        """Every role gets a new key; the new root is signed by the old key and the new."""
        old, self.signer = self.signer, CryptoSigner.generate_ed25519()
        for role in ("root", "timestamp", "snapshot", "targets"):
            self.root.revoke_key(old.public_key.keyid, role)
            self.root.add_key(self.signer.public_key, role)
        self.root.version += 1
        delegations = self.targets.delegations
        assert delegations is not None
        assert delegations.roles is not None
        delegations.keys = {self.signer.public_key.keyid: self.signer.public_key}
        for role_entry in delegations.roles.values():
            role_entry.keyids = [self.signer.public_key.keyid]
        data = self.publish_root(old, self.signer)
        self.publish()
        return data

    def set_keys(self, keys: dict[str, list[str]]) -> None:
        """`keys`: public hex to uses."""
        listed = [{"key_id": key_id(key), "public_key": key, "uses": uses} for key, uses in keys.items()]
        self.add_target(self.targets, CONTROL_KEYS, json.dumps({"keys": listed}).encode())

    def add_bundle(self, manifest: bytes, *, model: str | None = None, custom: dict[str, Any] | None = None) -> str:
        described = decode(manifest)
        model = model or described.model
        role = self.models.get(model) or self._delegate(model)
        facts = {"name": described.name, "version": described.version, "tier": described.tier}
        digest = digest_of(manifest)
        self.add_target(role, bundle_path(model, digest), manifest, facts if custom is None else custom)
        return digest

    def add_target(self, role: Targets, path: str, data: bytes, custom: dict[str, Any] | None = None) -> None:
        info = TargetFile.from_data(path, data, ["sha256"])
        if custom:
            info.unrecognized_fields["custom"] = custom
        role.targets[path] = info
        directory, _, name = path.rpartition("/")
        self._write("targets", f"{directory}/{info.hashes['sha256']}.{name}", data)

    def publish(self) -> None:
        """Signs everything anew, one version up."""
        roles = {"targets": self.targets} | {role_of(model): role for model, role in self.models.items()}
        self.snapshot.meta = {}
        self.published += 1
        for name, role in roles.items():
            role.version = self.published
            role.expires = _now() + self.expires_in
            self._write("metadata", f"{role.version}.{name}.json", _signed(role, self.signer))
            self.snapshot.meta[f"{name}.json"] = MetaFile(role.version)
        self.snapshot.version = self.published
        self.snapshot.expires = _now() + self.expires_in
        self._write("metadata", f"{self.snapshot.version}.snapshot.json", _signed(self.snapshot, self.signer))
        self.timestamp.version = self.published
        self.timestamp.expires = _now() + self.expires_in
        self.timestamp.snapshot_meta = MetaFile(self.snapshot.version)
        self._write("metadata", "timestamp.json", _signed(self.timestamp, self.signer))

    def metadata(self, name: str) -> Path:
        return self.directory / "metadata" / name

    def _delegate(self, model: str) -> Targets:
        delegations = self.targets.delegations
        assert delegations is not None
        assert delegations.roles is not None
        name = role_of(model)
        delegations.roles[name] = DelegatedRole(
            name, [self.signer.public_key.keyid], 1, terminating=True, paths=[f"bundles/{model}/*"]
        )
        self.models[model] = Targets()
        return self.models[model]

    def _write(self, part: str, name: str, data: bytes) -> None:
        path = self.directory / part / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _signed(role: Root | Timestamp | Snapshot | Targets, *signers: CryptoSigner) -> bytes:
    metadata: Metadata[Any] = Metadata(role)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes()


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(microsecond=0)
