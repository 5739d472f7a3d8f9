"""SIGKILL at random moments of real writes: what was promised is there, whole and once, and nothing is half."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from edge_node.spool import FILE, Spool
from edge_node.spool_file import Doubtful, LateAnswer, SpoolConfig, SpoolFile
from edge_node.spool_metrics import SpoolMetrics
from runtime.links.http.upstream import Request

pytestmark = pytest.mark.integration

TABLES = ("inputs", "answers")
ROOT = Path(__file__).parents[2]
KILLS = 5
CHILD = "import sys; from tests.edge_node.test_spool_killed import live; live(sys.argv[1], sys.argv[2])"


def given(name: str) -> Doubtful:
    body = name.encode() * random.Random(name).randint(1, 20_000)
    return Doubtful("", name, "digits", Request("POST", "/v1/predict/digits", {}, body), time.time())


def answer_to(asked: Doubtful) -> LateAnswer:
    now_s, body = time.time(), b"answer of " + asked.request_id.encode()
    return LateAnswer("", asked.request_id, asked.model, "", None, "", "", asked.at_s, now_s, {}, body)


def live(directory: str, prefix: str) -> None:
    """Keeps inputs, eight at a time, and answers every third; says what is safe, until it is killed."""
    asyncio.run(_live(Path(directory), prefix))


async def _live(directory: Path, prefix: str) -> None:
    spool = Spool(directory, SpoolConfig(), SpoolMetrics(CollectorRegistry()), time.time)
    for round_ in range(1_000_000):
        names = [f"{prefix}-{round_}-{at}" for at in range(8)]
        kept = await asyncio.gather(*(spool.put(given(name)) for name in names))
        os.write(1, "".join(f"kept {name}\n" for name, told in zip(names, kept, strict=True) if told).encode())
        for _ in range(3):
            asked = await spool.next()
            assert asked is not None
            await spool.answer(asked, answer_to(asked))
            os.write(1, f"answered {asked.request_id}\n".encode())


def lived(directory: Path, prefix: str, seconds: float) -> list[list[str]]:
    """What a child said before it was killed."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(directory), prefix], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    said = [child.stdout.readline()]
    time.sleep(seconds)
    child.send_signal(signal.SIGKILL)
    said += child.stdout.read().splitlines(keepends=True)
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    return [line.split() for line in said if line.endswith("\n")]


def test_what_was_promised_survives_every_kill(tmp_path: Path) -> None:
    kept: set[str] = set()
    answered: set[str] = set()
    for life in range(KILLS):
        for word, name in lived(tmp_path, f"life{life}", random.Random(life).uniform(0.0, 0.3)):
            (kept if word == "kept" else answered).add(name)
        file = SpoolFile(tmp_path / FILE, SpoolConfig(), time.time)
        for name in kept:
            found = file.find("", name)
            assert found is not None, name
            if isinstance(found, Doubtful):
                assert found.request.body == given(name).request.body
                assert name not in answered
            else:
                assert found.body == b"answer of " + name.encode()
        figures = file.figures()
        file.close()
        assert (figures.inputs, figures.bytes) == counted(tmp_path / FILE)
    assert len(kept) > 8 * KILLS
    assert answered


def counted(path: Path) -> tuple[int, int]:
    """How many inputs there are, and the bytes of all rows, by what the file itself says."""
    db = sqlite3.connect(path)
    inputs, answers = (db.execute(f"SELECT COUNT(*), TOTAL(bytes) FROM {table}").fetchone() for table in TABLES)
    db.close()
    return int(inputs[0]), int(inputs[1] + answers[1])
