"""The clips of a node as others see them: listed, opened, marked, deleted. All methods block on the disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

from contracts.errors import FoothillError
from edge_node.cameras.recording.clip import Clip, ClipName, parse_name
from edge_node.cameras.recording.retention import Kept
from edge_node.cameras.recording.shelf import Shelf

MOST_LISTED = 1000


class Listed(msgspec.Struct, frozen=True):
    """A clip and the id under which it is opened."""

    id: str
    clip: Clip


class Page(msgspec.Struct, frozen=True):
    """`next` asks for what follows; empty at the end."""

    clips: tuple[Listed, ...]
    next: str


class Opened(NamedTuple):
    """`file` stays readable when the clip is deleted meanwhile; whoever gets it closes it."""

    file: IO[bytes]
    clip: Clip


class Library:
    """Raises FoothillError: `not_found` for ids that no listing would give, `bad_request`, and `unavailable` where the
    disk fails."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def list(
        self,
        *,
        camera: str = "",
        from_s: float = 0.0,
        until_s: float = float("inf"),
        event: str = "",
        limit: int = 100,
        after: str = "",
    ) -> Page:
        """Newest first: those that began within [`from_s`, `until_s`), unix time; `after` is the `next` of a page.

        Those of an `event` are of one `camera`.
        """
        if not 1 <= limit <= MOST_LISTED:
            raise FoothillError("bad_request", f"limit {limit} is not between 1 and {MOST_LISTED}. Ask for fewer.")
        before = _position(after)
        self._look()
        found = [
            kept
            for kept in self._candidates(camera, event)
            if (not camera or kept.name.camera == camera)
            and from_s <= kept.at_s < until_s
            and (before is None or kept[:2] < before)
        ]
        listed = tuple(entry for kept in found[:limit] if (entry := self._listed(kept)) is not None)
        return Page(listed, _cursor(found[limit - 1]) if len(found) > limit else "")

    def open(self, clip_id: str) -> Opened:
        name = self._name(clip_id)
        try:
            clip = self._shelf.describe(name)
            return Opened(self._shelf.path_of(name).open("rb"), clip)
        except (KeyError, FileNotFoundError):
            raise _missing(clip_id) from None
        except OSError as error:
            raise _unavailable(error) from error

    def keep(self, clip_id: str, keep: bool = True) -> Clip:
        """Marks a clip, so that it gives way to nothing, or unmarks it."""
        name = self._name(clip_id)
        try:
            return self._shelf.keep(name, keep)
        except KeyError:
            raise _missing(clip_id) from None
        except OSError as error:
            raise _unavailable(error) from error

    def delete(self, clip_id: str) -> None:
        """Of marked ones too: whoever asks for it by name means it."""
        name = self._name(clip_id)
        try:
            self._shelf.path_of(name)
            self._shelf.remove(name)
        except KeyError:
            raise _missing(clip_id) from None
        except OSError as error:
            raise _unavailable(error) from error

    def of_event(self, camera: str, event: str) -> str:
        """The id of the first clip that an event is in; "" for none."""
        self._look()
        names = self._shelf.of_event(camera, event)
        return str(names[0]) if names else ""

    def path(self, clip_id: str) -> Path:
        """Of the video, for who reads it at once."""
        name = self._name(clip_id)
        try:
            path = self._shelf.path_of(name)
        except KeyError:
            raise _missing(clip_id) from None
        if not path.is_file():
            raise _missing(clip_id)
        return path

    def _look(self) -> None:
        """The first who asks after a start waits until it is known what is there."""
        try:
            self._shelf.look()
        except OSError as error:
            raise _unavailable(error) from error

    def _candidates(self, camera: str, event: str) -> Sequence[Kept]:
        known = self._shelf.newest_first()
        if not event:
            return known
        names = frozenset(self._shelf.of_event(camera, event))
        return tuple(kept for kept in known if kept.name in names)

    def _name(self, clip_id: str) -> ClipName:
        name = parse_name(clip_id)
        if name is None:
            raise _missing(clip_id)
        self._look()
        return name

    def _listed(self, kept: Kept) -> Listed | None:
        """None for one that went while the others were read."""
        try:
            return Listed(str(kept.name), self._shelf.describe(kept.name))
        except KeyError:
            return None


def _cursor(kept: Kept) -> str:
    return f"{kept.at_s!r}/{kept.name}"


def _position(cursor: str) -> tuple[float, ClipName] | None:
    if not cursor:
        return None
    at_s, _, clip_id = cursor.partition("/")
    name = parse_name(clip_id)
    try:
        if name is not None:
            return float(at_s), name
    except ValueError:
        pass
    raise FoothillError("bad_request", "`after` is not what a page of clips gave as its `next`. Leave it away.")


def _missing(clip_id: str) -> FoothillError:
    return FoothillError(
        "not_found", f"There is no clip {clip_id[:200]!r}: it was deleted, or never was. List the clips."
    )


def _unavailable(error: OSError) -> FoothillError:
    return FoothillError("unavailable", f"The disk with the clips fails: {error}. Look at the node's disk.")
