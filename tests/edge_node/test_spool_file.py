"""The spool's file: bounds that hold whatever comes, one row for one request, the oldest first."""

from __future__ import annotations

import sqlite3
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_node.spool_file import Doubtful, LateAnswer, SpoolConfig, SpoolFile
from runtime.links.http.upstream import Request

NOW_S = 1_800_000_000.0
IDS = st.sampled_from(["a", "b", "c", "d", "e", "f", "g"])
TENANTS = st.sampled_from(["", "kiosk"])
Key = tuple[str, str]


def doubtful(request_id: str, body: bytes = b"png", *, tenant: str = "", at_s: float = NOW_S, **more: Any) -> Doubtful:
    request = Request("POST", "/v1/predict/digits", {"Content-Type": "image/png"}, body)
    return Doubtful(tenant, request_id, "digits", request, at_s, stratum="s", confidence=0.25, **more)


def late(asked: Doubtful, body: bytes = b"seven", *, at_s: float = NOW_S) -> LateAnswer:
    return LateAnswer(
        tenant=asked.tenant,
        request_id=asked.request_id,
        model=asked.model,
        stratum=asked.stratum,
        confidence=asked.confidence,
        edge_answer="3",
        cloud_answer="7",
        spooled_at_s=asked.at_s,
        answered_at_s=at_s,
        headers={"Content-Type": "application/json"},
        body=body,
    )


class Opened:
    def __init__(self, directory: Path, **limits: Any) -> None:
        self.path = directory / "spool.db"
        self.config = SpoolConfig(**limits)
        self.now_s = NOW_S
        self.file = self.open()

    def open(self) -> SpoolFile:
        self.file = SpoolFile(self.path, self.config, lambda: self.now_s)
        return self.file

    def order(self) -> list[str]:
        """Whose turn would come, if each were brought."""
        found = []
        while (each := self.file.next()) is not None:
            found.append(each.request_id)
            self.file.drop(each, "refused")
        return found


def test_an_input_comes_back_whole_and_is_for_its_owner_alone_to_read(tmp_path: Path) -> None:
    opened = Opened(tmp_path)
    given = doubtful("r1", b"\x00\xff" * 5000, tenant="kiosk", residency=("eu",), answer="3")
    assert opened.file.put([given]) == ["kept"]
    assert opened.file.next() == given
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path
    opened.file.close()
    assert opened.open().next() == given


def test_one_request_is_kept_once_and_another_body_under_its_id_is_not_it(tmp_path: Path) -> None:
    opened = Opened(tmp_path)
    told = opened.file.put([doubtful("r1"), doubtful("r1"), doubtful("r1", b"other"), doubtful("r1", tenant="x")])
    assert told == ["kept", "known", "conflict", "kept"]
    first = opened.file.next()
    assert first is not None
    opened.file.answer(first, late(first))
    assert opened.file.put([doubtful("r1"), doubtful("r1", b"other")]) == ["known", "conflict"]
    assert opened.file.figures().inputs == 1


@pytest.mark.parametrize(
    ("full", "kept", "left", "dropped"), [("oldest", "kept", "bcd", 1), ("newest", "full", "abc", 0)]
)
def test_when_it_is_full_the_oldest_give_way_or_the_newest(
    tmp_path: Path, full: str, kept: str, left: str, dropped: int
) -> None:
    opened = Opened(tmp_path, max_inputs=3, full=full)
    opened.file.put([doubtful(name) for name in "abc"])
    assert opened.file.put([doubtful("d")]) == [kept]
    assert opened.file.dropped["full"] == dropped
    assert opened.order() == list(left)


def test_answers_that_were_told_give_way_before_inputs_do(tmp_path: Path) -> None:
    opened = Opened(tmp_path, max_bytes=8_000)
    asked = doubtful("a", b"x" * 2000)
    opened.file.put([asked])
    opened.file.answer(asked, late(asked, b"y" * 2000))
    opened.file.put([doubtful("b", b"x" * 2000)])
    assert isinstance(opened.file.find("", "a"), LateAnswer)
    opened.file.put([doubtful("c", b"x" * 3000)])
    assert opened.file.find("", "a") is None
    assert opened.order() == ["b", "c"]


def test_an_answer_that_does_not_fit_pushes_nothing_out(tmp_path: Path) -> None:
    opened = Opened(tmp_path, max_bytes=6_000)
    asked = doubtful("a")
    opened.file.put([asked, doubtful("b", b"x" * 3000)])
    opened.file.answer(asked, late(asked, b"y" * 4000))
    assert opened.file.find("", "a") is None
    assert opened.order() == ["b"]


def test_what_was_tried_in_vain_lets_others_go_first(tmp_path: Path) -> None:
    opened = Opened(tmp_path)
    opened.file.put([doubtful(name) for name in "abc"])
    first = opened.file.next()
    assert first is not None
    assert [opened.file.failed(first), opened.file.failed(first)] == [1, 2]
    assert opened.order() == ["b", "c", "a"]


def test_age_is_bounded_and_a_clock_that_was_never_set_makes_nothing_old(tmp_path: Path) -> None:
    opened = Opened(tmp_path, max_age_s=100.0)
    opened.now_s = 5.0
    opened.file.put([doubtful("first-boot", at_s=5.0)])
    opened.file.expire()
    opened.now_s = NOW_S
    opened.file.put([doubtful("old", at_s=NOW_S - 101), doubtful("young", at_s=NOW_S - 99)])
    opened.file.expire()
    assert opened.file.dropped == {"age": 1}
    assert opened.order() == ["first-boot", "young"]


