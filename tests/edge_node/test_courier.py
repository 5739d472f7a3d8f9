"""The courier: the oldest first, what the cloud refuses is given up, what it cannot take now is tried again."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from contracts import headers
from contracts.errors import FoothillError
from contracts.headers import Terms
from edge_node.courier import MOST_ATTEMPTS, Courier
from edge_node.late_answers import MOST_BODY_BYTES, message
from edge_node.spool import Spool, SpoolAway
from edge_node.spool_file import LateAnswer, SpoolConfig, SpoolFile
from edge_node.spool_metrics import SpoolMetrics
from runtime.links.http.upstream import Answer, Request, UpstreamUnreachable, answer_headers
from tests.edge_node.test_spool_file import NOW_S, doubtful


class Cloud:
    """Answers as told; the answers are handed out one after another, the last one for ever."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.residency: list[tuple[str, ...]] = []
        self.says: Sequence[int | Exception] = [200]

    async def ask(self, request: Request, terms: Terms) -> Answer:
        self.asked.append(terms.request_id)
        self.residency.append(terms.residency)
        say, self.says = self.says[0], self.says[1:] or self.says
        if isinstance(say, Exception):
            raise say
        told = {"Content-Type": "application/json", headers.ANSWER: "7", headers.MODEL: "digits-cloud@1"}
        return Answer(say, answer_headers(told), b'{"label":"7","reason":"cloud"}')


class Stage:
    def __init__(self, directory: Path) -> None:
        self.registry = CollectorRegistry()
        self.spool = Spool(directory, SpoolConfig(), SpoolMetrics(self.registry), lambda: NOW_S)
        self.cloud = Cloud()
        self.told: list[LateAnswer] = []
        self.listening = True
        self.pauses: list[float] = []
        self.paused = asyncio.Event()
        self.courier = Courier(
            self.spool,
            self.cloud.ask,
            self._tell,
            per_s=4.0,
            wall=lambda: NOW_S + 60,
            rng=random.Random(1),
            sleep=self._sleep,
        )

    def _tell(self, answer: LateAnswer) -> bool:
        if self.listening:
            self.told.append(answer)
        return self.listening

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.paused.set()
        await asyncio.sleep(0)

    async def put(self, *names: str) -> None:
        for name in names:
            assert await self.spool.put(doubtful(name))

    async def steps(self) -> list[str | None]:
        """Until nothing waits, or nothing moves any more."""
        done: list[str | None] = []
        while done[-1:] != [None] and len(done) < 30:
            done.append(await self.courier.step())
        return done

    def dropped(self, reason: str) -> float:
        return self.registry.get_sample_value("foothill_spool_dropped_total", {"reason": reason}) or 0.0


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    made = Stage(tmp_path)
    yield made
    await made.courier.stop()
    await made.spool.close()


async def test_the_oldest_go_first_and_their_answers_are_told_under_the_same_ids(stage: Stage) -> None:
    await stage.put("a", "b")
    assert await stage.steps() == ["done", "done", None]
    assert stage.cloud.asked == ["a", "b"] == [each.request_id for each in stage.told]
    (first, _) = stage.told
    assert (first.edge_answer, first.cloud_answer, first.confidence, first.stratum) == ("", "7", 0.25, "s")
    assert (first.spooled_at_s, first.answered_at_s) == (NOW_S, NOW_S + 60)
    assert msgspec.json.decode(first.body)["reason"] == first.headers[headers.REASON] == "late"
    assert first.headers[headers.REQUEST_ID] == "a"
    assert not {name.lower() for name in first.headers} & headers.HOP_ONLY
    assert await stage.spool.find("", "a") == first


async def test_answers_that_nobody_could_be_told_of_are_told_later(stage: Stage) -> None:
    await stage.put("a")
    stage.listening = False
    assert await stage.steps() == ["done", None]
    stage.listening = True
    await stage.courier.step()
    await stage.courier.step()
    assert [each.request_id for each in stage.told] == ["a"]


