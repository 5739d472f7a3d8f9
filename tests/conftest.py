"""What several packages' tests share: real bundles, compiled once for all test processes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from filelock import FileLock
from hypothesis import settings

from model_compiler import pack
from model_compiler.digits.recipe import BAD, CLOUD, EDGE, DigitsBundles, compile_quick
from model_compiler.progress import Step

# How long one example takes says more of the machine than of the rule.
settings.register_profile("foothill", deadline=None)
settings.load_profile("foothill")

_LONGEST_FIRST = ("story", "integration")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: one of them left for last would keep one worker busy and the others waiting."""
    files = [{item.path for item in items if item.get_closest_marker(mark)} for mark in _LONGEST_FIRST]
    items.sort(key=lambda item: [item.path not in each for each in files])


class Compiled(NamedTuple):
    """The digits bundles after little training, and every step that was told while they were made."""

    bundles: DigitsBundles
    steps: list[Step]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Compiled:
    base = tmp_path_factory.getbasetemp()
    directory = (base if worker_id == "master" else base.parent) / "digits"
    told = directory / "steps.json"
    with FileLock(f"{directory}.lock"):
        if not told.exists():
            _compile(directory, told)
    bundles = DigitsBundles(*(pack.read(directory / name) for name in (CLOUD, EDGE, BAD)))
    return Compiled(bundles, msgspec.json.decode(told.read_bytes(), type=list[Step]))


def _compile(directory: Path, told: Path) -> None:
    steps: list[Step] = []
    compile_quick(directory, progress=steps.append)
    told.write_bytes(msgspec.json.encode(steps))


@pytest.fixture(scope="session")
def bundles(compiled: Compiled) -> DigitsBundles:
    return compiled.bundles
