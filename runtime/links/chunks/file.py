"""A content that comes in chunks, in any order, on its way into the store."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from contracts.manifest import File
from contracts.messages import CHUNK_BYTES
from runtime.links.bundles.store import BundleStore, size_of
from runtime.links.chunks.bits import ChunkBits
from runtime.links.process.durable import write_file


class ChunkFile:
    """`store.partial`, and beside it `store.bits`: which chunks of it are safe.

    Goes on from what was left there: by chunks as the bits say, by another way as a beginning without a gap. Chunks
    are synced before the bits that speak of them, every `store.sync_bytes`. All methods block and raise OSError.
    Thread-safe: who was cancelled may close it while its last `put` is still at work.
    """

    def __init__(self, store: BundleStore, file: File, *, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._store = store
        self._file = file
        self._path, self._bits_path = store.partial(file.sha256), store.bits(file.sha256)
        self.bits = _found(store, file, chunk_bytes)
        self._writing = store.disk.patch(self._path)
        self._unsaved_bytes = 0
        self._working = threading.Lock()
        self._closed = False

    def put(self, chunks: Iterable[tuple[int, bytes]]) -> None:
        """Chunks by number, each of its right length. Raises NoSpace when others have filled the disk."""
        with self._working:
            for index, data in chunks:
                if not self._closed:
                    self._put(index, data)

    def _put(self, index: int, data: bytes) -> None:
        self._writing.write_at(index * self.bits.chunk_bytes, data)
        self.bits.add(index)
        self._unsaved_bytes += len(data)
        if self._unsaved_bytes >= self._store.sync_bytes:
            self._save()
            self._store.check_reserve()

    def _save(self) -> None:
        """What a power cut leaves is then all that came so far."""
        self._writing.sync()
        self._store.disk.sync_directory(self._path.parent)
        write_file(self._bits_path, self.bits.encode(), disk=self._store.disk)
        self._unsaved_bytes = 0

    def finish(self) -> None:
        """All chunks are here: what is left is a whole file, like that of any other way."""
        if self._bits_path.exists():
            self._store.disk.unlink(self._bits_path)
            self._store.disk.sync_directory(self._path.parent)

    def close(self) -> None:
        """An unfinished one is saved, to go on from."""
        with self._working:
            try:
                if not self._closed and not self.bits.complete and self._unsaved_bytes:
                    self._save()
            finally:
                if not self._closed:
                    self._writing.close()
                self._closed = True


def leave_prefix(store: BundleStore, file: File) -> None:
    """What came in chunks becomes a beginning without a gap, which other ways go on from. Blocks; raises OSError."""
    path, bits_path = store.partial(file.sha256), store.bits(file.sha256)
    if not bits_path.exists():
        return
    kept = ChunkBits.read(bits_path)
    have = _found(store, file, kept.chunk_bytes).prefix_bytes() if kept is not None else 0
    if have:
        store.disk.open(path, at=have).close()
    elif path.exists():
        store.disk.unlink(path)
    store.disk.unlink(bits_path)
    store.disk.sync_directory(path.parent)


def _found(store: BundleStore, file: File, chunk_bytes: int) -> ChunkBits:
    """What an earlier attempt has left. A content of another length, or chunks of another one, are none of it."""
    path, kept = store.partial(file.sha256), ChunkBits.read(store.bits(file.sha256))
    length = size_of(path)
    if length > file.bytes:
        store.disk.unlink(path)
        return ChunkBits(file.bytes, chunk_bytes)
    if kept is None:
        return ChunkBits.of_prefix(length, file.bytes, chunk_bytes)
    if (kept.size, kept.chunk_bytes) != (file.bytes, chunk_bytes):
        return ChunkBits(file.bytes, chunk_bytes)
    return kept.within(length)
