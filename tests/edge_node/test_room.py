from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import FoothillError
from contracts.manifest import decode
from edge_node.room import LOADING_BASE_BYTES, LOADING_COPIES, Room, needed_bytes, way_in
from tests.edge_node.bundle_factory import MODEL_FILE, plain_manifest

MIB = 1 << 20


def room(available_mib: int, *, when_short: str = "wait") -> Room:
    assert when_short in ("wait", "unload")
    return Room(lambda: available_mib * MIB, 10 * MIB, "unload" if when_short == "unload" else "wait")


def test_what_loading_needs_comes_from_the_artifact_of_this_machine() -> None:
    manifest = decode(plain_manifest())
    (artifact,) = manifest.artifacts
    bytes_of_file = manifest.files[MODEL_FILE].bytes
    assert needed_bytes(manifest, artifact) == LOADING_BASE_BYTES + LOADING_COPIES * bytes_of_file


def test_a_copy_that_fits_beside_the_reserve_is_loaded_beside_what_serves() -> None:
    assert way_in(90 * MIB, room(100), replaces=True) == "beside"
    assert way_in(90 * MIB, room(100, when_short="unload"), replaces=True) == "beside"


@pytest.mark.parametrize(("when_short", "replaces"), [("wait", True), ("wait", False), ("unload", False)])
def test_one_that_does_not_fit_waits(when_short: str, replaces: bool) -> None:
    with pytest.raises(FoothillError, match="91 MiB") as waits:
        way_in(91 * MIB, room(100, when_short=when_short), replaces=replaces)
    assert waits.value.retryable


def test_or_takes_the_place_of_what_serves_where_that_is_wanted() -> None:
    assert way_in(91 * MIB, room(100, when_short="unload"), replaces=True) == "instead"


def test_where_nobody_says_how_much_there_is_nothing_is_checked(tmp_path: Path) -> None:
    assert way_in(1 << 50, room(0), replaces=True) == "beside"
