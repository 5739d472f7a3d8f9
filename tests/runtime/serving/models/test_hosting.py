"""Switching bundles under load, draining, and what the host says of itself."""

from __future__ import annotations

import asyncio
import os
import time

import numpy as np
import pytest

from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from runtime.serving.models.hosting import LoadFigures, ModelHost, Served, own_cores, slots_of
from tests.runtime.serving.bundle_factory import make_lookup
from tests.runtime.serving.conftest import Load
from tests.runtime.serving.scripted import Scripted, scripted

IMAGE = {"image": np.zeros((1, 1, 8, 8), np.float32)}


async def answer(served: Served) -> int:
    result = await served.batcher.submit(IMAGE, Deadline.after(10_000, now_s=time.monotonic()))
    return int(result.outputs["logits"].argmax())


def certain(label: int) -> list[float]:
    return [100.0 if index == label else 0.0 for index in range(10)]


async def test_the_next_request_after_a_switch_goes_to_the_new_bundle(host: ModelHost, load: Load) -> None:
    await host.activate("digits", load(version="1", bias=certain(1)))
    await host.activate("digits", load(version="2", bias=certain(2)))
    with host.get("digits") as served:
        assert served.name == "digits-edge@2"
        assert await answer(served) == 2


async def test_no_request_fails_during_many_switches_under_load(host: ModelHost, load: Load) -> None:
    await host.activate("digits", load(version="0", bias=certain(0)))
    stop = asyncio.Event()
    answers: list[int] = []

    async def client() -> None:
        while not stop.is_set():
            with host.get("digits") as served:
                # A body may still be read or decoded between taking the model and running it.
                await asyncio.sleep(0)
                answers.append(await answer(served))

    clients = [asyncio.create_task(client()) for _ in range(16)]
    for version in range(1, 10):
        await host.activate("digits", load(version=str(version), bias=certain(version)))
    stop.set()
    await asyncio.gather(*clients)
    assert len(answers) > 50
    assert set(answers) >= {9}


async def test_the_old_bundle_is_closed_only_when_its_last_user_is_done(host: ModelHost, load: Load) -> None:
    await host.activate("digits", load(version="1", bias=certain(1)))
    with host.get("digits") as old:
        switching = asyncio.create_task(host.activate("digits", load(version="2", bias=certain(2))))
        await asyncio.sleep(0)
        assert host.get("digits").name == "digits-edge@2"
        assert await answer(old) == 1
        assert not switching.done()
    await switching
    with pytest.raises(FoothillError) as refused:
        await answer(old)
    assert refused.value.code == "unavailable"


async def test_a_user_that_never_ends_cannot_hold_a_switch_for_ever(load: Load) -> None:
    host = ModelHost(drain_s=0.05)
    await host.activate("digits", load(version="1"))
    with host.get("digits"):
        await host.activate("digits", load(version="2"))
        assert host.get("digits").name == "digits-edge@2"
    await host.close()


async def test_draining_goes_on_when_the_switch_is_cancelled(host: ModelHost, load: Load) -> None:
    await host.activate("digits", load(version="1"))
    with host.get("digits") as old:
        switching = asyncio.create_task(host.activate("digits", load(version="2")))
        await asyncio.sleep(0)
        switching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await switching
    await host.close()
    with pytest.raises(FoothillError, match="taken off"):
        await answer(old)


async def test_a_retired_model_is_unknown_and_the_error_names_what_is_served(host: ModelHost, load: Load) -> None:
    with pytest.raises(FoothillError, match="Served: none yet"):
        host.get("digits")
    await host.activate("digits", load())
    with pytest.raises(FoothillError, match=r"Model 'other' is not served here\. Served: digits"):
        host.get("other")
    with pytest.raises(FoothillError, match="served in version 1, not '3'"):
        host.get("digits", "3")
    await host.retire("digits")
    with pytest.raises(FoothillError) as refused:
        host.get("digits")
    assert refused.value.code == "model_not_found"


async def test_a_model_that_comes_back_is_away_until_it_does_or_is_given_up(host: ModelHost, load: Load) -> None:
    ready = []
    await host.activate("digits", load(version="1"))
    for end in ("back", "given up"):
        await host.retire("digits", back_soon="memory is short.")
        ready.append((host.ready, host.missing))
        with pytest.raises(FoothillError, match="away for a moment: memory is short") as refused:
            host.get("digits")
        assert (refused.value.code, refused.value.retry_after_s) == ("unavailable", 2.0)
        if end == "back":
            await host.activate("digits", load(version="2"))
            ready.append((host.ready, host.missing))
        else:
            host.give_up("digits")
    assert ready == [(False, ["digits"]), (True, []), (False, ["digits"])]
    with pytest.raises(FoothillError, match="not served here"):
        host.get("digits")


async def test_an_expected_model_that_is_not_there_yet_is_not_refused_for_good(load: Load) -> None:
    host = ModelHost(expected=["digits"])
    with pytest.raises(FoothillError, match="digits comes up") as refused:
        host.get("digits")
    assert (refused.value.code, refused.value.retry_after_s) == ("unavailable", 2.0)
    await host.activate("digits", load())
    host.unloaded.add("digits")
    await host.retire("digits")
    with pytest.raises(FoothillError, match="not served here"):
        host.get("digits")
    await host.close()


async def test_a_bundle_of_another_model_is_refused(host: ModelHost, load: Load) -> None:
    loaded = load()
    with pytest.raises(FoothillError, match="serves digits, not faces"):
        await host.activate("faces", loaded)
    loaded.close()


async def test_ready_means_that_every_expected_model_is_served(load: Load) -> None:
    host = ModelHost(expected=["digits"])
    ready = [host.ready]
    await host.activate("digits", load())
    ready.append(host.ready)
    await host.retire("digits")
    ready.append(host.ready)
    assert ready == [False, True, False]
    await host.close()


async def test_reports_and_load_tell_what_runs(host: ModelHost, load: Load) -> None:
    loaded = load()
    await host.activate("digits", loaded)
    assert host.load() == LoadFigures(0, 0.0, 0.0)
    with host.get("digits"):
        report = host.reports()["digits"]
        assert (report.digest, report.bundle, report.in_flight) == (loaded.digest, "digits-edge@1", 1)
        assert report.provider == "CPUExecutionProvider"
        assert len(report.stratum) == 32
        assert host.load().in_flight == 1
    for _ in range(100):
        host.note(2.0, 5.0)
    assert host.load().header() == "in_flight=0;queue_ms=2.000;service_ms=5.000"


@pytest.mark.parametrize(
    ("cores", "threads", "lanes", "slots"), [(1, 1, 1, 2), (2, 1, 2, 2), (2, 2, 1, 2), (8, 3, 2, 2), (8, 1, 8, 8)]
)
async def test_a_model_on_cpus_has_lanes_for_all_cores(
    load: Load, cores: int, threads: int, lanes: int, slots: int
) -> None:
    assert slots_of(cores, threads) == slots
    host = ModelHost(threads=threads, cores=cores)
    await host.activate("digits", load())
    assert host.get("digits").batcher.schedule.lanes == lanes
    await host.close()


async def test_an_engine_that_runs_once_at_a_time_has_one_lane(load: Load) -> None:
    host = ModelHost(cores=8)
    await host.activate("lookup", scripted(load(make_lookup), Scripted(), seconds=0.01))
    assert host.get("lookup").batcher.schedule.lanes == 1
    await host.close()


def test_the_cores_of_a_process_are_those_it_may_use() -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert own_cores() == cores
