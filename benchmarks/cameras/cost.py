"""What a node adds to the work itself: CPU seconds a picture, beside one process that does nothing else."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from benchmarks.cameras import clips
from benchmarks.cameras.bare import Worked
from benchmarks.cameras.detector import FILE
from benchmarks.cameras.site import Keys, Site, rtsp, running
from benchmarks.machine import Watch, pinned
from benchmarks.rounds import Profile, Ratio, Rounds, spread
from benchmarks.rtsp.server import Mount, serving
from benchmarks.stage import ROOT, Stage
from model_compiler.pack import Packed

FPS = 25
"""The square at the pace of a usual camera, and not at its own: the same pictures in less time."""
_WARM = 30
_PICTURES = 100


class Cost(NamedTuple):
    """`ratio` of CPU seconds a picture."""

    ratio: Ratio
    node_ms: float
    bare_ms: float


def measure(stage: Stage, profile: Profile, bundle: Packed, rounds: Rounds[str]) -> Cost:
    """A node and the bare process see a hundred pictures of one street in turns, each alone on one core: what runs on
    two at once takes longer on each. The camera's server has the other core."""
    clip = clips.vtest(stage.work)
    camera, model = rtsp("square", "", model=bundle.manifest.model), bundle.directory / FILE
    watch, node, bare = Watch(stage.pids), [], []
    with pinned(stage.cores.client), serving([Mount("/square", str(clip), FPS)]) as server:
        camera["url"] = f"{server.url}/square"
        with pinned(stage.cores.server), running(stage, [], bundle=bundle) as site:
            for _ in range(profile.rounds):
                node.append(_node(site, camera))
                bare.append(_bare(camera["url"], model))
    rounds.keep({}, watch.read())
    ratios = [ours / theirs for ours, theirs in zip(node, bare, strict=True)]
    return Cost(spread(ratios), float(np.median(node)), float(np.median(bare)))


def _node(site: Site, camera: Keys) -> float:
    """CPU milliseconds for each picture that it saw; afterwards it rests."""
    site.become([camera])
    began, cpu_s = site.wait_for(camera["name"], _WARM), site.cpu_s
    seen = site.wait_for(camera["name"], began + _PICTURES) - began
    each_ms = (site.cpu_s - cpu_s) / seen * 1000.0
    site.become([])
    while site.views():
        time.sleep(0.1)
    return each_ms


def _bare(url: str, model: Path) -> float:
    with bare_process(url, model) as ask:
        ask(_WARM)
        worked = ask(_PICTURES)
    return worked.cpu_s / len(worked.each_ms) * 1000.0


class Ask:
    """Has the bare process work on so many pictures."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def __call__(self, pictures: int) -> Worked:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{pictures}\n".encode())
        self._process.stdin.flush()
        return msgspec.json.decode(self._process.stdout.readline(), type=Worked)


@contextmanager
def bare_process(url: str, model: Path) -> Iterator[Ask]:
    command = [sys.executable, "-m", "benchmarks.cameras.bare", url, str(model)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield Ask(process)
    finally:
        process.kill()
        process.communicate()
