"""Real bundles, compiled once a session with little training."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from model_compiler.digits.recipe import DigitsBundles, compile_quick
from model_compiler.progress import Step


class Compiled(NamedTuple):
    """The bundles, and every step that was told while they were made."""

    bundles: DigitsBundles
    steps: list[Step]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    steps: list[Step] = []
    return Compiled(compile_quick(tmp_path_factory.mktemp("bundles"), progress=steps.append), steps)


@pytest.fixture(scope="session")
def bundles(compiled: Compiled) -> DigitsBundles:
    return compiled.bundles
