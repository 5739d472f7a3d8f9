"""The registry: bundles go in whole and signed, or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec

from contracts import manifest as manifests
from contracts.decoding import UNREADABLE
from contracts.errors import FoothillError
from contracts.manifest import Manifest, Measurements
from fleet.api import ModelDetail, ModelView
from fleet.auditing.entries import Measured, Published
from fleet.oci import OciLayout
from fleet.signing import Signing
from fleet.state import BundleRow, State


class Registry:
    """Synchronous, on the fleet's state thread. `clock` gives unix time."""

    def __init__(self, state: State, blobs: OciLayout, signing: Signing, clock: Callable[[], float]) -> None:
        self._state = state
        self._blobs = blobs
        self._signing = signing
        self._clock = clock

    def publish(self, data: bytes) -> ModelDetail:
        """Signs a manifest whose files were all uploaded; publishing the same again changes nothing.

        Raises FoothillError `bad_bundle`, `conflict` when the name@version is taken by another content.
        """
        manifest = manifests.decode(data)
        digest = manifests.digest_of(data)
        if manifests.digest(manifest) != digest:
            raise FoothillError("bad_bundle", "The manifest is not canonical JSON. Write it with the compiler's pack.")
        self._check_free(manifest, digest)
        self._check_files(manifest)
        self._blobs.add_bundle(manifest, data)
        self._signing.add_bundle(manifest, data, digest)
        if self._state.bundle_by_digest(digest) is None:
            name, version, model, tier = manifest.name, manifest.version, manifest.model, manifest.tier
            with self._state.transaction():
                self._state.put_bundle(BundleRow(digest, name, version, model, tier, data, None, self._clock()))
                self._state.log(Published(manifest.reference, model, digest))
        return self.detail(manifest.name, manifest.version)

    def measure(self, name: str, version: str, data: bytes) -> ModelDetail:
        """Attaches measurements. Raises FoothillError `bad_bundle` when they speak of another bundle."""
        bundle = self.find(name, version)
        try:
            measurements = msgspec.json.decode(data, type=Measurements)
        except UNREADABLE as error:
            raise FoothillError("bad_bundle", f"The measurements are refused: {error}.") from error
        if measurements.bundle not in (bundle.digest, bundle.reference):
            raise FoothillError(
                "bad_bundle", f"The measurements speak of {measurements.bundle[:80]!r}, not of {bundle.reference}."
            )
        with self._state.transaction():
            self._state.put_measurements(bundle.digest, data)
            self._state.log(Measured(bundle.reference, bundle.digest, hashlib.sha256(data).hexdigest()))
        return self.detail(name, version)

    def find(self, name: str, version: str) -> BundleRow:
        bundle = self._state.bundle(name, version)
        if bundle is None:
            raise FoothillError(
                "not_found", f"No bundle {name}@{version} is published. `foothill fleet model list` shows what is."
            )
        return bundle

    def detail(self, name: str, version: str) -> ModelDetail:
        bundle = self.find(name, version)
        return ModelDetail(bundle.digest, bundle.model, manifests.decode(bundle.manifest), measurements_of(bundle))

    def views(self) -> list[ModelView]:
        return [_view(bundle) for bundle in self._state.bundles()]

    def _check_free(self, manifest: Manifest, digest: str) -> None:
        taken = self._state.bundle(manifest.name, manifest.version)
        if taken is not None and taken.digest != digest:
            raise FoothillError(
                "conflict",
                f"{manifest.reference} is published as {taken.digest}; a version never changes. Publish a new one.",
            )

    def _check_files(self, manifest: Manifest) -> None:
        missing = [name for name, file in manifest.files.items() if self._blobs.size(file.sha256) != file.bytes]
        if missing:
            raise FoothillError(
                "bad_bundle", f"Not uploaded in full: {', '.join(missing[:8])}. PUT each to /v1/blobs/DIGEST first."
            )


def measurements_of(bundle: BundleRow) -> Measurements | None:
    return None if bundle.measurements is None else msgspec.json.decode(bundle.measurements, type=Measurements)


def _view(bundle: BundleRow) -> ModelView:
    manifest = manifests.decode(bundle.manifest)
    return ModelView(
        digest=bundle.digest,
        name=bundle.name,
        version=bundle.version,
        model=bundle.model,
        tier=bundle.tier,
        bytes=sum({file.sha256: file.bytes for file in manifest.files.values()}.values()),
        published_at_s=bundle.published_at_s,
        measurements=measurements_of(bundle),
    )
