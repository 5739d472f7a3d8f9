from __future__ import annotations

from pathlib import Path

from edge_node.vitals import available_bytes, hottest_c


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
