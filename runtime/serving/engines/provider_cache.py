"""Where what was made of an artifact is kept for the next start: a graph that ONNX Runtime optimized, what a provider
compiled. It may be removed at any time."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

log = logging.getLogger(__name__)

KEPT = 16
"""Artifacts of current and previous bundles of a few models; what was opened longest ago goes first."""


def room_for(root: Path, digest: str) -> Path | None:
    """The directory for the artifact `digest`, which only this user may enter: what lies there is run as it is.

    None where the disk has no room for it, or root is another's: the provider then compiles at every start.
    """
    place = root / digest.replace(":", "-")
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


def clear(root: Path) -> None:
    """Makes room on the disk. What is open stays so, and its room comes back when it is closed."""
    for place in root.glob("*"):
        shutil.rmtree(place, ignore_errors=True)


def _collect(root: Path, used: Path) -> None:
    """A directory is touched whenever it is asked for, so that its time is that of its last use."""
    others = sorted((one for one in root.iterdir() if one != used), key=lambda one: one.stat().st_mtime, reverse=True)
    for old in others[KEPT - 1 :]:
        shutil.rmtree(old, ignore_errors=True)
