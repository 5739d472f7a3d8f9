"""`foothill fleet …` against a real fleet manager."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from contracts.quality import Counts
from fleet.cli import app
from fleet.client import FleetClient
from tests.fleet.scripted import Fleet, ScriptedNode, until

pytestmark = pytest.mark.integration


class Shell:
    """Runs commands in threads, since the fleet manager lives in this process's event loop."""

    def __init__(self, fleet: Fleet) -> None:
        self._environment = {
            "FOOTHILL_FLEET_URL": fleet.url,
            "FOOTHILL_ADMIN_TOKEN": fleet.parts.admin_token,
            "COLUMNS": "200",
        }

    async def run(self, *words: str, code: int = 0, environment: dict[str, str] | None = None) -> Result:
        result = await asyncio.to_thread(CliRunner().invoke, app, words, env=environment or self._environment)
        assert result.exit_code == code, result.output
        return result

    async def json(self, *words: str, code: int = 0) -> Any:
        return json.loads((await self.run(*words, "--json", code=code)).stdout)


@pytest.fixture
def shell(fleet: Fleet) -> Shell:
    return Shell(fleet)


async def test_an_operators_day(fleet: Fleet, shell: Shell, bundles: dict[str, Path]) -> None:
    assert "Nothing is published" in (await shell.run("model", "list")).stdout
    assert "No node has joined" in (await shell.run("node", "ls")).stdout
    shown = await shell.run("model", "publish", str(bundles["1"]), str(bundles["2"]))
    assert "digits-edge@1 is published as sha256:" in shown.stdout
    assert "98.0% of 1000" in (await shell.run("model", "list")).stdout
    assert [model["version"] for model in await shell.json("model", "list")] == ["1", "2"]

    joined = await shell.run("node", "enrol", "tokyo", "--region", "jp", "--lat", "35.7", "--lon", "139.7")
    assert joined.stdout.startswith(f"foothill edge enrol --fleet {fleet.url} --token ")
    node = await (await fleet.operator.enrol("tokyo")).start()

    done = await shell.run("rollout", "start", "digits-edge@1", "--watch")
    assert "digits-edge@1 completed, stage 1 of 1, 1 active" in done.stdout
    assert "tokyo" in (await shell.run("node", "ls")).stdout
    assert (await shell.json("node", "ls"))[0]["reported"]["digits"]["phase"] == "active"

    started = await shell.json("rollout", "start", "digits-edge@2", "--nodes", "tokyo", "--stages", "50%,1")
    aborted = await shell.run("rollout", "abort", started["id"], "--reason", "wrong day")
    assert "wrong day" in aborted.stdout
    watched = await shell.run("rollout", "watch", started["id"], code=1)
    assert "aborted: wrong day" in watched.stdout
    views = [
        json.loads(line)
        for line in (await shell.run("rollout", "watch", started["id"], "--json", code=1)).stdout.splitlines()
    ]
    assert views[-1]["state"] == "rolled-back"
    one = (await shell.run("rollout", "status", started["id"])).stdout
    assert "reverted" in one
    assert started["id"] in (await shell.run("rollout", "status")).stdout
    assert [view["state"] for view in await shell.json("rollout", "status")] == ["completed", "rolled-back"]
    await node.stop()


async def test_what_the_gate_has_seen_is_shown_stream_by_stream(
    shell: Shell, fleet: Fleet, bundles: dict[str, Path]
) -> None:
    node = await (await fleet.operator.enrol("tokyo")).start()
    await shell.run("model", "publish", str(bundles["1"]), str(bundles["2"]))
    watched = await shell.run("rollout", "start", "digits-edge@1", "--watch", "--json")
    first = json.loads(watched.stdout.splitlines()[-1])
    node.tell_counts(first["digest"], Counts(runs=5000, failed=50, latency=(0, 4950)))
    await fleet.booked(first["digest"], 5000)
    started = await shell.json("rollout", "start", "digits-edge@2", "--nodes", "tokyo")
    await fleet.operator.wait(started["id"], "judging")
    node.tell_counts(started["digest"], Counts(runs=500, failed=100, latency=(0, 400)))
    await fleet.operator.wait(started["id"], "rolled-back")
    shown = (await shell.run("rollout", "status", started["id"])).stdout
    assert re.search(r"failed +100 of 500 +at most 1\.\d\d% +\d\.\d\d% +\d+\.\d\d +reject", shown), shown
    assert "gate: reject" in shown
    assert "gate: failed 100 of 500" in shown
    watched = await shell.run("rollout", "watch", started["id"], code=1)
    assert "gate: reject (failed 100 of 500" in watched.stdout
    await node.stop()