@pytest.mark.parametrize("status", [400, 403, 404, 413, 415, 422])
async def test_a_refusal_is_the_last_word(stage: Stage, status: int) -> None:
    await stage.put("a", "b")
    stage.cloud.says = [status, 200]
    assert await stage.steps() == ["done", "done", None]
    assert [each.request_id for each in stage.told] == ["b"]
    assert stage.dropped("refused") == 1
    assert await stage.spool.find("", "a") is None


@pytest.mark.parametrize(
    "say", [503, 502, 504, 429, 401, FoothillError("unavailable", "x"), FoothillError("deadline_exceeded", "x")]
)
async def test_a_cloud_that_cannot_answer_now_is_asked_again(stage: Stage, say: int | Exception) -> None:
    await stage.put("a")
    stage.cloud.says = [say] * 8 + [200]
    assert await stage.steps() == ["away"] * 8 + ["done", None]
    assert [each.request_id for each in stage.told] == ["a"]


async def test_a_cloud_that_is_away_is_left_alone_for_longer_and_longer(stage: Stage) -> None:
    await stage.put("a")
    away = UpstreamUnreachable("http://cloud", sent=False, reason="refused")
    stage.cloud.says = [away] * 6 + [200]
    stage.courier.start()
    while len(stage.pauses) < 7:
        stage.paused.clear()
        await asyncio.wait_for(stage.paused.wait(), 10)
    bounds = [(0.5, 1), (1, 2), (2, 4), (4, 8), (7.5, 15), (7.5, 15), (0.25, 0.25)]
    assert all(low <= pause <= high for pause, (low, high) in zip(stage.pauses, bounds, strict=False)), stage.pauses


async def test_an_input_that_breaks_the_cloud_holds_up_nobody_and_is_given_up(stage: Stage) -> None:
    await stage.put("poison", "b", "c")
    stage.cloud.says = [500, 200, 200] + [500] * 10
    assert await stage.steps() == ["away", "done", "done", *["away"] * (MOST_ATTEMPTS - 2), "done", None]
    assert [each.request_id for each in stage.told] == ["b", "c"]
    assert stage.dropped("failed") == 1


async def test_a_claim_that_shuts_the_cloud_out_meanwhile_is_obeyed(stage: Stage) -> None:
    assert await stage.spool.put(doubtful("a", residency=("eu",)))
    stage.cloud.says = [FoothillError("residency_denied", "outside")]
    assert await stage.steps() == ["done", None]
    assert stage.cloud.residency == [("eu",)]
    assert stage.dropped("residency") == 1


async def test_on_a_disk_that_takes_nothing_the_cloud_is_asked_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's own words for a full disk, at the very write that keeps the answer."""
    await stage.put("a")
    full = True

    def answer(file: SpoolFile, *given: Any) -> None:
        if full:
            raise sqlite3.OperationalError("database or disk is full")
        kept(file, *given)

    kept = SpoolFile.answer
    monkeypatch.setattr(SpoolFile, "answer", answer)
    for _ in range(4):
        with pytest.raises(SpoolAway):
            await stage.courier.step()
    assert (stage.cloud.asked, stage.told) == (["a"], [])
    full = False
    assert await stage.steps() == [None]
    assert (stage.cloud.asked, [each.request_id for each in stage.told]) == (["a"], ["a"])


async def test_what_comes_while_nothing_waits_is_brought_at_once(stage: Stage) -> None:
    stage.courier.start()
    await asyncio.sleep(0.05)
    await stage.put("a")
    while not stage.told:
        stage.paused.clear()
        await asyncio.wait_for(stage.paused.wait(), 10)
    assert stage.pauses[0] == 0.25


async def test_a_message_holds_small_bodies_only(stage: Stage) -> None:
    await stage.put("a")
    await stage.steps()
    (told,) = stage.told
    assert message("fra", told).body == told.body
    large = msgspec.structs.replace(told, body=b"x" * (MOST_BODY_BYTES + 1))
    assert message("fra", large).body is None
    assert (message("fra", told).bundle, message("fra", told).content_type) == ("digits-cloud@1", "application/json")
