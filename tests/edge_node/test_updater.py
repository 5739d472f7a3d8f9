from __future__ import annotations

import asyncio
import errno
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest

from contracts.errors import FoothillError
from contracts.manifest import FILE
from edge_node.latency import LatencyRule
from edge_node.probation import Rule
from edge_node.room import Room
from edge_node.slots import Slot, Trial
from runtime.links.bundles.store import BundleStore, NoSpace
from runtime.links.process.disk import RealDisk, Writing
from runtime.serving.engines.engine import Engine
from runtime.serving.engines.tensors import Array
from runtime.serving.models.golden import open_tested
from runtime.serving.models.loaded import LoadedModel
from tests.edge_node.bundle_factory import MODEL_FILE, describe
from tests.edge_node.workbench import LONG, OPEN_TESTED, QUICK, Bench, Warehouse, desired, until

Live = Callable[..., Bench]


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path / "warehouse")


@pytest.fixture
async def live(tmp_path: Path, warehouse: Warehouse) -> AsyncIterator[Live]:
    """Starts one life of the node after another, all on one directory."""
    lives: list[Bench] = []

    def begin(rule: Rule = QUICK) -> Bench:
        lives.append(Bench(tmp_path / "node", warehouse, rule=rule))
        return lives[-1]

    yield begin
    for bench in lives:
        await bench.updater.end_probations()
        await bench.host.close()


async def test_a_first_bundle_goes_through_every_phase(live: Live, warehouse: Warehouse) -> None:
    one = warehouse.pack("1")
    bench = live()
    assert await bench.updater.apply(desired(1, {"digits": one}), {})
    assert [phase for _, phase in bench.phases] == ["fetching", "verifying", "testing", "probation", "active"]
    report = bench.report()
    assert (report.digest, report.serving, report.bundle, report.error) == (one, one, "digits-edge@1", "")
    assert report.stratum
    assert [loaded.digest for loaded in bench.announced] == [one]
    assert bench.slots.get("digits") == Slot(current=one)
    assert bench.updater.sequence == bench.slots.sequence == 1
    await bench.ask()


async def test_current_and_previous_are_kept_and_older_ones_dropped(live: Live, warehouse: Warehouse) -> None:
    one, two, three = (warehouse.pack(version) for version in "123")
    bench = live()
    for sequence, digest in enumerate((one, two, three), start=1):
        assert await bench.updater.apply(desired(sequence, {"digits": digest}), {})
    assert bench.serving() == three
    assert bench.report().previous == two
    assert bench.store.digests() == sorted((two, three))


async def test_the_same_document_again_does_nothing(live: Live, warehouse: Warehouse) -> None:
    one = warehouse.pack("1")
    bench = live()
    document = desired(1, {"digits": one})
    await bench.updater.apply(document, {})
    before = list(bench.phases)
    assert await bench.updater.apply(document, {})
    assert bench.phases == before
    assert warehouse.fetched == [one]


@pytest.mark.parametrize(
    ("golden_error", "model_bytes"),
    [(1.0, None), (0.0, b"this is no model")],
    ids=["fails its golden test", "does not load"],
)
async def test_a_bad_bundle_is_refused_and_the_old_one_goes_on(
    live: Live, warehouse: Warehouse, golden_error: float, model_bytes: bytes | None
) -> None:
    one, bad = warehouse.pack("1"), warehouse.pack("2", golden_error=golden_error, model_bytes=model_bytes)
    bench = live()
    await bench.updater.apply(desired(1, {"digits": one}), {})
    document = desired(2, {"digits": bad})
    assert await bench.updater.apply(document, {})
    report = bench.report()
    assert (report.digest, report.phase, report.serving) == (bad, "failed", one)
    assert report.error
    assert bench.store.digests() == [one]
    await bench.ask()
    assert await bench.updater.apply(document, {})
    assert warehouse.fetched == [one, bad], "the same document tries it only once"
    assert await bench.updater.apply(desired(3, {"digits": bad}), {})
    assert warehouse.fetched == [one, bad, bad], "a new document tries it again"


