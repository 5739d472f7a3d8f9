"""Where what was made of an artifact is kept for the next start: a graph that ONNX Runtime optimized, what a provider
compiled. It may be removed at any time."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Collection
from pathlib import Path

from runtime.serving.engines.kept_graph import PREFIX

log = logging.getLogger(__name__)

KEPT = 64
"""Artifacts, at most; what was opened longest ago goes first."""


def room_for(root: Path, digest: str) -> Path | None:
    """The directory for the artifact `digest`, which only this user may enter: what lies there is run as it is.

    None where the disk has no room for it, or root is another's: the provider then compiles at every start.
    """
    place = root / _name(digest)
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if root.stat().st_uid != os.getuid():
            raise PermissionError(0, "it belongs to another user", str(root))
        root.chmod(0o700)
        place.mkdir(mode=0o700, exist_ok=True)
        os.utime(place)
        _collect(root, place)
    except OSError as error:
        log.warning("nothing compiled is kept: %s", error)
        return None
    return place


def keep_only(root: Path, digests: Collection[str]) -> None:
    """Drops what was made of other artifacts than these."""
    names = {_name(digest) for digest in digests}
    for place in root.glob("*"):
        if place.name not in names:
            shutil.rmtree(place, ignore_errors=True)


def drop_graphs(root: Path) -> None:
    """Makes room on the disk with what is made again in a moment; that of a graph that is open comes when it closes."""
    for graph in root.glob(f"*/{PREFIX}*"):
        shutil.rmtree(graph, ignore_errors=True)


def _name(digest: str) -> str:
    return digest.replace(":", "-")


def _collect(root: Path, used: Path) -> None:
    """A directory is touched whenever it is asked for, so that its time is that of its last use."""
    others = sorted((one for one in root.iterdir() if one != used), key=lambda one: one.stat().st_mtime, reverse=True)
    for old in others[KEPT - 1 :]:
        shutil.rmtree(old, ignore_errors=True)
