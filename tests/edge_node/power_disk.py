"""A disk that writes down every call, fails when told to, and knows what each call leaves after a power cut.

The model is POSIX at its strictest. Bytes that were not synced may be there, be missing, or be torn; a name that was
not synced may be any that stood there since its directory was, each name by itself; so a file that moved between two
directories may be in both or in none. A journalling file system keeps more; what holds here holds there.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from runtime.links.process.disk import Patching, RealDisk, Writing

Kind = Literal[
    "open", "patch", "write", "sync file", "close", "sync", "sync_directory", "seal", "replace", "link", "unlink",
    "make_directory", "remove_directory",
]  # fmt: skip
How = Literal["nothing", "everything", "ordered", "torn"]
"""Of what was not synced: nothing survives; everything does, as after SIGKILL; names up to some moment; or anything."""

HOWS: tuple[How, ...] = ("nothing", "everything", "ordered", "torn")
GROWS: frozenset[Kind] = frozenset({"open", "patch", "write", "link", "make_directory", "replace"})
"""The calls that a full disk may refuse."""

_SECTOR = 16
"""Of a torn file. The bundles of these tests are small."""


class Call(NamedTuple):
    """`path` and `target` are relative to the disk's root; `handle` names an open file."""

    kind: Kind
    path: str
    target: str = ""
    handle: int = 0
    at: int = 0
    data: bytes = b""


class RecordingDisk(RealDisk):
    """Really writes under `root`, but syncs nothing: what a sync means is the model's to know.

    `fails(call, number)` may raise OSError in the place of a call.
    """

    def __init__(self, root: Path, fails: Callable[[Call, int], None] = lambda call, number: None) -> None:
        self.calls: list[Call] = []
        self._root = root
        self._fails = fails
        self._lock = threading.RLock()
        self._handles = itertools.count(1)

    def open(self, path: Path, *, at: int = 0, mode: int = 0o644) -> Writing:
        handle = next(self._handles)
        with self.called("open", path, at=at, handle=handle):
            return _RecordedWriting(self, path, handle, super().open(path, at=at, mode=mode), at)

    def patch(self, path: Path) -> Patching:
        handle = next(self._handles)
        with self.called("patch", path, handle=handle):
            return _RecordedPatching(self, path, handle, super().patch(path))

    def sync(self, path: Path) -> None:
        with self.called("sync", path):
            path.stat()

    def sync_directory(self, path: Path) -> None:
        with self.called("sync_directory", path):
            path.stat()

    def seal(self, path: Path) -> None:
        with self.called("seal", path):
            super().seal(path)

    def replace(self, source: Path, target: Path) -> None:
        with self.called("replace", source, target):
            super().replace(source, target)

    def link(self, source: Path, target: Path) -> None:
        with self.called("link", source, target):
            super().link(source, target)

    def unlink(self, path: Path) -> None:
        with self.called("unlink", path):
            super().unlink(path)

    def make_directory(self, path: Path) -> None:
        with self.called("make_directory", path):
            super().make_directory(path)

    def remove_directory(self, path: Path) -> None:
        with self.called("remove_directory", path):
            super().remove_directory(path)

    def free_bytes(self, path: Path) -> int:
        return 1 << 40

    def called(
        self, kind: Kind, path: Path, target: Path | None = None, *, at: int = 0, handle: int = 0, data: bytes = b""
    ) -> _Called:
        where = self._name(target) if target is not None else ""
        return _Called(self, Call(kind, self._name(path), where, handle, at, data))

    def _name(self, path: Path) -> str:
        return os.path.relpath(path, self._root)

    def begin(self, call: Call) -> None:
        self._lock.acquire()
        try:
            self._fails(call, len(self.calls))
        except OSError:
            self._lock.release()
            raise

    def end(self, call: Call, failed: bool) -> None:
        if not failed:
            self.calls.append(call)
        self._lock.release()


class _Called:
    """One call from its beginning to its end: calls do not overlap, so that their order is the disk's."""

    def __init__(self, disk: RecordingDisk, call: Call) -> None:
        self._disk = disk
        self._call = call

    def __enter__(self) -> None:
        self._disk.begin(self._call)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._disk.end(self._call, failed=kind is not None)


