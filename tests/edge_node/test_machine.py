from __future__ import annotations

from pathlib import Path

import msgspec
import onnxruntime as ort
import pytest

from contracts.boards import Fingerprint
from edge_node.machine import NodeMachine
from runtime.serving.engines.providers import CPU, CUDA, Wish
from runtime.serving.models.hosting import ModelHost
from runtime.serving.models.loaded import LoadedModel
from tests.edge_node.bundle_factory import pack

JETSON = Fingerprint(
    "jetson-orin-nano", "aarch64", "linux 5.15", 6, 8 << 30, CUDA, "onnxruntime 1.23.2", jetpack="L4T 36.4.3"
)


def test_a_power_mode_is_followed_and_kept_while_it_cannot_be_read() -> None:
    said = ["NV Power Mode: 15W\n1\n", "", "NV Power Mode: MAXN_SUPER\n2\n"]
    machine, seen = NodeMachine(JETSON, ModelHost(), lambda _: said.pop(0)), []
    while said:
        machine.look()
        seen.append(machine.fingerprint().power_mode)
    assert seen == ["15W", "15W", "MAXN_SUPER"]


def test_a_machine_without_jetson_linux_is_not_asked_for_its_power_mode() -> None:
    asked: list[object] = []

    def run(command: object) -> str:
        asked.append(command)
        return ""

    found = msgspec.structs.replace(JETSON, jetpack=None)
    machine = NodeMachine(found, ModelHost(), run)
    machine.look()
    assert (machine.fingerprint(), asked) == (found, [])


@pytest.mark.skipif(CUDA in ort.get_available_providers(), reason="this ONNX Runtime has CUDA")
async def test_the_provider_is_what_runs_a_model_where_another_one_took_over(tmp_path: Path) -> None:
    digest = pack(tmp_path, version="1", seed=1)
    host = ModelHost(drain_s=1.0)
    machine = NodeMachine(JETSON, host)
    assert machine.fingerprint().provider == CUDA
    wish = Wish("cuda", fallback=True)
    await host.activate("digits", LoadedModel.open(tmp_path, digest, target="cpu-x86", threads=1, wish=wish))
    assert machine.fingerprint() == msgspec.structs.replace(JETSON, provider=CPU)
    await host.retire("digits")
    assert machine.fingerprint().provider == CUDA
    await host.close()
