"""Blobs and bundles in an OCI image-layout directory (opencontainers/image-spec, image-layout.md)."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncIterable
from pathlib import Path
from typing import BinaryIO

import msgspec

from contracts.errors import FoothillError
from contracts.manifest import Manifest, digest_of, is_digest
from runtime.links.process.durable import sync_directory, write_file

BUNDLE_TYPE = "application/vnd.foothill.bundle.v1+json"
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_FILE_TYPE = "application/octet-stream"
_WRITE_BYTES = 1 << 20


class OciLayout:
    """A directory of content-addressed blobs, with an index of the bundles in it. Call `open` first."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._blobs = root / "blobs" / "sha256"
        self._uploads = root / "uploads"

    def open(self) -> None:
        """Makes the layout, and clears what interrupted uploads left."""
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._uploads.mkdir(exist_ok=True)
        for leftover in self._uploads.iterdir():
            leftover.unlink()
        write_file(self._root / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        if not (self._root / "index.json").exists():
            self._write_index([])

    def path(self, digest: str) -> Path:
        """Where the blob is, or would be; raises FoothillError `bad_request` for anything but a digest."""
        if not is_digest(digest):
            raise FoothillError("bad_request", f"{digest[:80]!r} is not a digest sha256:<64 hex digits>.")
        return self._blobs / digest.removeprefix("sha256:")

    def size(self, digest: str) -> int | None:
        """Bytes of a blob, None when it is not here."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    async def receive(self, digest: str, chunks: AsyncIterable[bytes], limit_bytes: int) -> int:
        """Takes a blob in as it comes, checks it, and only then shows it; returns its size.

        Raises FoothillError `body_too_large`, or `bad_request` when the content is another.
        """
        final = self.path(digest)
        upload = self._uploads / secrets.token_hex(16)
        file = await asyncio.to_thread(upload.open, "xb")
        try:
            size, found = await _copy(chunks, file, limit_bytes)
            if found != digest:
                raise FoothillError("bad_request", f"What was sent has digest {found}, not {digest}. Send it again.")
            await asyncio.to_thread(_finish, file, upload, final)
        finally:
            file.close()
            upload.unlink(missing_ok=True)
        return size

    def add(self, data: bytes) -> str:
        """A small blob at hand; returns its digest."""
        digest = digest_of(data)
        if self.size(digest) is None:
            write_file(self.path(digest), data)
        return digest

    def add_bundle(self, manifest: Manifest, data: bytes) -> None:
        """Lists a bundle as an OCI artifact: its manifest as config, its files as layers."""
        image = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE,
            "artifactType": BUNDLE_TYPE,
            "config": {"mediaType": BUNDLE_TYPE, "digest": self.add(data), "size": len(data)},
            "layers": [
                {
                    "mediaType": _FILE_TYPE,
                    "digest": file.sha256,
                    "size": file.bytes,
                    "annotations": {"org.opencontainers.image.title": name},
                }
                for name, file in sorted(manifest.files.items())
            ],
        }
        body = msgspec.json.encode(image)
        entry = {
            "mediaType": _MANIFEST_TYPE,
            "artifactType": BUNDLE_TYPE,
            "digest": self.add(body),
            "size": len(body),
            "annotations": {"org.opencontainers.image.ref.name": manifest.reference},
        }
        listed = msgspec.json.decode((self._root / "index.json").read_bytes())["manifests"]
        if entry not in listed:
            self._write_index([*listed, entry])

    def _write_index(self, manifests: list[dict[str, object]]) -> None:
        index = {"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": manifests}
        write_file(self._root / "index.json", msgspec.json.encode(index))


async def _copy(chunks: AsyncIterable[bytes], file: BinaryIO, limit_bytes: int) -> tuple[int, str]:
    """Writes and hashes off the event loop, a megabyte at a time; returns the size and the digest."""
    hashed, size, waiting = hashlib.sha256(), 0, bytearray()

    def flush(data: bytes) -> None:
        hashed.update(data)
        file.write(data)

    async for chunk in chunks:
        size += len(chunk)
        if size > limit_bytes:
            raise FoothillError(
                "body_too_large", f"A blob may have {limit_bytes} bytes; raise max_blob_bytes for more."
            )
        waiting += chunk
        if len(waiting) >= _WRITE_BYTES:
            await asyncio.to_thread(flush, bytes(waiting))
            waiting.clear()
    await asyncio.to_thread(flush, bytes(waiting))
    return size, "sha256:" + hashed.hexdigest()


def _finish(file: BinaryIO, upload: Path, final: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    upload.chmod(0o444)
    os.replace(upload, final)
    sync_directory(final.parent)