async def test_after_a_failure_the_old_bundle_may_be_wanted_again(live: Live, warehouse: Warehouse) -> None:
    one, bad = warehouse.pack("1"), warehouse.pack("2", golden_error=1.0)
    bench = live()
    for sequence, digest in enumerate((one, bad, one), start=1):
        await bench.updater.apply(desired(sequence, {"digits": digest}), {})
    assert (bench.report().phase, bench.report().digest, bench.report().error) == ("active", one, "")
    next_life = live()
    await next_life.updater.restore()
    assert (next_life.report().phase, next_life.report().digest) == ("active", one)


async def test_a_failure_is_still_told_after_a_restart(live: Live, warehouse: Warehouse) -> None:
    one, bad = warehouse.pack("1"), warehouse.pack("2", golden_error=1.0)
    bench = live()
    await bench.updater.apply(desired(1, {"digits": one}), {})
    await bench.updater.apply(desired(2, {"digits": bad}), {})
    next_life = live()
    await next_life.updater.restore()
    report = next_life.report()
    assert (report.digest, report.phase, report.serving) == (bad, "failed", one)
    assert next_life.updater.sequence == 2


async def test_an_engine_error_on_probation_reverts_without_the_network(live: Live, warehouse: Warehouse) -> None:
    one, two = warehouse.pack("1"), warehouse.pack("2")
    await live().updater.apply(desired(1, {"digits": one}), {})
    bench = live(LONG)
    await bench.updater.restore()
    update = asyncio.create_task(bench.updater.apply(desired(2, {"digits": two}), {}))
    await until(lambda: bench.updater.reports["digits"].phase == "probation" and bench.serving() == two)
    warehouse.error = FoothillError("unavailable", "The fleet is away.")
    bench.break_engine()
    assert await update
    report = bench.report()
    assert (report.digest, report.phase, report.serving) == (two, "reverted", one)
    assert "probation" in report.error
    assert bench.serving() == one
    assert bench.slots.get("digits").current == one
    assert bench.store.digests() == [one]
    await bench.ask()


async def test_a_first_bundle_that_fails_on_probation_is_taken_off(live: Live, warehouse: Warehouse) -> None:
    one = warehouse.pack("1")
    bench = live(LONG)
    update = asyncio.create_task(bench.updater.apply(desired(1, {"digits": one}), {}))
    await until(lambda: bench.serving() == one)
    bench.break_engine()
    assert await update
    assert (bench.report().phase, bench.report().serving, bench.serving()) == ("reverted", "", "")


async def test_enough_good_requests_end_probation_early_and_bad_ones_change_nothing(
    live: Live, warehouse: Warehouse
) -> None:
    one = warehouse.pack("1")
    bench = live(Rule(seconds=60.0, requests=20))
    update = asyncio.create_task(bench.updater.apply(desired(1, {"digits": one}), {}))
    await until(lambda: bench.serving() == one)
    for _ in range(20):
        bench.ask_nonsense()
    assert bench.report().phase == "probation"
    for _ in range(20):
        await bench.ask()
    assert await update
    assert bench.report().phase == "active"


async def test_what_cannot_be_fetched_now_is_tried_again_later(live: Live, warehouse: Warehouse) -> None:
    one, two = warehouse.pack("1"), warehouse.pack("2")
    bench = live()
    await bench.updater.apply(desired(1, {"digits": one}), {})
    warehouse.error = FoothillError("unavailable", "The fleet is away.")
    assert not await bench.updater.apply(desired(2, {"digits": two}), {})
    assert (bench.report().phase, bench.report().serving) == ("fetching", one)
    assert "away" in bench.report().error
    assert bench.slots.sequence == 1
    warehouse.error = None
    assert await bench.updater.apply(desired(2, {"digits": two}), {})
    assert (bench.report().phase, bench.report().serving, bench.report().error) == ("active", two, "")


