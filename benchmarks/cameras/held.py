"""How many streams are held without falling behind, here and by Roboflow's InferencePipeline, and how late results
come."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from benchmarks.cameras import clips
from benchmarks.cameras.cost import bare_process
from benchmarks.cameras.detector import FILE
from benchmarks.cameras.site import Keys, Site, rtsp, running
from benchmarks.rounds import Ratio, spread
from benchmarks.rtsp.server import Mount, serving
from benchmarks.stage import ROOT, Stage
from model_compiler.pack import Packed

PEER = Path(__file__).resolve().parents[2] / ".venv-peer-roboflow/bin/python"
_PEER_PROGRAM = Path(__file__).resolve().parents[1] / "peer_servers/roboflow_streams.py"
HELD = 0.99
"""Of the pictures that a camera sends, so many are seen."""
_MOST = 24
_TRIES = 2
_ROUNDS = 3
_DECODER_THREADS = 2
"""Of a camera: its keyframes take six times as long as other pictures, and have slices."""
_BARE_PICTURES = 200
_KEPT = 512
"""Of the latest pictures of a camera its percentiles are."""
_WARM_S, _WATCH_S = 6.0, 12.0
_PEER_STARTS_S = 60.0

Counts = Callable[[], Sequence[int]]
"""How many pictures of each stream were seen so far."""


class Held(NamedTuple):
    """`streams` that were held, and the share of pictures that was seen with one more."""

    streams: int
    then: float


class Late(NamedTuple):
    """From capture to result with so many streams, and of the bare process, alone, from packet to result. `ratio`: of
    the p95 to the bare median."""

    streams: int
    ratio: Ratio
    p50_ms: float
    p95_ms: float
    bare_p50_ms: float
    bare_p95_ms: float


def held_here(stage: Stage, bundle: Packed, first: int) -> Held:
    def share(urls: list[str]) -> float:
        cameras = _cameras(urls, bundle.manifest.model)
        with running(stage, cameras, bundle=bundle) as site:
            return _share(lambda: _inferred(site, len(urls)), len(urls))

    return _most(stage, share, first)


def held_by_peer(stage: Stage, bundle: Packed, first: int) -> Held | None:
    """None where it is not installed: `make .venv-peer-roboflow/.installed`."""
    if not PEER.exists():
        return None

    def share(urls: list[str]) -> float:
        with _peer(bundle.directory / FILE, urls) as counts:
            return _share(counts, len(urls))

    return _most(stage, share, first)


def late_at(stage: Stage, bundle: Packed, streams: int) -> Late:
    """Rounds of both in turns, since machines are not as quick at all times."""
    rounds = [_late_once(stage, bundle, streams) for _ in range(_ROUNDS)]
    ratios = [ours[1] / theirs[0] for ours, theirs in rounds]
    (p50, p95), (bare_p50, bare_p95) = np.median(np.array(rounds), axis=0).tolist()
    return Late(streams, spread(ratios), p50, p95, bare_p50, bare_p95)


def _late_once(stage: Stage, bundle: Packed, streams: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """p50 and p95 in ms: of all cameras, and of the bare process."""
    with _streams(stage, streams) as urls:
        with bare_process(urls[0], bundle.directory / FILE) as ask:
            bare = np.percentile(ask(_BARE_PICTURES).each_ms, (50, 95))
        cameras = _cameras(urls, bundle.manifest.model)
        with running(stage, cameras, bundle=bundle) as site:
            site.wait_for("c0", _KEPT)
            views = site.views().values()
    p50s, p95s = ([getattr(view, name) for view in views] for name in ("latency_p50_ms", "latency_p95_ms"))
    return (float(np.median(p50s)), float(np.median(p95s))), (float(bare[0]), float(bare[1]))


def _most(stage: Stage, share: Callable[[list[str]], float], first: int) -> Held:
    """One more as long as they are held, else one less."""
    held, then, streams = 0, 0.0, max(1, first)
    while 0 < streams <= _MOST:
        seen = max(_tries(stage, share, streams))
        if seen >= HELD:
            held = streams
            if then:
                break
            streams += 1
        else:
            then = seen
            if held:
                break
            streams -= 1
    return Held(held, then)


def _tries(stage: Stage, share: Callable[[list[str]], float], streams: int) -> Iterator[float]:
    """A machine that was busy with something else for a moment gets another chance."""
    for _ in range(_TRIES):
        with _streams(stage, streams) as urls:
            seen = share(urls)
        yield seen
        if seen >= HELD:
            return


def _share(counts: Counts, streams: int) -> float:
    """Of the stream that is seen least, once all are seen."""
    give_up_s = time.monotonic() + _PEER_STARTS_S
    while len(told := counts()) < streams or min(told) < 1:
        if time.monotonic() > give_up_s:
            return 0.0
        time.sleep(0.5)
    time.sleep(_WARM_S)
    before, began_s = counts(), time.monotonic()
    time.sleep(_WATCH_S)
    after, seconds = counts(), time.monotonic() - began_s
    # The first and the last picture of the span may fall to either side of it.
    sent = clips.VTEST_FPS * seconds - 1.0
    return min(1.0, min(late - early for early, late in zip(before, after, strict=True)) / sent)


def _cameras(urls: Sequence[str], model: str) -> list[Keys]:
    return [rtsp(f"c{at}", url, model=model, decoder_threads=_DECODER_THREADS) for at, url in enumerate(urls)]


def _inferred(site: Site, streams: int) -> list[int]:
    views = site.views()
    return [views[f"c{at}"].frames.inferred if f"c{at}" in views else 0 for at in range(streams)]


@contextmanager
def _streams(stage: Stage, count: int) -> Iterator[list[str]]:
    """Cameras of one street, whose pictures come one after another and not all at once."""
    clip = str(clips.vtest(stage.work))
    between_ms = 1000 // clips.VTEST_FPS // count
    mounts = [Mount(f"/c{at}", clip, clips.VTEST_FPS, after_ms=at * between_ms) for at in range(count)]
    with serving(mounts) as server:
        yield [f"{server.url}/c{at}" for at in range(count)]


@contextmanager
def _peer(model: Path, urls: Sequence[str]) -> Iterator[Counts]:
    command = [str(PEER), str(_PEER_PROGRAM), str(model), *urls]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=ROOT, text=True, **pipes)
    assert process.stdin is not None
    assert process.stdout is not None
    to, answers = process.stdin, process.stdout

    def counts() -> list[int]:
        to.write("\n")
        to.flush()
        return msgspec.json.decode(answers.readline(), type=list[int])

    try:
        yield counts
    finally:
        process.kill()
        process.communicate()