@pytest.mark.parametrize(
    "data",
    [b"no database at all" * 100, b"SQLite format 3\x00" + b"\xff" * 5000, b"\x00" * 4096],
    ids=["text", "torn", "zeros"],
)
def test_a_file_that_is_no_spool_is_refused_and_left_alone(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "spool.db").write_bytes(data)
    with pytest.raises(sqlite3.DatabaseError):
        Opened(tmp_path)
    assert (tmp_path / "spool.db").read_bytes() == data


def test_somebody_elses_database_is_refused(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "spool.db")
    other.executescript("CREATE TABLE mine (x); PRAGMA user_version = 1;")
    other.close()
    with pytest.raises(sqlite3.DatabaseError, match="tables are missing"):
        Opened(tmp_path)


def test_a_row_of_another_program_is_refused(tmp_path: Path) -> None:
    opened = Opened(tmp_path)
    opened.file.put([doubtful("a")])
    opened.file.close()
    db = sqlite3.connect(opened.path)
    db.execute("UPDATE inputs SET head = x'c1'")
    db.commit()
    db.close()
    with pytest.raises(sqlite3.DatabaseError, match="cannot be read"):
        opened.open().next()


class SpoolMachine(RuleBasedStateMachine):
    """Against a model in memory: what is kept, in which order, and how many bytes that makes."""

    limits = SpoolConfig(max_bytes=6_000, max_inputs=4, max_age_s=50.0, keep_answers_s=30.0)

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()
        self.now_s = NOW_S
        self.file = self._open()
        self.inputs: OrderedDict[Key, Doubtful] = OrderedDict()
        self.attempts: dict[Key, int] = {}
        self.promised: set[Key] = set()

    def _open(self) -> SpoolFile:
        return SpoolFile(Path(self._directory.name) / "spool.db", self.limits, lambda: self.now_s)

    def teardown(self) -> None:
        self.file.close()
        self._directory.cleanup()

    @rule(request_id=IDS, tenant=TENANTS, size=st.integers(0, 7_000), fill=st.sampled_from([b"x", b"y"]))
    def put(self, request_id: str, tenant: str, size: int, fill: bytes) -> None:
        given = doubtful(request_id, fill * size, tenant=tenant, at_s=self.now_s)
        key = (tenant, request_id)
        (told,) = self.file.put([given])
        known = self.inputs.get(key)
        if known is not None:
            assert told == ("known" if known.request == given.request else "conflict")
        if told == "kept":
            self.inputs[key], self.attempts[key] = given, 0
            self.promised.add(key)
        self._follow_evictions(newest=key if told == "kept" else None)

    def _follow_evictions(self, newest: Key | None) -> None:
        """Whatever gave way was older than all that stayed."""
        gone = [key for key in self.inputs if self.file.find(*key) is None]
        assert newest not in gone
        assert gone == list(self.inputs)[: len(gone)]
        for key in gone:
            del self.inputs[key], self.attempts[key]

    @precondition(lambda self: self.inputs)
    @rule(size=st.integers(0, 5_000))
    def answer(self, size: int) -> None:
        asked = self.file.next()
        assert asked is not None
        self.file.answer(asked, late(asked, b"z" * size, at_s=self.now_s))
        del self.inputs[asked.tenant, asked.request_id]
        found = self.file.find(asked.tenant, asked.request_id)
        assert found is None or isinstance(found, LateAnswer)

    @precondition(lambda self: self.inputs)
    @rule()
    def fail(self) -> None:
        asked = self.file.next()
        assert asked is not None
        self.attempts[asked.tenant, asked.request_id] += 1
        assert self.file.failed(asked) == self.attempts[asked.tenant, asked.request_id]

    @rule()
    def publish(self) -> None:
        told = self.file.unpublished()
        if told is not None:
            self.file.published(told)
            again = self.file.unpublished()
            assert again is None or (again.tenant, again.request_id) != (told.tenant, told.request_id)

    @rule(seconds=st.floats(-20.0, 60.0))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.file.expire()
        self.inputs = OrderedDict(
            (key, each) for key, each in self.inputs.items() if each.at_s >= self.now_s - self.limits.max_age_s
        )

    @rule()
    def restart(self) -> None:
        before = self.file.figures()
        self.file.close()
        self.file = self._open()
        assert self.file.figures() == before

    @invariant()
    def the_bounds_hold(self) -> None:
        figures = self.file.figures()
        assert figures.bytes <= self.limits.max_bytes
        assert figures.inputs == len(self.inputs) <= self.limits.max_inputs
        assert figures.oldest_at_s == min((each.at_s for each in self.inputs.values()), default=None)

    @invariant()
    def what_waits_is_there_and_the_oldest_has_its_turn(self) -> None:
        for key, given in self.inputs.items():
            assert self.file.find(*key) == given
        turn = self.file.next()
        expected = min(self.inputs, key=lambda key: self.attempts[key], default=None)
        assert (turn is None) == (expected is None)
        assert turn is None or turn == self.inputs[expected or ("", "")]


class KeepingMachine(SpoolMachine):
    """With `full = "newest"` nothing that was promised gives way, but to age."""

    limits = msgspec.structs.replace(SpoolMachine.limits, full="newest")

    def _follow_evictions(self, newest: Key | None) -> None:
        assert all(self.file.find(*key) is not None for key in self.inputs)


for machine in (SpoolMachine, KeepingMachine):
    machine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestOldestGiveWay = SpoolMachine.TestCase
TestNewestGiveWay = KeepingMachine.TestCase


def test_room_is_given_back_as_time_goes_by(tmp_path: Path) -> None:
    opened = Opened(tmp_path, max_age_s=10.0)
    opened.file.put([doubtful(f"r{number}", bytes(100_000)) for number in range(30)])
    opened.now_s += 60.0
    for _ in range(5):
        opened.file.expire()
    opened.file.close()
    assert opened.path.stat().st_size < 1 << 20
