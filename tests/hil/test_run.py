from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest
from aiohttp import web
from typer.testing import CliRunner

from contracts.manifest import Golden
from hil.cli import app as cli
from hil.node import Array
from hil.report import Check, Report, verdict_of
from hil.run import accept, compare
from runtime.links.bundles import BundleStore
from runtime.links.serve import start_app
from runtime.links.telemetry import Telemetry
from runtime.serving.app import ServingSettings, create_app
from runtime.serving.hosting import ModelHost
from runtime.serving.repository import StoredBundles
from tests.edge_node.bundle_factory import MODEL_FILE, pack

TOKEN = "secret"
GOLDEN = Golden({}, {}, atol=0.01, rtol=0.0, min_agreement=0.9)


class Board:
    """A node that serves one small bundle over real HTTP."""

    def __init__(self, directory: Path) -> None:
        self.digest = pack(directory / "bundle")
        self.host = ModelHost(drain_s=1.0)
        self.store = BundleStore(directory / "store", reserve_bytes=0)
        self.bundles = StoredBundles(self.host, self.store, target="cpu-x86", threads=1)
        self.directory = directory
        self.url = ""

    async def start(self) -> None:
        self.store.add_directory(self.directory / "bundle")
        await self.bundles.serve("digits", self.digest)
        settings = ServingSettings(node="board", tier="edge", admin_token=TOKEN)
        app = create_app(self.host, settings, holder=None, telemetry=Telemetry(), repository=self.bundles)
        self.runner, self.url = await start_app(app, "127.0.0.1", 0, name="board", drain_s=0.1)

    async def stop(self) -> None:
        await self.runner.cleanup()
        await self.host.close()


@pytest.fixture
async def board(tmp_path: Path) -> AsyncIterator[Board]:
    board = Board(tmp_path)
    await board.start()
    yield board
    await board.stop()


def by_name(report: Report) -> dict[str, Check]:
    return {check.name: check for check in report.checks}


async def test_a_sound_node_passes_everything_there_is(board: Board) -> None:
    report = await accept(board.url, admin_token=TOKEN, requests=20, wall=lambda: 7.0)
    assert {check.name: check.outcome for check in report.checks} == {
        "ready": "passed",
        "metadata": "passed",
        "golden parity": "passed",
        "latency": "passed",
    }, report
    assert (report.verdict, report.at_s) == ("partial", 7.0)
    latency = by_name(report)["latency"].ms
    assert 0 < latency["infer_p50"] <= latency["p50"] <= latency["p95"]
    assert board.digest in by_name(report)["metadata"].detail


async def test_without_the_token_golden_parity_is_left_out(board: Board) -> None:
    report = await accept(board.url, requests=1)
    assert by_name(report)["golden parity"].outcome == "skipped"
    assert report.verdict == "partial"


async def test_a_wrong_token_is_a_failure_with_the_nodes_words(board: Board) -> None:
    check = by_name(await accept(board.url, admin_token="guess", requests=1))["golden parity"]
    assert check.outcome == "failed"
    assert "admin token" in check.detail.lower()


async def test_a_damaged_bundle_file_is_found(board: Board) -> None:
    path = board.store.path(board.digest) / "golden" / MODEL_FILE / "logits.npy"
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data[:-1] + b"!")
    report = await accept(board.url, admin_token=TOKEN, requests=1)
    assert "damaged" in by_name(report)["golden parity"].detail
    assert report.verdict == "failed"


async def test_a_node_that_computes_something_else_fails_parity(board: Board, tmp_path: Path) -> None:
    served = board.host.get("digits")
    run = served.loaded.engine.run

    class Crooked:
        provider = "CPUExecutionProvider"

        def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
            return {name: array + np.float32(1) for name, array in run(inputs).items()}

        def close(self) -> None:
            return

    served.loaded.engine = Crooked()
    check = by_name(await accept(board.url, admin_token=TOKEN, requests=1))["golden parity"]
    assert (check.outcome, check.detail) == ("failed", "output logits: off by up to 1")


async def test_a_node_that_serves_nothing_is_not_ready(board: Board) -> None:
    await board.host.retire("digits")
    report = await accept(board.url, requests=1)
    assert [check.name for check in report.checks] == ["ready"]
    assert report.verdict == "failed"


async def test_a_node_that_is_not_there_fails(board: Board) -> None:
    report = await accept("http://127.0.0.1:9", requests=1)
    assert report.verdict == "failed"
    assert "127.0.0.1:9" in report.checks[0].detail


@pytest.mark.parametrize("body", [b"[]", b"no json", b'{"name":"\xff"}', b'{"name":"x","version":"1","extensions":[]}'])
async def test_a_server_of_another_kind_fails_and_breaks_nothing(body: bytes) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner, url = await start_app(app, "127.0.0.1", 0, name="other", drain_s=0.1)
    try:
        assert (await accept(url, requests=1)).verdict == "failed"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda array: array, ""),
        (lambda array: array + 0.005, ""),
        (lambda array: array + 0.02, "off by up to 0.02"),
        (lambda array: array * np.nan, "off by up to nan"),
        (lambda array: array[:1], "shape (1, 3), expected (2, 3)"),
        (lambda array: None, "shape None, expected (2, 3)"),
    ],
)
def test_outputs_are_compared_by_the_bundles_own_tolerance(change: Callable[[Array], Array | None], fault: str) -> None:
    wanted = np.array([[0.0, 0.004, 0.0], [1.0, 2.0, 3.0]], np.float32)
    assert compare(change(wanted), wanted, GOLDEN, labels=False) == fault


def test_labels_must_agree_even_within_the_tolerance() -> None:
    wanted = np.array([[0.0, 0.004], [1.0, 2.0]], np.float32)
    got = np.array([[0.005, 0.0], [1.0, 2.0]], np.float32)
    assert compare(got, wanted, GOLDEN, labels=False) == ""
    assert "50.00%" in compare(got, wanted, GOLDEN, labels=True)


def test_one_failure_fails_the_board() -> None:
    passed, failed, skipped = (Check("x", outcome, "") for outcome in ("passed", "failed", "skipped"))
    assert verdict_of((passed, skipped)) == "partial"
    assert verdict_of((passed, failed, skipped)) == "failed"


async def test_the_command_prints_writes_and_exits_by_the_verdict(board: Board, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    arguments = ["run", "--node", board.url, "--admin-token", str(tmp_path / "token"), "--requests", "3"]
    done = await asyncio.to_thread(CliRunner().invoke, cli, [*arguments, "--report", str(tmp_path / "report.json")])
    assert done.exit_code == 0, done.output
    assert "partial" in done.output
    report = msgspec.json.decode((tmp_path / "report.json").read_bytes(), type=Report)
    assert len(report.checks) == 4
    gone = await asyncio.to_thread(CliRunner().invoke, cli, ["run", "--node", "http://127.0.0.1:9", "--json"])
    assert gone.exit_code == 1
    assert msgspec.json.decode(gone.stdout, type=Report).verdict == "failed"


def test_a_missing_token_file_is_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["run", "--node", "http://127.0.0.1:9", "--admin-token", str(tmp_path / "none")])
    assert done.exit_code == 2
