"""onnxruntime-gpu where there is no GPU: it lists CUDA and TensorRT all the same, and must not be believed."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import numpy as np
import onnxruntime as ort
import pytest

from contracts.errors import FoothillError
from runtime.serving.engines.providers import CPU, CUDA, TENSORRT, Choice, Wish
from runtime.serving.models.golden import open_tested
from runtime.serving.models.hosting import ModelHost
from tests.runtime.serving.bundle_factory import TARGET, make_classifier
from tests.runtime.serving.conftest import Serve

pytestmark = pytest.mark.gpu_wheel


def test_the_wheel_lists_what_cannot_start_here() -> None:
    assert {CUDA, TENSORRT, CPU} <= set(ort.get_available_providers())


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ("cuda", "could not start here: CPUExecutionProvider would run it. Look at the driver and its libraries"),
        ("tensorrt", "Please install TensorRT libraries"),
    ],
)
def test_who_asks_for_it_is_refused(tmp_path: Path, choice: Choice, told: str) -> None:
    digest = make_classifier(tmp_path)
    with pytest.raises(FoothillError, match=told) as refused:
        open_tested(tmp_path, digest, target=TARGET, threads=1, wish=Wish(choice))
    assert refused.value.code == "bad_bundle"


@pytest.mark.parametrize(("choice", "asked"), [("cuda", CUDA), ("tensorrt", TENSORRT)])
async def test_with_fallback_the_cpu_answers_and_that_is_told(
    host: ModelHost, serve: Serve, tmp_path: Path, choice: Choice, asked: str
) -> None:
    digest = make_classifier(tmp_path)
    loaded = open_tested(tmp_path, digest, target=TARGET, threads=1, wish=Wish(choice, fallback=True))
    assert (loaded.asked, loaded.engine.provider) == (asked, CPU)
    await host.activate("digits", loaded)
    inputs = [{"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": np.zeros(64).tolist()}]
    async with aiohttp.ClientSession(await serve()) as session:
        async with session.post("/v2/models/digits/infer", json={"inputs": inputs}) as answer:
            assert answer.status == 200, await answer.text()
        async with session.get("/healthz") as answer:
            assert (await answer.json())["models"]["digits"]["provider"] == CPU
        async with session.post("/v2/repository/index") as answer:
            (line,) = await answer.json()
    assert (line["state"], line["reason"]) == ("READY", f"run by {CPU}, not by {asked} as asked")
