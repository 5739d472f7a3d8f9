from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.engines import engine_artifact, wanted_of
from contracts.errors import FoothillError
from edge_node.engine_source import Vitals
from runtime.serving.engines.tensorrt_errors import BuildFailed, ModelRefused
from runtime.serving.engines.trials import TrialFile
from tests.edge_node.engine_rig import COOL, CPU, HERE, NODE_KEY, STRANGER, TRT, TRT_FILE, Rig, foreign, manifest_of
from tests.edge_node.workbench import until


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    await rig.end()


async def test_onnx_runtime_serves_while_an_engine_is_built_and_then_the_engine_does(rig: Rig) -> None:
    rig.builder.waits.clear()
    life = await rig.live()
    digest = rig.pack("1")
    await life.serve(digest)
    await until(lambda: bool(rig.builder.built))
    assert life.provider == CPU
    await life.bench.ask()
    rig.builder.waits.set()
    await life.reaches(TRT)
    await life.bench.ask()
    report = life.bench.host.reports()["digits"]
    assert (report.digest, report.artifact) == (digest, TRT_FILE)
    assert life.bench.report().phase == "active"


async def test_the_next_life_loads_what_was_built_and_builds_nothing(rig: Rig) -> None:
    life = await rig.live()
    await life.serve(rig.pack("1"))
    await life.reaches(TRT)
    await life.end()
    again = await rig.live()
    await again.reaches(TRT)
    assert len(rig.builder.built) == 1


async def test_timings_of_one_build_help_the_next(rig: Rig) -> None:
    life = await rig.live()
    await life.serve(rig.pack("1"))
    await life.reaches(TRT)
    await life.serve(rig.pack("2"), sequence=2)
    await until(lambda: len(rig.builder.timings) == 2)
    assert rig.builder.timings == [b"", b"timings of 1"]
    await life.reaches(TRT)


async def test_an_engine_that_answers_otherwise_is_refused_and_not_built_again(rig: Rig) -> None:
    rig.module.skew = 0.5
    life = await rig.live()
    digest = rig.pack("1")
    await life.serve(digest)
    await until(lambda: bool(life.trials.refused))
    await life.settles()
    assert (life.provider, len(rig.builder.built)) == (CPU, 1)
    assert life.store.records() == []
    assert rig.gpu.alive == {}
    await life.end()
    again = await rig.live()
    await again.settles()
    assert (again.provider, len(rig.builder.built)) == (CPU, 1)
    assert rig.fleet.offered == []


async def test_an_engine_that_is_slower_than_onnx_runtime_is_refused(rig: Rig) -> None:
    rig.module.stalls = lambda: time.sleep(0.05)
    life = await rig.live()
    await life.serve(rig.pack("1"))
    await until(lambda: bool(life.trials.refused))
    assert life.provider == CPU
    assert rig.gpu.alive == {}


@pytest.mark.parametrize("error", [BuildFailed("The builder's process was ended by SIGSEGV."), ModelRefused("No Op.")])
async def test_a_build_that_fails_is_not_tried_again(rig: Rig, error: FoothillError) -> None:
    rig.builder.error = error
    life = await rig.live()
    await life.serve(rig.pack("1"))
    await until(lambda: bool(rig.builder.built))
    await life.settles()
    await life.end()
    rig.builder.error = None
    again = await rig.live()
    await again.settles()
    assert (again.provider, len(rig.builder.built)) == (CPU, 1)


@pytest.mark.parametrize("vitals", [Vitals(16 << 30, 92.0), Vitals(1 << 20, 40.0)], ids=["hot", "full"])
async def test_a_board_that_is_hot_or_full_waits_and_then_builds(rig: Rig, vitals: Vitals) -> None:
    rig.vitals = vitals
    life = await rig.live()
    await life.serve(rig.pack("1"))
    await until(lambda: len(life.naps) >= 4)
    assert (life.provider, rig.builder.built) == (CPU, [])
    assert life.naps[:4] == [60.0, 300.0, 1800.0, 1800.0]
    rig.vitals = COOL
    await life.reaches(TRT)


async def test_an_engine_that_fails_while_it_serves_gives_way_to_onnx_runtime_for_good(rig: Rig) -> None:
    life = await rig.live()
    await life.serve(rig.pack("1"))
    await life.reaches(TRT)
    rig.module.runs_fail = True
    with pytest.raises(FoothillError, match="did not run"):
        await life.bench.ask()
    await life.reaches(CPU)
    await life.bench.ask()
    await life.settles()
    rig.module.runs_fail = False
    assert life.store.records() == []
    await life.end()
    again = await rig.live()
    await again.settles()
    assert (again.provider, len(rig.builder.built)) == (CPU, 1)


async def test_values_that_the_model_cannot_take_do_not_cost_it_its_engine(rig: Rig) -> None:
    life = await rig.live()
    await life.serve(rig.pack("1"))
    await life.reaches(TRT)
    life.bench.ask_nonsense()
    await asyncio.sleep(0)
    await life.settles()
    assert life.provider == TRT


async def test_an_engine_that_changed_on_the_disk_is_built_again(rig: Rig) -> None:
    life = await rig.live()
    await life.serve(rig.pack("1"))
    await life.reaches(TRT)
    (record,) = life.store.records()
    await life.end()
    path = rig.directory / "node" / "engines" / "engines" / record.engine.removeprefix("sha256:")
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    again = await rig.live()
    await again.reaches(TRT)
    assert len(rig.builder.built) == 2
    assert again.trials.refused == frozenset()


