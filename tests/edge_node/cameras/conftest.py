"""Clips, and servers that play them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.rtsp.clips import walkers, write_clip
from benchmarks.rtsp.server import Mount, RtspServer, serving, what_is_missing
from tests.edge_node.cameras.house import House
from tests.edge_node.cameras.small_disk import SmallDisk, small_disk_at

FPS = 20
CODECS = ("h264", "hevc", "mjpeg")
USER, PASSWORD = "viewer", "pa ss/w:rd@1"


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By codec, and one of another size."""
    directory = tmp_path_factory.mktemp("clips")
    for codec in CODECS:
        write_clip(directory / codec, walkers(40), fps=FPS, codec=codec, gop=10)
    write_clip(directory / "wide", walkers(40, width=480, height=200), fps=FPS, gop=10)
    return directory


@pytest.fixture(scope="session")
def needs_gstreamer() -> None:
    missing = what_is_missing()
    if missing:
        pytest.skip(missing)


@pytest.fixture
def rtsp(clips: Path, needs_gstreamer: None) -> Iterator[RtspServer]:
    """A path for each codec."""
    with serving(_mounts(clips)) as server:
        yield server


@pytest.fixture
def other_rtsp(clips: Path, needs_gstreamer: None) -> Iterator[RtspServer]:
    """As `rtsp`: a camera that is well beside one that is not."""
    with serving(_mounts(clips)) as server:
        yield server


def _mounts(clips: Path) -> list[Mount]:
    return [Mount(f"/{codec}", str(clips / codec), FPS, codec) for codec in CODECS]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Skips where nothing may be mounted: that needs root."""
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(small_disk_at(tmp_path / "disk"))
        except OSError as error:
            pytest.skip(f"no file system can be mounted: {error}")
        yield disk


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = await House(tmp_path).open()
    yield house
    await house.close()