class _RecordedWriting:
    def __init__(self, disk: RecordingDisk, path: Path, handle: int, real: Writing, at: int) -> None:
        self._disk, self._path, self._handle, self._real, self._at = disk, path, handle, real, at

    def write(self, data: bytes) -> None:
        with self._disk.called("write", self._path, handle=self._handle, at=self._at, data=bytes(data)):
            self._real.write(data)
        self._at += len(data)

    def sync(self) -> None:
        with self._disk.called("sync file", self._path, handle=self._handle):
            pass

    def close(self) -> None:
        with self._disk.called("close", self._path, handle=self._handle):
            self._real.close()


class _RecordedPatching:
    def __init__(self, disk: RecordingDisk, path: Path, handle: int, real: Patching) -> None:
        self._disk, self._path, self._handle, self._real = disk, path, handle, real

    def write_at(self, at: int, data: bytes) -> None:
        with self._disk.called("write", self._path, handle=self._handle, at=at, data=bytes(data)):
            self._real.write_at(at, data)

    def sync(self) -> None:
        with self._disk.called("sync file", self._path, handle=self._handle):
            pass

    def close(self) -> None:
        with self._disk.called("close", self._path, handle=self._handle):
            self._real.close()


def full_after(number: int) -> Callable[[Call, int], None]:
    """A disk that takes nothing more from its call `number` on, though it still lets go of things."""

    def fails(call: Call, now: int) -> None:
        if now >= number and call.kind in GROWS:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), call.path)

    return fails


class File:
    """`safe` is on disk; `edits` since then are (place, bytes), where None as bytes cuts the file off there."""

    def __init__(self, content: bytes = b"") -> None:
        self.safe = content
        self.now = content
        self.edits: list[tuple[int, bytes | None]] = []

    def edit(self, at: int, data: bytes | None) -> None:
        self.now = _edited(self.now, at, data)
        self.edits.append((at, data))

    def sync(self) -> None:
        self.safe, self.edits = self.now, []

    def after(self, how: How, rng: random.Random) -> bytes:
        if how == "everything" or not self.edits:
            return self.now
        if how == "nothing":
            return self.safe
        if how == "ordered":
            return rng.choice((self.safe, self.now))
        return self._torn(rng)

    def _torn(self, rng: random.Random) -> bytes:
        content = self.safe
        for at, data in self.edits[: rng.randint(0, len(self.edits))]:
            content = _edited(content, at, data)
        at, data = rng.choice(self.edits)
        if data and rng.random() < 0.5:
            content = _edited(content, at, data[: rng.randint(0, len(data))])
        if rng.random() < 0.5:
            content = _with_holes(content, self.safe, rng)
        return content


class Directory:
    """`changes` are the values that each name had since the last sync, with the number of the call that gave it."""

    def __init__(self) -> None:
        self.safe: dict[str, Node] = {}
        self.now: dict[str, Node] = {}
        self.changes: dict[str, list[tuple[int, Node | None]]] = {}

    def set(self, name: str, node: Node | None, number: int) -> None:
        if node is None:
            del self.now[name]
        else:
            self.now[name] = node
        self.changes.setdefault(name, []).append((number, node))

    def sync(self) -> None:
        self.safe, self.changes = dict(self.now), {}

    def after(self, how: How, until: int, rng: random.Random) -> dict[str, Node]:
        if how == "everything":
            return dict(self.now)
        entries: dict[str, Node | None] = dict(self.safe)
        for name, values in self.changes.items():
            if how == "ordered":
                kept = [node for number, node in values if number <= until]
                entries.update({name: kept[-1]} if kept else {})
            elif how == "torn":
                entries[name] = rng.choice([self.safe.get(name), *(node for _, node in values)])
        return {name: node for name, node in entries.items() if node is not None}


Node = File | Directory


