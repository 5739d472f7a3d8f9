"""What a node reads of its machine."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from contracts.boards import Fingerprint
from contracts.errors import FoothillError
from contracts.messages import Reported, Vitals, decode, encode
from edge_node.metrics import VitalMetrics
from edge_node.vitals import available_bytes, hottest_c, is_news, is_throttled, read_vitals

MIB = 1 << 20


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": "MemAvailable: 8388608 kB\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_the_memory_that_can_be_taken_is_read(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 8000000 kB\nMemFree: 100 kB\nMemAvailable:    2048 kB\n")
    assert available_bytes(tmp_path) == 2048 << 10
    assert available_bytes(tmp_path / "nowhere") == 0
    assert available_bytes() > 0


def test_the_hottest_zone_counts_and_one_that_does_not_answer_does_not(tmp_path: Path) -> None:
    assert hottest_c(tmp_path) is None
    for number, text in enumerate(("45500\n", "61250\n", "", "off\n")):
        zone = tmp_path / f"sys/class/thermal/thermal_zone{number}"
        zone.mkdir(parents=True)
        (zone / "temp").write_text(text)
    assert hottest_c(tmp_path) == 61.25


def test_the_narrowest_control_group_limits_what_is_free(tmp_path: Path) -> None:
    """Version 2: a container of 512 MiB within a slice of 1 GiB whose other members have used nearly all."""
    group = "sys/fs/cgroup/box.slice/node.scope"
    files = {
        "proc/self/cgroup": "0::/box.slice/node.scope\n",
        f"{group}/memory.max": f"{512 * MIB}\n",
        f"{group}/memory.high": "max\n",
        f"{group}/memory.current": f"{200 * MIB}\n",
        f"{group}/memory.stat": f"anon 1\nactive_file 7\ninactive_file {50 * MIB}\n",
        "sys/fs/cgroup/box.slice/memory.max": "max\n",
        "sys/fs/cgroup/box.slice/memory.current": f"{900 * MIB}\n",
    }
    root = machine(tmp_path, files)
    assert available_bytes(root) == 362 * MIB
    machine(root, {f"{group}/memory.high": f"{300 * MIB}\n"})
    assert available_bytes(root) == 150 * MIB, "above memory.high it would be slowed down"
    machine(root, {"sys/fs/cgroup/box.slice/memory.max": f"{1024 * MIB}\n"})
    assert available_bytes(root) == 124 * MIB
    machine(root, {"sys/fs/cgroup/box.slice/memory.current": f"{2000 * MIB}\n"})
    assert available_bytes(root) == 1, "nothing is left; 0 would say that nobody knows"


@pytest.mark.parametrize("path", ["/docker/4f2a", "/"])
def test_in_a_container_the_mount_is_the_group(tmp_path: Path, path: str) -> None:
    files = {
        "proc/self/cgroup": f"0::{path}\n",
        "sys/fs/cgroup/memory.max": f"{100 * MIB}\n",
        "sys/fs/cgroup/memory.current": f"{30 * MIB}\n",
    }
    assert available_bytes(machine(tmp_path, files)) == 70 * MIB


def test_the_first_version_of_control_groups_is_understood(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/memory/node"
    files = {
        "proc/self/cgroup": "11:cpu,cpuacct:/node\n7:memory:/node\n0::/elsewhere\nnonsense\n",
        f"{group}/memory.limit_in_bytes": f"{256 * MIB}\n",
        f"{group}/memory.usage_in_bytes": f"{200 * MIB}\n",
        f"{group}/memory.stat": f"inactive_file 1\ntotal_inactive_file {100 * MIB}\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{4000 * MIB}\n",
    }
    root = machine(tmp_path, files)
    assert available_bytes(root) == 156 * MIB
    machine(root, {f"{group}/memory.limit_in_bytes": "9223372036854771712\n"})
    assert available_bytes(root) == 8192 * MIB, "without a limit the machine's own memory counts"


@given(st.dictionaries(st.sampled_from(["memory.max", "memory.current", "memory.stat", "memory.high"]), st.text()))
def test_whatever_stands_in_these_files_memory_is_a_number(
    tmp_path_factory: pytest.TempPathFactory, texts: dict[str, str]
) -> None:
    root = machine(tmp_path_factory.mktemp("machine"), {"proc/self/cgroup": "0::/\n"})
    (root / "sys/fs/cgroup").mkdir(parents=True)
    for name, text in texts.items():
        (root / "sys/fs/cgroup" / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    assert 0 < available_bytes(root) <= 8192 * MIB


def test_a_throttle_at_work_is_seen(tmp_path: Path) -> None:
    assert is_throttled(tmp_path) is None
    devices = {0: ("pwm-fan", "3"), 1: ("cpu-throttle-alert", "0"), 2: ("gpu-throttle-alert", "0")}
    for number, (kind, state) in devices.items():
        device = f"sys/class/thermal/cooling_device{number}"
        machine(tmp_path, {f"{device}/type": f"{kind}\n", f"{device}/cur_state": f"{state}\n"})
    assert is_throttled(tmp_path) is False
    machine(tmp_path, {"sys/class/thermal/cooling_device2/cur_state": "1\n"})
    assert is_throttled(tmp_path) is True


def test_sensors_that_talk_nonsense_are_not_believed(tmp_path: Path) -> None:
    for number, text in enumerate(("-274000\n", "2147483647\n", "41000\n")):
        machine(tmp_path, {f"sys/class/thermal/thermal_zone{number}/temp": text})
    assert hottest_c(tmp_path) == 41.0


def test_vitals_go_over_the_wire_and_into_the_metrics(tmp_path: Path) -> None:
    root = machine(tmp_path, {"sys/class/thermal/thermal_zone0/temp": "45500\n"})

    def broken() -> int:
        raise OSError("no such disk")

    vitals = read_vitals(lambda: 5, root)
    assert vitals == Vitals(8 << 30, 5, 45.5, None)
    assert decode(encode(vitals), Vitals) == vitals
    assert read_vitals(broken, root).free_disk_bytes is None
    registry = CollectorRegistry()
    VitalMetrics(registry, lambda: vitals)
    text = generate_latest(registry).decode()
    assert "foothill_node_temperature_celsius 45.5" in text
    assert "foothill_node_throttled" not in text
    with pytest.raises(FoothillError):
        decode(encode(Vitals(temperature_c=float("nan"))), Vitals)


def test_a_report_of_an_older_node_has_no_vitals() -> None:
    fingerprint = Fingerprint("cpu-x86", "x86_64", "linux", 1, 1, "CPUExecutionProvider", "onnxruntime")
    bare = {"node": "a", "epoch": 1, "sequence": 1, "models": {}, "at_s": 0.0, "fingerprint": fingerprint}
    assert decode(msgspec.msgpack.encode(bare), Reported).vitals == Vitals()


@pytest.mark.parametrize(
    ("now", "news"),
    [
        (Vitals(1000 * MIB, 5000 * MIB, 40.0, False), False),
        (Vitals(910 * MIB, 4600 * MIB, 44.0, False), False),
        (Vitals(890 * MIB, 5000 * MIB, 40.0, False), True),
        (Vitals(1000 * MIB, 4400 * MIB, 40.0, False), True),
        (Vitals(1000 * MIB, 5000 * MIB, 45.0, False), True),
        (Vitals(1000 * MIB, 5000 * MIB, 40.0, True), True),
        (Vitals(1000 * MIB, 5000 * MIB, None, False), True),
    ],
)
def test_only_changes_that_matter_are_news(now: Vitals, news: bool) -> None:
    assert is_news(Vitals(1000 * MIB, 5000 * MIB, 40.0, False), now) is news
