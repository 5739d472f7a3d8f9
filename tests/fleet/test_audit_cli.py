"""`foothill fleet audit …`: what was done is shown, and a fleet whose records were altered does not pass."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from fleet.assembly import DATABASE
from tests.fleet.scripted import Fleet
from tests.fleet.test_cli import Shell

pytestmark = pytest.mark.integration


@pytest.fixture
def shell(fleet: Fleet) -> Shell:
    return Shell(fleet)


@pytest.fixture
async def story(fleet: Fleet, shell: Shell, bundles: dict[str, Path]) -> str:
    """A first version for one node, measured, and a second one that is aborted; the second one's id."""
    await shell.run("model", "publish", str(bundles["1"]), str(bundles["2"]))
    await shell.run("node", "enrol", "tokyo", "--region", "jp", "--lat", "35.7", "--lon", "139.7")
    node = await (await fleet.operator.enrol("tokyo")).start()
    await shell.run("rollout", "start", "digits-edge@1", "--watch")
    started = await shell.json("rollout", "start", "digits-edge@2", "--nodes", "tokyo", "--gate", "quality")
    await shell.run("rollout", "abort", started["id"], "--reason", "wrong day")
    await shell.run("rollout", "watch", started["id"], code=1)
    await shell.run("node", "withdraw", "tokyo", "digits")
    await node.stop()
    return str(started["id"])


def altered(fleet: Fleet, *statements: str) -> None:
    """By somebody who has the disk."""
    fleet.is_proven = False
    with sqlite3.connect(fleet.directory / DATABASE) as database:
        for statement in statements:
            database.execute(statement)
    database.close()


UNLOCKED = ("DROP TRIGGER audit_log_is_not_changed", "DROP TRIGGER audit_log_is_not_shortened")


async def test_all_that_was_done_is_in_the_log(shell: Shell, story: str) -> None:
    shown = (await shell.run("audit", "log")).stdout
    for told in (
        "the log begins",
        "serves digits, sha256:",
        "may join in jp",
        "joined in eu-central as http:",
        "digits-edge@1 to 1 nodes (1 on line)",
        "told: tokyo",
        "sent back: aborted: wrong day",
        "digits is taken off it",
    ):
        assert told in shown
    of_rollout = (await shell.run("audit", "log", "--rollout", story)).stdout.splitlines()
    assert all(story in line for line in of_rollout[1:])
    assert "taken over by a later rollout: tokyo" in (await shell.run("audit", "log", "--node", "tokyo")).stdout
    assert len((await shell.run("audit", "log", "--last", "2")).stdout.splitlines()) == 3


async def test_it_proves_what_the_fleet_holds(shell: Shell, story: str, tmp_path: Path) -> None:
    note = tmp_path / "note"
    proof = (await shell.run("audit", "verify", "--note", str(note))).stdout
    assert "in an unbroken chain" in proof
    assert "What the fleet holds is what they lead to" in proof
    assert "aborted: wrong day" in proof
    verdict = await shell.json("audit", "verify", "--note", str(note))
    assert verdict["faults"] == []
    assert json.loads(note.read_text()) == verdict["mark"]
    assert {"rollout": story, "phase": "rolled-back"}.items() <= verdict["steps"][-1].items()


async def test_an_export_is_proven_without_the_fleet(shell: Shell, story: str, tmp_path: Path) -> None:
    export = tmp_path / "log.jsonl"
    export.write_text((await shell.run("audit", "log", "--json")).stdout)
    assert "in an unbroken chain" in (await shell.run("audit", "verify", "--file", str(export))).stdout
    export.write_text(export.read_text().replace("wrong day", "right day"))
    told = (await shell.run("audit", "verify", "--file", str(export), code=1)).stdout
    assert "NOT PROVEN: entry" in told
    assert "was changed" in told


async def test_records_that_were_altered_do_not_pass(fleet: Fleet, shell: Shell, story: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="new entries only"):
        altered(fleet, "DELETE FROM audit_log WHERE seq = 3")
    altered(fleet, "UPDATE assignments SET digest = 'sha256:evil'", "INSERT INTO assignments VALUES ('a', 'b', 'c')")
    told = (await shell.run("audit", "verify", code=1)).stdout
    assert "what nodes are to serve is not what the entries lead to" in told
    altered(fleet, "DELETE FROM assignments")
    await shell.run("audit", "verify")
    altered(fleet, *UNLOCKED, "DELETE FROM audit_log WHERE seq = 3")
    assert "entry 3 is missing" in (await shell.run("audit", "verify", code=1)).stdout


async def test_a_log_that_was_cut_is_missed_by_what_was_noted(
    fleet: Fleet, shell: Shell, story: str, tmp_path: Path
) -> None:
    note = tmp_path / "note"
    await shell.run("audit", "verify", "--note", str(note))
    noted = note.read_text()
    altered(fleet, *UNLOCKED, "DELETE FROM audit_log WHERE seq = (SELECT max(seq) FROM audit_log)")
    told = (await shell.run("audit", "verify", "--note", str(note), code=1)).stdout
    assert "and went to" in told
    assert note.read_text() == noted, "what is not proven is not noted"


async def test_files_that_are_neither_are_refused(shell: Shell, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("hello\n")
    assert "is no export" in (await shell.run("audit", "verify", "--file", str(other), code=2)).output
    assert "holds no note" in (await shell.run("audit", "verify", "--note", str(other), code=2)).output
    assert "cannot be read" in (await shell.run("audit", "verify", "--file", str(tmp_path / "no"), code=2)).output


async def test_a_number_that_is_none_is_refused(fleet: Fleet) -> None:
    body = await fleet.operator.call("GET", "/v1/audit/log?after=-1", expect=400)
    assert "must be the number of an entry" in body["message"]