async def test_an_engine_for_what_is_no_longer_served_is_kept_but_not_promoted(rig: Rig) -> None:
    first, second = rig.pack("1"), rig.pack("2")
    rig.builder.waits.clear()
    life = await rig.live()
    await life.serve(first)
    await until(lambda: bool(rig.builder.built))
    await life.serve(second, sequence=2)
    rig.builder.waits.set()
    await life.reaches(TRT)
    assert life.bench.serving() == second
    await life.settles()
    assert life.provider == TRT
    assert life.bench.serving() == second


async def test_an_engine_that_keeps_taking_the_node_down_is_left_alone(rig: Rig) -> None:
    life = await rig.live()
    digest = rig.pack("1")
    await life.serve(digest)
    await life.reaches(TRT)
    (record,) = life.store.records()
    artifact = engine_artifact(manifest_of(rig, digest), "cpu-x86")
    assert artifact is not None
    for _ in range(2):
        life.trials.begin(record.engine, wanted_of(manifest_of(rig, digest), artifact), HERE)
        life.trials = TrialFile(rig.directory / "node" / "trials.json")
    await life.end()
    again = await rig.live()
    await again.settles()
    assert (again.provider, len(rig.builder.built)) == (CPU, 1)
    assert again.trials.refused == {record.engine}


async def test_a_gpu_without_room_is_tried_again_later(rig: Rig) -> None:
    rig.gpu.fails["cuMemAlloc_v2"] = 2
    life = await rig.live()
    await life.serve(rig.pack("1"))
    await until(lambda: bool(life.naps))
    assert life.provider == CPU
    del rig.gpu.fails["cuMemAlloc_v2"]
    await life.reaches(TRT)
    assert len(rig.builder.built) == 1


async def test_a_machine_without_room_for_an_engine_tries_it_again_later(rig: Rig) -> None:
    life = await rig.live()
    rig.builder.waits.clear()
    await life.serve(rig.pack("1"))
    await until(lambda: bool(rig.builder.built))
    rig.free_bytes = 1
    rig.builder.waits.set()
    await until(lambda: bool(life.naps))
    assert (life.provider, rig.gpu.alive, life.trials.refused) == (CPU, {}, frozenset())
    rig.free_bytes = 0
    await life.reaches(TRT)
    assert len(rig.builder.built) == 1


async def test_an_engine_that_fails_goes_first_where_memory_is_short(rig: Rig) -> None:
    life = await rig.live()
    await life.serve(rig.pack("1"))
    await life.reaches(TRT)
    rig.module.runs_fail, rig.free_bytes = True, 1
    alive: list[int] = []
    life.bench.serving_next = lambda _: alive.append(len(rig.gpu.alive))
    with pytest.raises(FoothillError, match="did not run"):
        await life.bench.ask()
    await life.settles()
    assert (life.provider, alive) == (CPU, [0]), "its memory was free before ONNX Runtime took over"
    assert life.bench.report().phase == "active"
    await life.bench.ask()


@pytest.mark.parametrize("unloaded", [True, False], ids=["unloaded and loaded", "loaded again"])
async def test_what_an_operator_loads_again_gets_its_engine_back(rig: Rig, unloaded: bool) -> None:
    life = await rig.live()
    await life.serve(rig.pack("1"))
    await life.reaches(TRT)
    await life.settles()
    if unloaded:
        await life.bench.repository.unload("digits")
        assert rig.gpu.alive == {}
    await life.bench.repository.load("digits")
    await life.reaches(TRT)
    await life.bench.ask()
    assert len(rig.builder.built) == 1


async def test_an_engine_of_the_very_same_board_is_fetched_instead_of_built(rig: Rig, tmp_path: Path) -> None:
    digest = rig.pack("1")
    rig.fleet.add(*foreign(rig, digest, tmp_path))
    life = await rig.live()
    await life.serve(digest)
    await life.reaches(TRT)
    assert rig.builder.built == []
    assert rig.fleet.offered == []


@pytest.mark.parametrize("wrong", ["board", "bytes", "signature", "away"])
async def test_an_engine_of_the_fleet_that_is_not_right_is_not_taken(rig: Rig, wrong: str, tmp_path: Path) -> None:
    digest = rig.pack("1")
    changes: dict[str, dict[str, object]] = {"board": {"sm": 86}}
    record, data = foreign(rig, digest, tmp_path, **changes.get(wrong, {}))
    rig.fleet.add(
        record, data[:-1] + b" " if wrong == "bytes" else data, NODE_KEY if wrong != "signature" else STRANGER
    )
    rig.fleet.away = wrong == "away"
    life = await rig.live()
    await life.serve(digest)
    await life.reaches(TRT)
    assert len(rig.builder.built) == 1
    assert all(one.machine == HERE for one in life.store.records())


async def test_an_engine_that_was_built_and_tested_here_is_offered_to_the_fleet(rig: Rig) -> None:
    life = await rig.live()
    await life.serve(rig.pack("1"))
    await life.reaches(TRT)
    await life.settles()
    (record,) = life.store.records()
    assert rig.fleet.offered == [record.engine]


async def test_a_bundle_without_something_to_build_from_is_left_as_it_is(rig: Rig) -> None:
    life = await rig.live()
    await life.serve(rig.warehouse.pack("1"))
    await life.settles()
    assert (life.provider, rig.builder.built) == (CPU, [])


async def test_stopping_ends_a_build(rig: Rig) -> None:
    rig.builder.waits.clear()
    life = await rig.live()
    await life.serve(rig.pack("1"))
    await until(lambda: bool(rig.builder.built))
    await life.engines.stop()
    assert not life.engines._work
    assert not list((life.store._root).glob("room.*"))
    await life.bench.ask()
