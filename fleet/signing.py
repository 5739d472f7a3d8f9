"""The fleet's signed metadata: a TUF repository (https://theupdateframework.github.io/specification/) in a directory.

`metadata/` and `targets/` are served as they are. Consistent snapshots: a client sees one state of the repository or
the next, never a mixture. Synchronous; one thread at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TypeVar, get_args

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
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

from contracts.manifest import Manifest
from contracts.messages import Signed
from contracts.targets import CONTROL_KEYS, BundleFacts, ControlKey, ControlKeys, Use, bundle_path, role_of
from fleet.keys import CONTROL, KeyFiles
from runtime.links.process.durable import write_file
from runtime.links.trust import signatures

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)

USES: tuple[Use, ...] = tuple(use for use in get_args(Use) if use != "ticket")
"""What the control key signs. Tickets are signed by routers, with keys of their own that may sign nothing else."""

_SNAPSHOT_FILE = "snapshot.json"


class Lifetimes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long each kind of metadata is believed, in seconds. All are renewed at half their time."""

    timestamp_s: float = 86_400.0
    snapshot_s: float = 7 * 86_400.0
    targets_s: float = 90 * 86_400.0
    root_s: float = 365 * 86_400.0


class Signing:
    """Holds the on-line keys and the present metadata. `clock` gives unix time."""

    def __init__(self, directory: Path, keys: KeyFiles, lifetimes: Lifetimes, clock: Callable[[], float]) -> None:
        self._metadata = directory / "metadata"
        self._targets_dir = directory / "targets"
        self._keys = keys
        self._lifetimes = lifetimes
        self._clock = clock
        self._control = keys.signing(CONTROL)
        self._roles: dict[str, Metadata[Targets]] = {}
        for folder in (self._metadata, self._targets_dir):
            folder.mkdir(parents=True, exist_ok=True)
        if (self._metadata / "timestamp.json").exists():
            self._load()
            with self._all_or_nothing():
                self._renew_control_keys()
        else:
            self._create()
        self.renew()

    @property
    def root(self) -> bytes:
        """The newest root metadata: what a node is handed when it joins."""
        return (self._metadata / f"{self._root.signed.version}.root.json").read_bytes()

    def sign(self, message: msgspec.Struct, attachments: Mapping[str, bytes] | None = None) -> Signed:
        """An envelope by the control key, which clients find in the signed target keys/control.json."""
        return signatures.sign(message, self._control, attachments)

    def add_bundle(self, manifest: Manifest, data: bytes, digest: str) -> None:
        """Signs a manifest in the role of its model. Nothing changes when it is signed already."""
        with self._all_or_nothing():
            self._add_bundle(manifest, data, digest)

    def renew(self) -> None:
        """Signs again whatever has less than half of its life left."""
        with self._all_or_nothing():
            self._renew()

    def _add_bundle(self, manifest: Manifest, data: bytes, digest: str) -> None:
        role, path = role_of(manifest.model), bundle_path(manifest.model, digest)
        if role not in self._roles:
            self._delegate(manifest.model)
        elif path in self._roles[role].signed.targets:
            return
        else:
            self._roles[role].signed.version += 1
        facts = BundleFacts(manifest.name, manifest.version, manifest.tier)
        self._roles[role].signed.targets[path] = self._write_target(path, data, facts)
        self._write_targets(role)
        self._publish(targets_changed=True)

    def _renew(self) -> None:
        if self._is_aging(self._root.signed.expires, self._lifetimes.root_s):
            self._root.signed.version += 1
            self._write_root()
        aging = [
            name for name, role in self._roles.items() if self._is_aging(role.signed.expires, self._lifetimes.targets_s)
        ]
        for name in aging:
            self._roles[name].signed.version += 1
            self._write_targets(name)
        if aging or self._is_aging(self._snapshot.signed.expires, self._lifetimes.snapshot_s):
            self._publish(targets_changed=True)
        elif self._is_aging(self._timestamp.signed.expires, self._lifetimes.timestamp_s):
            self._publish(targets_changed=False)

    def _create(self) -> None:
        root = Root(consistent_snapshot=True)
        for role in ("root", "targets", "snapshot", "timestamp"):
            root.add_key(self._signer(role).public_key, role)
        self._root = Metadata(root)
        self._roles = {"targets": Metadata(Targets(delegations=Delegations({}, {})))}
        self._snapshot, self._timestamp = Metadata(Snapshot()), Metadata(Timestamp())
        self._snapshot.signed.version = self._timestamp.signed.version = 0
        self._write_root()
        self._set_control_keys()
        self._write_targets("targets")
        self._publish(targets_changed=True)

    def _renew_control_keys(self) -> None:
        """An older program published fewer uses, and its clients must learn of the others."""
        published = self._roles["targets"].signed.targets.get(CONTROL_KEYS)
        wanted = TargetFile.from_data(CONTROL_KEYS, self._control_keys(), ["sha256"])
        if published is None or published.hashes != wanted.hashes:
            self._set_control_keys()
            self._roles["targets"].signed.version += 1
            self._write_targets("targets")
            self._publish(targets_changed=True)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """After a failure (a full disk) memory goes back to what clients can see on the disk."""
        try:
            yield
        except BaseException:
            self._load()
            raise

    def _load(self) -> None:
        """Follows the timestamp, as a client does: what a crash left beyond it was never seen and is overwritten."""
        newest = max(int(path.name.partition(".")[0]) for path in self._metadata.glob("*.root.json"))
        self._root = Metadata[Root].from_file(str(self._metadata / f"{newest}.root.json"))
        self._timestamp = Metadata[Timestamp].from_file(str(self._metadata / "timestamp.json"))
        version = self._timestamp.signed.snapshot_meta.version
        self._snapshot = Metadata[Snapshot].from_file(str(self._metadata / f"{version}.{_SNAPSHOT_FILE}"))
        self._roles = {}
        for file, meta in self._snapshot.signed.meta.items():
            loaded = Metadata[Targets].from_file(str(self._metadata / f"{meta.version}.{file}"))
            self._roles[file.removesuffix(".json")] = loaded

    def _delegate(self, model: str) -> None:
        role = role_of(model)
        targets = self._roles["targets"].signed
        delegations = targets.delegations
        if delegations is None or delegations.roles is None:
            raise ValueError(f"{self._metadata} is no metadata of this program: it delegates nothing by path.")
        delegations.roles[role] = DelegatedRole(role, [], 1, True, paths=[f"bundles/{model}/*"])
        targets.add_key(self._signer(role).public_key, role)
        self._roles[role] = Metadata(Targets())
        targets.version += 1
        self._write_targets("targets")

    def _set_control_keys(self) -> None:
        target = self._write_target(CONTROL_KEYS, self._control_keys(), None)
        self._roles["targets"].signed.targets[CONTROL_KEYS] = target

    def _control_keys(self) -> bytes:
        tickets = [_listed(key, ("ticket",)) for key in self._keys.tickets()]
        return msgspec.json.encode(ControlKeys((_listed(self._control, USES), *tickets)))

    def _write_target(self, path: str, data: bytes, facts: BundleFacts | None) -> TargetFile:
        target = TargetFile.from_data(path, data, ["sha256"])
        if facts is not None:
            target.unrecognized_fields["custom"] = msgspec.to_builtins(facts)
        folder, _, name = path.rpartition("/")
        file = self._targets_dir / folder / f"{hashlib.sha256(data).hexdigest()}.{name}"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, data)
        return target

    def _write_root(self) -> None:
        self._write(self._root, "root", f"{self._root.signed.version}.root.json", self._lifetimes.root_s)

    def _write_targets(self, role: str) -> None:
        metadata = self._roles[role]
        self._write(metadata, role, f"{metadata.signed.version}.{role}.json", self._lifetimes.targets_s)

    def _publish(self, *, targets_changed: bool) -> None:
        """Snapshot, then timestamp: the timestamp is what makes the new state visible."""
        if targets_changed:
            snapshot = self._snapshot.signed
            snapshot.meta = {f"{name}.json": MetaFile(role.signed.version) for name, role in self._roles.items()}
            snapshot.version += 1
            self._write(self._snapshot, "snapshot", f"{snapshot.version}.{_SNAPSHOT_FILE}", self._lifetimes.snapshot_s)
        timestamp = self._timestamp.signed
        timestamp.snapshot_meta = MetaFile(self._snapshot.signed.version)
        timestamp.version += 1
        self._write(self._timestamp, "timestamp", "timestamp.json", self._lifetimes.timestamp_s)

    def _write(self, metadata: Metadata[T], role: str, file: str, lifetime_s: float) -> None:
        metadata.signed.expires = self._now() + timedelta(seconds=lifetime_s)
        metadata.sign(self._signer(role))
        write_file(self._metadata / file, metadata.to_bytes())

    def _signer(self, role: str) -> CryptoSigner:
        return CryptoSigner(Ed25519PrivateKey.from_private_bytes(self._keys.signing(role)))

    def _is_aging(self, expires: datetime, lifetime_s: float) -> bool:
        return expires - self._now() < timedelta(seconds=lifetime_s / 2)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(int(self._clock()), timezone.utc)


def _listed(private: bytes, uses: tuple[Use, ...]) -> ControlKey:
    public = signatures.public_key(private)
    return ControlKey(signatures.key_id(public), public, uses)