async def test_an_operator_steers_by_commands(shell: Shell, fleet: Fleet, bundles: dict[str, Path]) -> None:
    nodes = [await (await fleet.operator.enrol(name)).start() for name in ("osaka", "tokyo")]
    await shell.run("model", "publish", str(bundles["1"]))
    careful = ("--max-parallel", "1", "--approve-after", "1", "--min-healthy-s", "0.2", "--no-auto-revert")
    started = await shell.json("rollout", "start", "digits-edge@1", "--nodes", "tokyo,osaka", *careful)
    assert started["policy"]["auto_revert"] is False
    await fleet.operator.wait(started["id"], "judging")
    assert "waits for approval" in (await shell.run("rollout", "pause", started["id"])).stdout
    assert "paused" in (await shell.run("rollout", "promote", started["id"])).stdout
    await shell.run("rollout", "resume", started["id"])
    await shell.run("rollout", "watch", started["id"], code=0)
    assert "nothing to retry" in (await shell.run("rollout", "retry", started["id"], code=1)).stderr
    await shell.run("rollout", "rollback", started["id"], "--reason", "customers complain")
    assert "customers complain" in (await shell.run("rollout", "watch", started["id"], code=1)).stdout
    for node in nodes:
        await node.stop()


async def test_a_rollout_that_halts_ends_its_watch(shell: Shell, fleet: Fleet, bundles: dict[str, Path]) -> None:
    node = await (await fleet.operator.enrol("tokyo")).start()
    await shell.run("model", "publish", str(bundles["1"]))
    node.fails.add((await shell.json("model", "list"))[0]["digest"])
    watched = await shell.run("rollout", "start", "digits-edge@1", "--no-auto-revert", "--watch", code=1)
    assert "halted" in watched.stdout
    await node.stop()


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--window", "22:00", "Write it as 22:00-04:00"),
        ("--window", "nights", "Write it as 22:00-04:00"),
        ("--approve-after", "first", "name stages by their numbers"),
    ],
)
async def test_options_that_mean_nothing_end_with_2(shell: Shell, option: str, value: str, told: str) -> None:
    assert told in (await shell.run("rollout", "start", "x@1", option, value, code=2)).stderr


async def test_refusals_end_with_1_and_unreachable_fleets_with_2(
    shell: Shell, fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = await shell.run("rollout", "start", "digits-edge@9", code=1)
    assert "No bundle digits-edge@9" in refused.stderr
    await shell.run("rollout", "start", "nonsense", code=1)
    await shell.run("rollout", "status", "nonsense", code=1)
    await shell.run("rollout", "start", "x@1", "--group", "eu", code=2)
    await shell.run("rollout", "start", code=2)
    missing = await shell.run("model", "publish", str(tmp_path / "nothing"), code=1)
    assert "packed bundle" in missing.stderr

    away = {"FOOTHILL_ADMIN_TOKEN": "x", "FOOTHILL_FLEET_URL": "http://127.0.0.1:9"}
    told = await shell.run("node", "ls", code=2, environment=away)
    assert "foothill fleet serve" in told.stderr
    wrong = {"FOOTHILL_ADMIN_TOKEN": "x", "FOOTHILL_FLEET_URL": fleet.url}
    assert "admin token is wrong" in (await shell.run("node", "ls", code=1, environment=wrong)).stderr

    monkeypatch.delenv("FOOTHILL_ADMIN_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    told = await shell.run("node", "ls", code=2, environment={"FOOTHILL_FLEET_URL": fleet.url})
    assert "--token-file" in told.stderr
    token_file = fleet.directory / "admin.token"
    await shell.run("node", "ls", "--token-file", str(token_file), environment={"FOOTHILL_FLEET_URL": fleet.url})
    await shell.run("serve", str(tmp_path / "missing.toml"), code=2)


async def test_a_file_that_changed_after_packing_is_not_uploaded(shell: Shell, bundles: dict[str, Path]) -> None:
    (bundles["1"] / "cpu.onnx").write_bytes(b"other")
    told = await shell.run("model", "publish", str(bundles["1"]), code=1)
    assert "cpu.onnx is not the file" in told.stderr


async def test_publishing_again_sends_no_blob_twice(fleet: Fleet, bundles: dict[str, Path]) -> None:
    client = FleetClient(fleet.url, fleet.parts.admin_token)
    first = await asyncio.to_thread(client.publish, bundles["1"])
    (bundles["1"] / "cpu.onnx").unlink()
    assert (await asyncio.to_thread(client.publish, bundles["1"])).digest == first.digest
    assert (await asyncio.to_thread(client.model, "digits-edge@1")).manifest.name == "digits-edge"


async def test_watching_goes_on_over_a_restart_of_the_fleet_manager(fleet: Fleet, bundles: dict[str, Path]) -> None:
    await fleet.operator.publish(bundles["1"])
    node: ScriptedNode = await (await fleet.operator.enrol("tokyo")).start()
    node.silent = True
    started = await fleet.operator.start("digits-edge@1")
    client = FleetClient(fleet.url, fleet.parts.admin_token)
    states: list[str] = []

    def watch() -> None:
        states.extend(view.state for view in client.watch(started["id"], sleep=lambda _: time.sleep(0.05)))

    watching = asyncio.create_task(asyncio.to_thread(watch))
    await until(lambda: states)
    await fleet.stop()
    await fleet.start()
    node.silent = False
    node.report()
    await asyncio.wait_for(watching, 20)
    assert states[-1] == "completed"
    await node.stop()
