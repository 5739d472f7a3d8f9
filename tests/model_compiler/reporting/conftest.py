"""What these tests share: the two reports, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_compiler.reporting.report import write_report
from tests.model_compiler.reporting.example import bare, full


@pytest.fixture(scope="session")
def full_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(full(), tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="session")
def bare_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(bare(), tmp_path_factory.mktemp("bare"))