async def test_a_copy_that_went_bad_on_disk_is_fetched_anew(live: Live, warehouse: Warehouse) -> None:
    one = warehouse.pack("1")
    bench = live()
    bench.store.add_directory(warehouse.packed[one])
    _damage(bench, one)
    assert await bench.updater.apply(desired(1, {"digits": one}), {})
    assert bench.report().phase == "active"
    assert warehouse.fetched == [one, one]


async def test_models_come_and_go_with_the_document(live: Live, warehouse: Warehouse) -> None:
    digits, faces = warehouse.pack("1"), warehouse.pack("2", model="faces")
    bench = live()
    await bench.updater.apply(desired(1, {"digits": digits, "faces": faces}), {})
    await asyncio.gather(bench.ask("digits"), bench.ask("faces"))
    await bench.updater.apply(desired(2, {"faces": faces}), {})
    assert set(bench.updater.reports) == set(bench.host.models) == {"faces"}
    assert bench.store.digests() == [faces]
    await bench.updater.apply(desired(3, {}), {})
    assert not bench.updater.reports
    assert not bench.host.models
    assert bench.slots.sequence == 3


async def test_one_bad_model_does_not_hold_up_another(live: Live, warehouse: Warehouse) -> None:
    bad, faces = warehouse.pack("1", golden_error=1.0), warehouse.pack("2", model="faces")
    bench = live()
    assert await bench.updater.apply(desired(1, {"digits": bad, "faces": faces}), {})
    assert bench.report("digits").phase == "failed"
    assert bench.report("faces").phase == "active"


async def test_a_bundle_of_another_model_is_never_served_under_this_one(live: Live, warehouse: Warehouse) -> None:
    digits, faces = warehouse.pack("1"), warehouse.pack("2", model="faces")
    bench = live()
    await bench.updater.apply(desired(1, {"digits": digits}), {})
    await bench.updater.apply(desired(2, {"digits": faces}), {})
    assert (bench.report().phase, bench.report().serving) == ("failed", digits)
    assert bench.serving() == digits
    assert bench.slots.get("digits").current == digits


