"""Peers are measured only while they answer rightly, each alone on its core, and nothing is left of them."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE
from typing import cast

import numpy as np
import pytest

from benchmarks import bundles, peers
from benchmarks.bundles import Body, Floats
from benchmarks.peer_setups import PEERS, Model, Peer, Setup
from benchmarks.peers import EDGE, LIMIT, RAW, PeerError, PeerRow
from benchmarks.report import Report, markdown
from benchmarks.rounds import MINIMAL, Profile, Ratio
from benchmarks.stage import ROOT, Stage, perform
from benchmarks.tree import Tree, descendants
from foothill.processes import ProcessError, Processes, file_ready
from tests.benchmarks import family, stand_in_peer

pytestmark = pytest.mark.integration

LEFT_OUT = "not run: nowhere is missing or incomplete, make bench-peers makes it"


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    before = descendants(os.getpid())
    yield
    assert set(descendants(os.getpid())) <= {*before}


def ask(path: str) -> Setup:
    def asked(_model: Model, row: Floats) -> Body:
        return Body(path, {}, row.tobytes())

    def read(_model: Model, _headers: Mapping[str, str], body: bytes) -> Floats:
        return np.frombuffer(body, "<f4")

    return Setup(path, asked, read)


def stand_in(environment: Path, *setups: Setup) -> Peer:
    return Peer("stand-in", environment, Path(stand_in_peer.__file__), "/", setups)


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """An environment whose Python is this one."""
    python = tmp_path / "environment/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (python.parents[1] / ".installed").touch()
    return python.parents[1]


def compared(tmp_path: Path, *given: Peer) -> Report:
    async def benchmark(stage: Stage, profile: Profile) -> Report:
        return await peers.compare(stage, profile, [Model("tiny", bundles.tiny(stage.work), 8)], given)

    return perform(benchmark, MINIMAL, tmp_path)


def rows(report: Report) -> list[PeerRow]:
    return [cast(PeerRow, row) for row in report.rows]


def test_every_server_has_a_row_at_every_concurrency(tmp_path: Path, environment: Path) -> None:
    there, away = stand_in(environment, ask("/a"), ask("/b")), stand_in(tmp_path / "nowhere", ask("/a"))
    report = compared(tmp_path, there, away)
    *measured, missing = rows(report)
    servers = [(EDGE, (1, 8, 32)), ("stand-in", (1, 8, 32)), (RAW, (1,)), (LIMIT, (32,))]
    assert {(row.server, row.concurrency) for row in measured} == {(name, each) for name, at in servers for each in at}
    assert len(measured) == 8
    assert {row.setup for row in measured if row.server == "stand-in"} <= {"/a, no batches", "/b, no batches"}
    assert missing == PeerRow("tiny", "stand-in", LEFT_OUT)
    assert all(can_be_true(row) for row in measured)
    assert markdown(report).count("| tiny |") == 9


def can_be_true(row: PeerRow) -> bool:
    figures = [row.requests_per_s, row.p50_ms, row.p99_ms, row.cpu_us]
    ratios = [row.of_raw, row.p50_of_raw]
    expected = type(None) if row.server in (RAW, LIMIT) else Ratio
    return all(figure is not None and figure > 0 for figure in figures) and {type(each) for each in ratios} == {
        expected
    }


def test_a_server_that_answers_other_numbers_is_not_measured(tmp_path: Path, environment: Path) -> None:
    with pytest.raises(PeerError, match=r"stand-in .* answers other numbers"):
        compared(tmp_path, stand_in(environment, ask("/wrong")))


def test_a_server_that_does_not_start_says_what_it_said(tmp_path: Path, environment: Path) -> None:
    (environment / "bin/python").write_text("#!/bin/sh\necho no such module\nexit 3\n")
    with pytest.raises(ProcessError, match=r"(?s)exit code 3.*no such module"):
        compared(tmp_path, stand_in(environment, ask("/a")))


def test_peers_run_the_onnx_runtime_that_we_do() -> None:
    pinned = re.search(r"^onnxruntime==\S+", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    for peer in PEERS:
        packages = peer.program.with_name(peer.program.name.replace("_server.py", ".txt"))
        assert pinned.group() in packages.read_text().splitlines()


@pytest.mark.peers
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_real_peer_is_measured(peer: Peer, tmp_path: Path) -> None:
    if peer.missing:
        pytest.skip(peer.missing)
    measured = [row for row in rows(compared(tmp_path, peer)) if row.server == peer.name]
    assert [row.concurrency for row in measured] == [1, 8, 32]
    assert all(can_be_true(row) for row in measured)


def kept(processes: Processes, work: Path) -> int:
    """The keeper of a program whose child wants no end."""
    command = [sys.executable, "-m", "benchmarks.keeper", "0", sys.executable, family.__file__, str(work / "ready")]
    child = processes.start("kept", command, cwd=ROOT)
    processes.wait_ready(child, file_ready(work / "ready"))
    return child.pid


def gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_what_a_program_started_ends_with_it_even_when_paused(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        tree = Tree(kept(processes, tmp_path))
        assert len(tree.pids) == 2
        assert tree.cpu_s() > 0
        tree.pause()
        assert family.shared_by(tmp_path / "ready").exists()
    assert gone(tree.pids)
    assert not family.shared_by(tmp_path / "ready").exists()


def test_a_program_that_dies_takes_what_it_started_along(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        keeper = kept(processes, tmp_path)
        pids = descendants(keeper)
        os.kill(pids[0], signal.SIGKILL)
        os.waitid(os.P_PID, keeper, os.WEXITED | os.WNOWAIT)
        assert gone(pids)


KILLED = """
import os, pathlib, signal, sys
from benchmarks.tree import Tree
from foothill.processes import Processes
from tests.benchmarks.test_peers import kept
work = pathlib.Path(sys.argv[1])
with Processes(work) as processes:
    keeper = kept(processes, work)
    tree = Tree(keeper)
    tree.pause()
    print(keeper, *tree.pids, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_nothing_runs_on_when_the_benchmark_itself_is_killed(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, stdout=PIPE, check=False)
    assert killed.returncode == -signal.SIGKILL
    keeper, *pids = (int(pid) for pid in killed.stdout.split())
    wait_for_end(keeper)
    assert len(pids) == 2
    assert gone(pids)


def wait_for_end(pid: int) -> None:
    """Of a process that is no child of this one."""
    with suppress(ProcessLookupError):
        ended = os.pidfd_open(pid)
        select.select([ended], [], [])
        os.close(ended)
