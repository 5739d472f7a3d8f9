"""Clips on the disk: written under another name, put in their place at once, and taken away again.

Half a clip never has a clip's name. The text of a clip is there before its video, and goes after it.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from contracts.decoding import UNREADABLE
from contracts.topics import NODE_NAME
from edge_node.cameras.recording.clip import (
    TEXT_SUFFIX,
    VIDEO_SUFFIX,
    Clip,
    ClipName,
    begun_at_s,
    name_of,
    parse_name,
)
from edge_node.cameras.recording.config import Limits, RecordingConfig
from edge_node.cameras.recording.index import Index
from edge_node.cameras.recording.retention import Bounds, Kept, Ledger, SettledClock
from runtime.links.process.disk import REAL_DISK, Disk, Writing
from runtime.links.process.durable import make_directories

log = logging.getLogger(__name__)

WRITING = ".writing"
"""The directory of what is not yet a clip. Whatever is in it at a start is what a crash has left."""
GRANT_BYTES = 1 << 20
"""Room is asked for in pieces of this size, not for every write."""
_TEXT_BYTES = 16 << 10
_MODE = 0o640
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))


class NoRoom(OSError):  # noqa: N818 - it names a state of the world, not a mistake
    """Clips may take no more of the disk, and none of them may go."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.ENOSPC, why)


class Part:
    """A file that becomes a clip: written from its beginning to its end. `write` raises OSError and NoRoom.

    After `forget` it swallows what FFmpeg still has in its buffers.
    """

    def __init__(self, path: Path, camera: str, file: Writing, claim: Callable[[Part, int], None]) -> None:
        self.path = path
        self.camera = camera
        self.bytes = self.granted = 0
        self._file = file
        self._claim = claim
        self._sum = hashlib.sha256()
        self._forgotten = False

    def write(self, data: bytes) -> int:
        if not self._forgotten:
            if self.bytes + len(data) > self.granted:
                self._claim(self, max(GRANT_BYTES, len(data)))
            self._file.write(data)
            self._sum.update(data)
            self.bytes += len(data)
        return len(data)

    def finish(self) -> None:
        """All of it is on the disk when this returns."""
        try:
            self._file.sync()
        finally:
            self._file.close()

    def forget(self) -> None:
        if not self._forgotten:
            self._forgotten = True
            with suppress(OSError):
                self._file.close()

    @property
    def sha256(self) -> str:
        return self._sum.hexdigest()