async def test_a_refused_document_changes_nothing_and_says_why(
    live: Live, warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    one = warehouse.pack("1")
    bench = live()
    await bench.updater.apply(desired(5, {"digits": one}), {})
    assert await bench.updater.apply(desired(4, {}), {})
    assert bench.serving() == one
    assert "below 5" in caplog.text


async def test_another_document_under_the_same_sequence_is_refused_over_restarts(
    live: Live, warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = warehouse.pack("1"), warehouse.pack("2")
    bench = live()
    await bench.updater.apply(desired(5, {"digits": one}), {})
    for _ in range(2):
        other = desired(5, {"digits": two})
        assert await bench.updater.apply(other, {})
        assert await bench.updater.apply(other, {})
        assert bench.serving() == one
        assert await bench.updater.apply(desired(5, {"digits": one}), {}), "the first one may come again"
        bench = live()
        await bench.updater.restore()
    assert caplog.text.count("asks for something else") == 2, "told once for each"
    assert await bench.updater.apply(desired(6, {"digits": two}), {})
    assert bench.serving() == two


async def test_a_document_that_expired_by_a_wrong_clock_is_tried_again(
    live: Live, warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = warehouse.pack("1"), warehouse.pack("2")
    bench = live()
    await bench.updater.apply(desired(1, {"digits": one}), {})
    document = desired(2, {"digits": two}, expires_in_s=3600.0)
    bench.wall_s = lambda: time.time() + 86_400.0
    for _ in range(3):
        assert not await bench.updater.apply(document, {}), "later"
    assert bench.serving() == one
    assert caplog.text.count("expired") == 1
    bench.wall_s = lambda: time.time() - 1e9
    assert await bench.updater.apply(document, {})
    assert bench.serving() == two


async def test_a_restarted_node_serves_at_once_and_alone(live: Live, warehouse: Warehouse) -> None:
    one = warehouse.pack("1")
    await live().updater.apply(desired(1, {"digits": one}), {})
    warehouse.error = FoothillError("unavailable", "The fleet is away.")
    bench = live()
    await bench.updater.restore()
    await bench.ask()
    assert (bench.report().phase, bench.report().serving) == ("active", one)
    assert [loaded.digest for loaded in bench.announced] == [one]


async def test_after_a_restart_a_damaged_bundle_gives_way_to_the_previous_and_is_healed(
    live: Live, warehouse: Warehouse
) -> None:
    one, two = warehouse.pack("1"), warehouse.pack("2")
    bench = live()
    await bench.updater.apply(desired(1, {"digits": one}), {})
    await bench.updater.apply(desired(2, {"digits": two}), {})
    _damage(bench, two)
    bench = live()
    await bench.updater.restore()
    report = bench.report()
    assert (report.digest, report.phase, report.serving) == (two, "failed", one)
    assert "changed on disk" in report.error
    await bench.ask()
    assert await bench.updater.apply(desired(2, {"digits": two}), {})
    assert (bench.report().phase, bench.serving()) == ("active", two)
    assert bench.slots.get("digits").previous == one


async def test_with_every_copy_damaged_nothing_is_served_and_it_says_so(live: Live, warehouse: Warehouse) -> None:
    one = warehouse.pack("1")
    bench = live()
    await bench.updater.apply(desired(1, {"digits": one}), {})
    _damage(bench, one)
    bench = live()
    await bench.updater.restore()
    assert (bench.report().phase, bench.report().serving, bench.serving()) == ("failed", "", "")
    assert await bench.updater.apply(desired(1, {"digits": one}), {})
    assert bench.report().phase == "active"


async def test_a_node_that_died_twice_on_probation_goes_back_at_its_next_start(
    live: Live, warehouse: Warehouse
) -> None:
    one, two = warehouse.pack("1"), warehouse.pack("2")
    await live().updater.apply(desired(1, {"digits": one}), {})
    bench = live(LONG)
    await bench.updater.restore()
    await _die_on_probation(bench, two, 2)
    bench = live(LONG)
    await bench.updater.restore()
    assert (bench.report().phase, bench.serving()) == ("probation", two), "one death may be chance"
    await bench.updater.end_probations()
    bench = live()
    await bench.updater.restore()
    report = bench.report()
    assert (report.digest, report.phase, report.serving) == (two, "reverted", one)
    assert "died 2 times" in report.error
    assert await bench.updater.apply(desired(2, {"digits": two}), {})
    assert bench.serving() == one, "the same document does not bring it back"


async def test_probation_goes_on_after_a_restart_without_the_fleet(live: Live, warehouse: Warehouse) -> None:
    one = warehouse.pack("1")
    await _die_on_probation(live(LONG), one, 1)
    bench = live()
    await bench.updater.restore()
    await until(lambda: bench.report().phase == "active")
    assert bench.slots.get("digits") == Slot(current=one)


async def test_clean_stops_on_probation_are_no_deaths(live: Live, warehouse: Warehouse) -> None:
    one = warehouse.pack("1")
    bench = live(LONG)
    await _die_on_probation(bench, one, 1)
    for _ in range(4):
        bench = live(LONG)
        await bench.updater.restore()
        assert bench.serving() == one
        await bench.updater.stop()


async def test_a_bundle_that_kills_the_node_while_loading_is_refused_the_third_time(
    live: Live, warehouse: Warehouse
) -> None:
    one, two = warehouse.pack("1"), warehouse.pack("2")
    bench = live()
    await bench.updater.apply(desired(1, {"digits": one}), {})
    bench.slots.put("digits", Slot(current=one, trial=Trial(two, 2, 1)))
    bench = live()
    await bench.updater.restore()
    assert bench.serving() == one
    assert await bench.updater.apply(desired(2, {"digits": two}), {})
    assert (bench.report().phase, bench.serving()) == ("failed", one)
    assert "died 2 times" in bench.report().error


async def test_cancelled_anywhere_the_next_document_finds_a_sound_node(live: Live, warehouse: Warehouse) -> None:
    digests = [warehouse.pack(version) for version in "12"]
    bench = live()
    rng = random.Random(0)
    for sequence in range(1, 40):
        work = asyncio.create_task(bench.updater.apply(desired(sequence, {"digits": digests[sequence % 2]}), {}))
        await asyncio.wait([work], timeout=rng.uniform(0, 0.06))
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        slot = bench.slots.get("digits")
        for digest in slot.digests():
            assert digest in digests
    assert await bench.updater.apply(desired(40, {"digits": digests[0]}), {})
    assert (bench.report().phase, bench.serving(), bench.slots.get("digits").current) == ("active", *[digests[0]] * 2)
    bench.store.verify(digests[0])


async def test_requests_never_fail_while_versions_change(live: Live, warehouse: Warehouse) -> None:
    digests = [warehouse.pack(version) for version in "1234"]
    bench = live()
    await bench.updater.apply(desired(1, {"digits": digests[0]}), {})
    stop = asyncio.Event()

    async def keep_asking() -> int:
        asked = 0
        while not stop.is_set():
            await bench.ask()
            asked += 1
        return asked

    clients = [asyncio.create_task(keep_asking()) for _ in range(4)]
    for sequence, digest in enumerate(digests[1:], start=2):
        assert await bench.updater.apply(desired(sequence, {"digits": digest}), {})
        assert bench.serving() == digest
    stop.set()
    assert all(asked > 0 for asked in await asyncio.gather(*clients))


async def _die_on_probation(bench: Bench, digest: str, sequence: int) -> None:
    """The process dies while the bundle is on probation: nothing is undone or noted."""
    update = asyncio.create_task(bench.updater.apply(desired(sequence, {"digits": digest}), {}))
    await until(lambda: bench.serving() == digest and bench.report().phase == "probation")
    update.cancel()
    await asyncio.gather(update, return_exceptions=True)


def _damage(bench: Bench, digest: str) -> None:
    path = bench.store.path(digest) / MODEL_FILE
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert (bench.store.path(digest) / FILE).exists()


class Other:
    """The same model by another runtime."""

    provider = "other"
    concurrent = False

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.closed = False

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self._engine.run(inputs)

    def close(self) -> None:
        self.closed = True


async def test_another_artifact_of_what_is_served_takes_over_without_a_new_probation(
    live: Live, warehouse: Warehouse
) -> None:
    bench, digest = live(), warehouse.pack("1")
    await bench.updater.apply(desired(1, {"digits": digest}), {})
    phases = len(bench.phases)
    loaded = open_tested(bench.store.path(digest), digest, target="cpu-x86", threads=1)
    loaded.engine = Other(loaded.engine)
    assert await bench.updater.promote("digits", loaded)
    assert bench.host.reports()["digits"].provider == "other"
    assert bench.updater.reports["digits"].provider == "other"
    assert (bench.report().phase, len(bench.phases)) == ("active", phases)
    assert bench.announced[-1] is loaded


async def test_another_artifact_of_what_is_no_longer_served_is_closed(live: Live, warehouse: Warehouse) -> None:
    bench, first, second = live(), warehouse.pack("1"), warehouse.pack("2")
    await bench.updater.apply(desired(1, {"digits": first}), {})
    loaded = open_tested(bench.store.path(first), first, target="cpu-x86", threads=1)
    late = Other(loaded.engine)
    loaded.engine = late
    await bench.updater.apply(desired(2, {"digits": second}), {})
    assert not await bench.updater.promote("digits", loaded)
    assert late.closed
    assert bench.serving() == second


class Slow:
    """An engine that takes its time."""

    provider = "slow"
    concurrent = False

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        time.sleep(0.2)
        return self._engine.run(inputs)

    def close(self) -> None:
        self._engine.close()


async def test_a_bundle_that_is_out_of_proportion_slow_is_refused(tmp_path: Path, warehouse: Warehouse) -> None:
    one, two = warehouse.pack("1"), warehouse.pack("2")

    def opened(directory: Path, digest: str) -> LoadedModel:
        loaded = OPEN_TESTED(directory, digest)
        loaded.engine = loaded.engine if digest == one else Slow(loaded.engine)
        return loaded

    bench = Bench(tmp_path / "node", warehouse, open_bundle=opened, latency=LatencyRule(max_slowdown=3.0))
    await bench.updater.apply(desired(1, {"digits": one}), {})
    assert await bench.updater.apply(desired(2, {"digits": two}), {})
    assert (bench.report().phase, bench.serving()) == ("failed", one)
    assert "too slow" in bench.report().error
    await bench.host.close()


@pytest.mark.parametrize("good", [True, False], ids=["good", "bad"])
async def test_where_memory_is_short_the_old_one_makes_way_if_it_is_told_to(
    tmp_path: Path, warehouse: Warehouse, good: bool
) -> None:
    one, two = warehouse.pack("1"), warehouse.pack("2", golden_error=0.0 if good else 1.0)
    available = [0]
    bench = Bench(tmp_path / "node", warehouse, room=Room(lambda: available[0], 0, "unload"))
    await bench.updater.apply(desired(1, {"digits": one}), {})
    served_while_loading: list[str] = []
    bench.updater.changed.append(
        lambda: served_while_loading.append(bench.serving()) if bench.report().phase == "testing" else None
    )
    available[0] = 1
    assert await bench.updater.apply(desired(2, {"digits": two}), {})
    assert served_while_loading == [one, ""]
    assert (bench.report().phase, bench.serving()) == (("active", two) if good else ("failed", one))
    await bench.ask()
    await bench.host.close()


async def test_where_memory_is_short_an_update_waits_and_is_no_death(tmp_path: Path, warehouse: Warehouse) -> None:
    one, two = warehouse.pack("1"), warehouse.pack("2")
    available = [0]
    bench = Bench(tmp_path / "node", warehouse, room=Room(lambda: available[0], 0, "wait"))
    await bench.updater.apply(desired(1, {"digits": one}), {})
    available[0] = 1
    assert not await bench.updater.apply(desired(2, {"digits": two}), {})
    assert "of memory" in bench.report().error
    assert bench.serving() == one
    assert bench.slots.get("digits").trial is None
    available[0] = 1 << 40
    assert await bench.updater.apply(desired(2, {"digits": two}), {})
    assert bench.serving() == two
    await bench.host.close()


async def test_a_content_gone_bad_that_two_bundles_share_is_fetched_anew(live: Live, warehouse: Warehouse) -> None:
    one = warehouse.pack("1")
    bench = live()
    await bench.updater.apply(desired(1, {"digits": one}), {})
    again = warehouse.pack("1", model="faces")
    _damage(bench, one)
    assert await bench.updater.apply(desired(2, {"digits": one, "faces": again}), {})
    assert bench.report("faces").phase == "active"
    bench.store.verify(again)


async def test_an_older_document_is_refused_though_the_newer_one_was_not_finished(
    live: Live, warehouse: Warehouse
) -> None:
    one, two = warehouse.pack("1"), warehouse.pack("2")
    bench = live()
    await bench.updater.apply(desired(1, {"digits": one}), {})
    warehouse.error = FoothillError("unavailable", "The fleet is away.")
    assert not await bench.updater.apply(desired(3, {"digits": two}), {})
    warehouse.error = None
    bench = live()
    await bench.updater.restore()
    assert "below 3" in bench.updater.refusal(desired(2, {"digits": two}))
    assert await bench.updater.apply(desired(3, {"digits": two}), {})
    assert bench.serving() == two


class Full(RealDisk):
    """A disk with no room for anything new, once it is full."""

    full = False

    def open(self, path: Path, *, at: int = 0, mode: int = 0o644) -> Writing:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return super().open(path, at=at, mode=mode)


async def test_for_a_bundle_that_finds_no_room_goes_what_can_be_made_again(
    tmp_path: Path, warehouse: Warehouse
) -> None:
    one, two = warehouse.pack("1"), warehouse.pack("2")
    artifact = describe(warehouse.packed[one]).files[MODEL_FILE].sha256
    made = tmp_path / "node" / "providers" / artifact.replace(":", "-") / "graph-1"
    made.mkdir(parents=True)
    (made / "weights.bin").write_bytes(b"x")
    other = tmp_path / "node" / "providers" / "sha256-0"
    other.mkdir()
    store = BundleStore(tmp_path / "node" / "store", reserve_bytes=0)
    plenty = warehouse.fetch_into(store)

    async def fetch(model: str, digest: str, manifest: bytes | None) -> Path:
        tried.append((digest, other.exists(), made.exists()))
        if digest == two and made.exists():
            raise NoSpace("The disk has 3 bytes left.")
        return await plenty(model, digest, manifest)

    tried: list[tuple[str, bool, bool]] = []
    bench = Bench(tmp_path / "node", warehouse, store=store, fetch=fetch)
    assert await bench.updater.apply(desired(1, {"digits": one}), {})
    assert (other.exists(), made.exists()) == (False, True), "of a bundle that is here it stays"
    assert await bench.updater.apply(desired(2, {"digits": two}), {})
    assert tried[1:] == [(two, False, True), (two, False, True), (two, False, False)]
    assert bench.serving() == two
    await bench.host.close()


async def test_on_a_full_disk_a_node_starts_serves_and_goes_back(tmp_path: Path, warehouse: Warehouse) -> None:
    one, two = warehouse.pack("1"), warehouse.pack("2")
    disk = Full()
    bench = Bench(tmp_path / "node", warehouse, disk=disk)
    await bench.updater.apply(desired(1, {"digits": one}), {})
    await bench.host.close()
    bench = Bench(tmp_path / "node", warehouse, rule=LONG, disk=disk)
    await bench.updater.restore()
    update = asyncio.create_task(bench.updater.apply(desired(2, {"digits": two}), {}))
    await until(lambda: bench.serving() == two and bench.report().phase == "probation")
    disk.full = True
    bench.break_engine()
    assert not await update, "it is not written down yet"
    assert (bench.report().phase, bench.serving()) == ("reverted", one)
    await bench.updater.stop()
    await bench.host.close()
    bench = Bench(tmp_path / "node", warehouse, disk=disk)
    await bench.updater.restore()
    assert bench.serving() == two, "the last word on the disk is that it is on probation"
    disk.full = False
    assert await bench.updater.apply(desired(3, {"digits": one}), {})
    assert bench.serving() == one
    await bench.host.close()


async def test_what_was_fetched_stays_while_it_is_still_wanted(live: Live, warehouse: Warehouse) -> None:
    one, two = warehouse.pack("1"), warehouse.pack("2")
    bench = live()
    await bench.updater.apply(desired(1, {"digits": one}), {})
    manifest = describe(warehouse.packed[two])
    partial = bench.store.partial(manifest.files[MODEL_FILE].sha256)

    async def interrupted(model: str, digest: str, manifest_bytes: bytes | None) -> Path:
        with bench.store.pinned(digest, manifest):
            partial.write_bytes(b"half")
            raise FoothillError("unavailable", "The line broke.")

    broken = Bench(directory_of(bench), warehouse, store=bench.store, fetch=interrupted)
    await broken.updater.restore()
    assert not await broken.updater.apply(desired(2, {"digits": two}), {})
    assert partial.exists()
    assert await broken.updater.apply(desired(3, {"digits": one}), {})
    assert not partial.exists(), "nobody wants it any more"
    await broken.updater.end_probations()
    await broken.host.close()


def directory_of(bench: Bench) -> Path:
    return bench.store.path(bench.store.digests()[0]).parents[2]