class Platter:
    """What a disk holds, call by call. `deaf` are kinds of calls that it acknowledges and forgets."""

    def __init__(self, deaf: Collection[Kind] = ()) -> None:
        self.root = Directory()
        self._deaf = deaf
        self._files: dict[int, File] = {}
        self._number = 0

    def play(self, call: Call) -> None:
        self._number += 1
        if call.kind in self._deaf:
            return
        directory, name = self._parent(call.path)
        if call.kind in ("open", "patch"):
            self._open(directory, name, call)
        elif call.kind == "write":
            self._files[call.handle].edit(call.at, call.data)
        elif call.kind == "sync file":
            self._files[call.handle].sync()
        elif call.kind == "close":
            del self._files[call.handle]
        elif call.kind in ("sync", "sync_directory"):
            self._at(call.path).sync()
        else:
            self._rename(call, directory, name)

    def after(self, how: How, rng: random.Random) -> Tree:
        """One thing that a power cut now may leave."""
        return Tree(self.root, how, rng.randint(0, self._number), rng)

    def _open(self, directory: Directory, name: str, call: Call) -> None:
        file = directory.now.get(name)
        if not isinstance(file, File):
            file = File()
            directory.set(name, file, self._number)
        elif call.kind == "open" and len(file.now) > call.at:
            file.edit(call.at, None)
        self._files[call.handle] = file

    def _rename(self, call: Call, directory: Directory, name: str) -> None:
        if call.kind == "make_directory":
            directory.set(name, Directory(), self._number)
        elif call.kind in ("unlink", "remove_directory"):
            directory.set(name, None, self._number)
        elif call.kind in ("replace", "link"):
            other, new_name = self._parent(call.target)
            other.set(new_name, directory.now[name], self._number)
            if call.kind == "replace":
                directory.set(name, None, self._number)

    def _parent(self, path: str) -> tuple[Directory, str]:
        above, _, name = path.rpartition("/")
        parent = self._at(above or ".")
        assert isinstance(parent, Directory)
        return parent, name

    def _at(self, path: str) -> Node:
        node: Node = self.root
        for part in path.split("/") if path != "." else ():
            assert isinstance(node, Directory), path
            node = node.now[part]
        return node


class Tree:
    """Files and directories after a power cut, each file torn in one way under all of its names."""

    def __init__(self, root: Directory, how: How, until: int, rng: random.Random) -> None:
        self.directories: list[str] = []
        self.files: dict[str, int] = {}
        self.contents: dict[int, bytes] = {}
        self._walk(root, "", how, until, rng)

    def write(self, root: Path) -> None:
        written: dict[int, Path] = {}
        for name in self.directories:
            (root / name).mkdir()
        for name, file in self.files.items():
            if file in written:
                os.link(written[file], root / name)
            else:
                (root / name).write_bytes(self.contents[file])
                written[file] = root / name

    def platter(self) -> Platter:
        """The disk at the next start: all that is there is safe."""
        platter = Platter()
        files = {file: File(content) for file, content in self.contents.items()}
        for name in self.directories:
            platter.play(Call("make_directory", name))
        for name, file in self.files.items():
            directory, last = platter._parent(name)
            directory.set(last, files[file], 0)
        for directory in _directories(platter.root):
            directory.sync()
        return platter

    def key(self) -> tuple[object, ...]:
        """Equal for equal trees: the same names for the same files."""
        numbers: dict[int, int] = {}
        files = sorted(self.files.items())
        same = tuple(numbers.setdefault(file, len(numbers)) for _, file in files)
        return (tuple(sorted(self.directories)), tuple((name, self.contents[file]) for name, file in files), same)

    def _walk(self, directory: Directory, above: str, how: How, until: int, rng: random.Random) -> None:
        for name, node in directory.after(how, until, rng).items():
            path = f"{above}{name}"
            if isinstance(node, Directory):
                # Names that nothing has unmade may lead in circles where a directory has moved.
                if path.count("/") < 12:
                    self.directories.append(path)
                    self._walk(node, f"{path}/", how, until, rng)
            else:
                self.files[path] = id(node)
                if id(node) not in self.contents:
                    self.contents[id(node)] = node.after(how, rng)


def _directories(root: Directory) -> Iterator[Directory]:
    yield root
    for node in root.now.values():
        if isinstance(node, Directory):
            yield from _directories(node)


def _edited(content: bytes, at: int, data: bytes | None) -> bytes:
    if data is None:
        return content[:at]
    return content[:at].ljust(at, b"\0") + data + content[at + len(data) :]


def _with_holes(content: bytes, before: bytes, rng: random.Random) -> bytes:
    """Some sectors were never written: what stood there, and zeros behind it."""
    pieces = []
    for at in range(0, len(content), _SECTOR):
        piece = content[at : at + _SECTOR]
        old = before[at : at + _SECTOR]
        if piece != old and rng.random() < 0.3:
            piece = old[: len(piece)].ljust(len(piece), b"\0")
        pieces.append(piece)
    return b"".join(pieces)
