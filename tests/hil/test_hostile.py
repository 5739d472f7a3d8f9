"""Servers of every bad kind in place of a node: each is a failure in words, and none ends the suite."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from typer.testing import CliRunner

from contracts.acceptance import Acceptance
from hil.boards import Board
from hil.cli import app as cli
from hil.opening import Opened, Options, examine, opened
from hil.plan import Plan
from runtime.links.bundles.acceptance_reports import seal
from runtime.links.http.https import HttpsConfig, listener_context
from runtime.links.http.serve import start_app
from runtime.links.trust.tls import TlsConfig
from tests.runtime.links.certificates import Authority

PLAN = Plan(requests=5, step_s=0.2, most_concurrency=2, soak_s=0.6)
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner, url = await start_app(app, "127.0.0.1", 0, name="other", drain_s=0.1)
    try:
        yield url
    finally:
        await runner.cleanup()


async def examined(url: str, plan: Plan = PLAN) -> Acceptance:
    report = await examine(Opened(Board(), "x", url, "token", "", "", "", plan), lambda line: None, lambda check: None)
    # Whatever was said, it can be written, read, and shown.
    seal(report, None)
    return report


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"no json", b'{"name":"\xff"}', b'{"name":"x","version":"1","extensions":[]}', b"\x00" * 100_000],
    ids=["empty", "list", "text", "bytes", "half", "zeros"],
)
async def test_a_server_of_another_kind_fails(body: bytes) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body)

    async with serving(answer) as url:
        report = await examined(url)
    assert report.verdict == "failed"
    assert report.checks[-1].name == "restored"


HUGE = [
    {"name": "x", "datatype": "FP32", "shape": [-1, 10**9, 10**9]},
    {"name": "x", "datatype": "FP99", "shape": [-1]},
    {"name": "x\x1b[31m", "datatype": "FP32", "shape": [-1, -5]},
    {"name": "x" * 100_000, "datatype": "BYTES", "shape": []},
]


@pytest.mark.parametrize("tensor", HUGE, ids=["huge", "type", "negative", "name"])
async def test_a_node_that_lies_about_its_models_fails(tensor: dict[str, object]) -> None:
    def told(path: str) -> object:
        if path.endswith("/index"):
            return [
                {"name": "liar", "version": "1", "state": "READY"},
                {"name": "../../x?y#z", "version": "", "state": ""},
            ]
        if path.endswith("/config"):
            text = {"string_value": "\x1b[2J" + "d" * 10_000}
            return {"max_batch_size": -3, "default_model_filename": "../x", "parameters": {"digest": text}}
        if path.endswith("/infer"):
            return {"model_name": "", "model_version": "", "outputs": [{**tensor, "data": [{}, None]}]}
        tensors = [tensor]
        return {
            "name": "liar", "version": "1", "extensions": [], "versions": ["1"], "platform": "", "inputs": tensors,
            "outputs": tensors, "node": "n" * 10_000, "ready": True,
        }  # fmt: skip

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=json.dumps(told(request.path)).encode(), content_type="application/json")

    async with serving(answer) as url:
        report = await examined(url)
    assert report.verdict == "failed"
    assert all(len(check.detail) < 1000 and check.detail.isprintable() for check in report.checks)


async def test_an_endless_body_is_cut_off() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse()
        await stream.prepare(request)
        try:
            for _ in range(200):
                await stream.write(b"[" * (1 << 20))
        except (ConnectionError, asyncio.CancelledError):
            pass
        return stream

    async with serving(answer) as url:
        report = await examined(url)
    assert "answered more than" in report.checks[0].detail


async def test_a_node_that_goes_away_in_the_middle_ends_nothing_but_its_checks() -> None:
    calls = [0]
    metadata = {
        "name": "m", "versions": ["1"], "platform": "", "version": "1", "extensions": [],
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    }  # fmt: skip
    config = {"max_batch_size": 4, "default_model_filename": "f", "parameters": {}}

    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("/infer"):
            calls[0] += 1
            if calls[0] > 30:
                assert request.transport is not None
                request.transport.close()
        if request.path.endswith("/index"):
            return web.json_response([{"name": "m", "version": "1", "state": "READY"}])
        return web.json_response(config if request.path.endswith("/config") else metadata)

    async with serving(answer) as url:
        what = Opened(Board(), "x", url, "", "", "", "", PLAN)
        report = await examine(what, lambda line: None, lambda check: None)
    outcomes = {check.name: check.outcome for check in report.checks}
    assert outcomes["latency"] == "passed"
    assert (outcomes["curve"], outcomes["soak"]) == ("failed", "failed")
    assert any("no answer" in check.detail for check in report.checks if check.name == "soak")


async def test_a_node_behind_tls_is_believed_by_the_authority_that_the_entry_names(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    cert_file, key_file = authority.issue("node")
    app = web.Application()
    tls = listener_context(HttpsConfig(str(cert_file), str(key_file)))
    runner, url = await start_app(app, "127.0.0.1", 0, name="node", drain_s=0.1, tls=tls)
    try:
        entry = Board(url=url.replace("http://", "https://"), tls=TlsConfig(ca_file=str(authority.file)))
        with_it = opened(Options(board="b", boards=_file(tmp_path, entry)))
        known = await examine(with_it, lambda line: None, lambda check: None)
        assert "answered 404" in known.checks[0].detail
        without = msgspec.structs.replace(with_it, tls=TlsConfig())
        unknown = await examine(without, lambda line: None, lambda check: None)
        assert "ertificate" in unknown.checks[0].detail
    finally:
        await runner.cleanup()


def _file(directory: Path, entry: Board) -> Path:
    path = directory / "boards.toml"
    path.write_text(f'[boards.b]\nurl = "{entry.url}"\ntls = {{ ca_file = "{entry.tls.ca_file}" }}\n')
    return path


def test_what_cannot_work_is_told_before_the_node_is_asked(tmp_path: Path) -> None:
    run = CliRunner().invoke
    base = ["run", "--node", "http://127.0.0.1:9"]
    (tmp_path / "short.key").write_text("abc")
    (tmp_path / "boards.toml").write_text("[boards.known]\n")
    for more, told in (
        (["--report", str(tmp_path / "none" / "r.json")], "cannot be written"),
        (["--report", str(tmp_path)], "cannot be written"),
        (["--report", str(tmp_path / "r.html")], "is the JSON file"),
        (["--key", str(tmp_path / "short.key")], "no private key"),
        (["--only", "golden,nothing"], "no check is called nothing"),
        (["--admin-token", str(tmp_path / "none")], "cannot be read"),
        (["--board", "x", "--boards", str(tmp_path / "boards.toml")], "it has known"),
        (["--fleet", "nonsense"], "is no URL"),
    ):
        done = run(cli, [*base, *more])
        assert done.exit_code == 2, done.output
        assert told in done.stderr.replace("\n", " "), done.stderr
    assert run(cli, ["run"]).exit_code == 2


def test_a_node_that_is_away_fails_with_its_url_and_the_report_says_so(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = CliRunner().invoke(cli, ["run", "--node", "http://127.0.0.1:9", "--report", str(report), "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout) == json.loads(report.read_bytes())
    assert "127.0.0.1:9" in json.loads(done.stdout)["report"]["checks"][0]["detail"]
    assert report.with_suffix(".html").exists()


def test_verify_says_what_is_wrong(tmp_path: Path) -> None:
    run = CliRunner().invoke
    report, key = tmp_path / "report.json", tmp_path / "hil.key"
    assert run(cli, ["key", str(key)]).exit_code == 0
    run(cli, ["run", "--node", "http://127.0.0.1:9", "--report", str(report), "--key", str(key)])
    good = run(cli, ["verify", str(report), "--key", f"{key}.pub"])
    assert good.exit_code == 0, good.output
    assert "Verdict: failed" in good.stdout
    assert json.loads(run(cli, ["verify", str(report), "--key", f"{key}.pub", "--json"]).stdout)["board"] == ""
    report.write_bytes(report.read_bytes().replace(b'"failed"', b'"passed"', 1))
    assert "altered" in run(cli, ["verify", str(report), "--key", f"{key}.pub"]).stderr
    assert run(cli, ["verify", str(report), "--key", "f" * 64]).exit_code == 1
    assert run(cli, ["verify", str(report.with_suffix(".html")), "--key", "f" * 64]).exit_code == 1
    assert run(cli, ["verify", str(tmp_path / "none"), "--key", "f" * 64]).exit_code == 2
    assert run(cli, ["verify", str(report), "--key", "nonsense"]).exit_code == 2
    assert run(cli, ["key", str(key)]).exit_code == 2