class Shelf:
    """All clips of a node, below `directory`. `cameras` are limits that cameras have of their own; they may change.
    `hold` raises OSError where the directory is another node's.

    Methods block, and raise OSError where the disk does not do what it should. Any thread may call them.
    """

    def __init__(
        self,
        directory: Path,
        config: RecordingConfig,
        cameras: Mapping[str, Limits],
        *,
        disk: Disk = REAL_DISK,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        hold: Callable[[Path], None] = lambda directory: None,
    ) -> None:
        self._directory = directory
        self._reserve_bytes = config.reserve_bytes
        self._disk = disk
        self._wall = wall
        self._clock = clock
        self._settled = SettledClock(wall(), clock())
        self._bounds = Bounds(config.keep_days, config.keep_bytes)
        self._cameras = cameras
        self._ledger, self._index = Ledger(self._bounds, cameras), Index()
        self._parts: set[Part] = set()
        self._numbers = itertools.count()
        self._lock = threading.RLock()
        self._hold = hold
        self._loaded = self._looked = False

    @property
    def taken_bytes(self) -> int:
        """That clips take of the disk, those that are being written too."""
        return self._ledger.bytes + sum(part.bytes for part in tuple(self._parts))

    def __len__(self) -> int:
        return len(self._ledger)

    def load(self) -> None:
        """Looks once at what is there, and clears away what a crash has left. Before anything is written. Raises
        OSError, also where the directory is another node's.

        And again once the directory was found to be gone: a disk was taken out, and may be back, or another one.
        """
        with self._lock:
            if self._loaded:
                return
            make_directories(self._directory / WRITING, self._disk)
            self._hold(self._directory)
            for left in {*(self._directory / WRITING).iterdir()} - {part.path for part in self._parts}:
                self._disk.unlink(left)
            self._ledger, self._index = Ledger(self._bounds, self._cameras), Index()
            for name in self._named():
                self._take_in(name)
            self._loaded = self._looked = True

    def look(self) -> None:
        """For readers: `load`, unless that was done once."""
        if not self._looked:
            self.load()

    def begin(self, camera: str) -> Part:
        self.load()
        path = self._directory / WRITING / f"{camera}-{next(self._numbers)}{VIDEO_SUFFIX}"
        try:
            file = self._disk.open(path, mode=_MODE)
        except FileNotFoundError:
            self._loaded = False
            raise
        part = Part(path, camera, file, self._claim)
        with self._lock:
            self._parts.add(part)
        return part

    def place(self, part: Part, clip: Clip) -> ClipName:
        """Makes a clip of a part that is complete. Where that fails the part is still there."""
        part.finish()
        text = msgspec.json.format(msgspec.json.encode(clip), indent=1)
        with self._lock:
            name = self._free_name(clip)
            final = name.below(self._directory)
            make_directories(final.parent, self._disk)
            self._write_text(final.with_suffix(TEXT_SUFFIX), text)
            try:
                self._disk.replace(part.path, final.with_suffix(VIDEO_SUFFIX))
            except OSError:
                self._clear(final.with_suffix(TEXT_SUFFIX))
                raise
            self._disk.sync_directory(final.parent)
            self._parts.discard(part)
            self._ledger.add(Kept(clip.from_s, name, part.bytes + len(text), clip.keep))
            self._index.add(name, clip)
        return name

    def abandon(self, part: Part) -> None:
        """Raises nothing: what cannot be removed now is removed at the next start."""
        part.forget()
        with self._lock:
            self._parts.discard(part)
        self._clear(part.path)

    def remove(self, name: ClipName) -> None:
        with self._lock:
            path = name.below(self._directory)
            for suffix in (VIDEO_SUFFIX, TEXT_SUFFIX):
                with suppress(FileNotFoundError):
                    self._disk.unlink(path.with_suffix(suffix))
            self._ledger.remove(name)
            self._index.remove(name)
            for above in (path.parent, path.parent.parent):
                with suppress(OSError):
                    self._disk.remove_directory(above)

    def keep(self, name: ClipName, keep: bool) -> Clip:
        """Marks a clip, so that it gives way to nothing, or unmarks it. Raises KeyError for one that is not here."""
        with self._lock:
            known = self._known(name)
            clip = msgspec.structs.replace(self.describe(name), keep=keep)
            text = msgspec.json.format(msgspec.json.encode(clip), indent=1)
            path = name.below(self._directory).with_suffix(TEXT_SUFFIX)
            self._write_text(path, text)
            self._disk.sync_directory(path.parent)
            self._ledger.add(known._replace(keep=keep, bytes=clip.bytes + len(text)))
        return clip

    def expire(self) -> int:
        """Removes what is too old, and tells how many."""
        now_s = self._wall()
        with self._lock:
            if not self._settled.believed(now_s, self._clock()):
                return 0
            overdue = self._ledger.overdue(now_s)
            for kept in overdue:
                self.remove(kept.name)
        return len(overdue)

    def describe(self, name: ClipName) -> Clip:
        """What stands beside a clip; where that cannot be read, what its name and its size say. Raises KeyError."""
        kept = self._known(name)
        path = name.below(self._directory)
        try:
            return msgspec.json.decode(path.with_suffix(TEXT_SUFFIX).read_bytes(), type=Clip)
        except (OSError, *UNREADABLE):
            return _guess(name, kept.at_s, path.with_suffix(VIDEO_SUFFIX))

    def path_of(self, name: ClipName) -> Path:
        """Of the video. Raises KeyError."""
        self._known(name)
        return name.below(self._directory).with_suffix(VIDEO_SUFFIX)

    def of_event(self, camera: str, event: str) -> list[ClipName]:
        """The oldest first."""
        return sorted(self._index.clips(camera, event))

    def newest_first(self) -> list[Kept]:
        with self._lock:
            return list(self._ledger.newest_first())

    def _known(self, name: ClipName) -> Kept:
        kept = self._ledger.find(name)
        if kept is None:
            raise KeyError(str(name))
        return kept

    def _claim(self, part: Part, more: int) -> None:
        """Room for `more` bytes of a part; the oldest clips give way for it. Raises NoRoom."""
        with self._lock:
            own = sum(each.bytes for each in self._parts if each.camera == part.camera) + more
            all_ = sum(each.bytes for each in self._parts) + more
            free = self._disk.free_bytes(self._directory)
            missing = self._reserve_bytes + more + _TEXT_BYTES - free
            goes = self._ledger.way_for(part.camera, own, all_, missing)
            if goes is None:
                raise NoRoom(
                    f"the disk has {free} bytes free, of which {self._reserve_bytes} stay free, and clips take "
                    f"{self.taken_bytes}: what could go is not enough"
                )
            for kept in goes:
                self.remove(kept.name)
            part.granted = part.bytes + more

    def _free_name(self, clip: Clip) -> ClipName:
        first = name_of(clip.camera, clip.from_s, clip.events[0])
        others = (first._replace(stem=f"{first.stem}-{number}") for number in itertools.count(2))
        return next(name for name in itertools.chain((first,), others) if self._ledger.find(name) is None)

    def _write_text(self, final: Path, text: bytes) -> None:
        temporary = self._directory / WRITING / f"{next(self._numbers)}{TEXT_SUFFIX}"
        try:
            self._write(temporary, text)
            self._disk.replace(temporary, final)
        except OSError:
            self._clear(temporary)
            raise

    def _write(self, path: Path, data: bytes) -> None:
        file = self._disk.open(path, mode=_MODE)
        try:
            file.write(data)
            file.sync()
        finally:
            file.close()

    def _clear(self, path: Path) -> None:
        try:
            self._disk.unlink(path)
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("%s cannot be removed (%s): the next start tries again", path, error)

    def _named(self) -> Iterator[ClipName]:
        """Of all clips; what is not one of ours is left alone."""
        for camera in self._directory.iterdir():
            if NODE_NAME.fullmatch(camera.name) and camera.is_dir():
                for file in sorted(camera.glob("*/*")):
                    if (name := self._inspected(camera.name, file)) is not None:
                        yield name

    def _inspected(self, camera: str, file: Path) -> ClipName | None:
        """The clip whose video this is. Text without a video is what a crash or a power cut has left."""
        name = parse_name(f"{camera}/{file.parent.name}/{file.stem}")
        if name is not None and file.suffix == TEXT_SUFFIX and not file.with_suffix(VIDEO_SUFFIX).exists():
            self._disk.unlink(file)
        return name if file.suffix == VIDEO_SUFFIX else None

    def _take_in(self, name: ClipName) -> None:
        at_s = begun_at_s(name)
        if at_s is None:
            return
        video = name.below(self._directory).with_suffix(VIDEO_SUFFIX)
        size, text = video.stat().st_size, video.with_suffix(TEXT_SUFFIX)
        self._ledger.add(Kept(at_s, name, size))
        clip = self.describe(name)
        size += text.stat().st_size if text.exists() else 0
        self._ledger.add(Kept(clip.from_s, name, size, clip.keep))
        self._index.add(name, clip)


def is_full(error: OSError) -> bool:
    return error.errno in _FULL


def _guess(name: ClipName, at_s: float, video: Path) -> Clip:
    try:
        size = video.stat().st_size
    except FileNotFoundError:
        raise KeyError(str(name)) from None
    return Clip(
        camera=name.camera,
        events=(name.stem[7:],),
        from_s=at_s,
        to_s=at_s,
        seconds=0.0,
        codec="",
        width=0,
        height=0,
        pictures=0,
        bytes=size,
        sha256="",
    )
