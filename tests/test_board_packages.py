"""What `make board-packages` asks the index for. What it gets is not tested here: a machine may have no network."""

from __future__ import annotations

from typing import Any

from packaging.requirements import Requirement

from tests.board_packages import BOARDS, applicable, asked, missing

JETPACK_6 = BOARDS[0]


def test_a_node_is_everything_that_its_extra_brings() -> None:
    names = {each.name for each in asked("edge")}
    assert {"httpx", "msgspec", "aiohttp", "paho-mqtt", "onnxruntime", "numpy"} <= names
    assert "foothill" not in names


def test_markers_are_those_of_the_board() -> None:
    lines = [
        "tomli>=2; python_version < '3.11'",
        "other>1; python_version >= '3.11'",
        "arm; platform_machine == 'aarch64'",
    ]
    assert applicable(map(Requirement, lines), JETPACK_6.markers) == ["tomli>=2", "arm"]
    assert applicable([Requirement("speedups; extra == 'fast'")], JETPACK_6.markers) == []
    assert applicable([Requirement("speedups; extra == 'fast'")], JETPACK_6.markers, ["fast"]) == ["speedups"]


def test_what_only_the_boards_python_needs_is_asked_for_too() -> None:
    anyio: dict[str, object] = {
        "name": "anyio",
        "requires_dist": ["exceptiongroup>=1; python_version < '3.11'", "idna>=2.8"],
    }
    installs: list[dict[str, Any]] = [{"metadata": anyio}, {"metadata": {"name": "IDNA"}}]
    assert missing(installs, JETPACK_6.markers) == ["exceptiongroup>=1"]
    assert missing([*installs, {"metadata": {"name": "exceptiongroup"}}], JETPACK_6.markers) == []


def test_the_newest_c_library_comes_first() -> None:
    platforms = JETPACK_6.platforms
    assert (platforms[0], platforms[-1]) == ("manylinux_2_35_aarch64", "manylinux2014_aarch64")
    assert "manylinux_2_28_aarch64" in platforms
