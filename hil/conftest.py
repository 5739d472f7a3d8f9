"""`pytest hil --board NAME …`: the acceptance suite as tests, one for each check; without a board there are none."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from contracts.acceptance import Acceptance
from hil.keys import read_private
from hil.opening import Opened, Options, examine, opened, skipped
from hil.page import page_of
from hil.plan import Plan
from runtime.links.bundles.acceptance_reports import seal
from runtime.links.process.durable import write_file
from runtime.links.process.settings import SettingsError

_WHAT = pytest.StashKey[Opened]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hil", "acceptance of a board, as `foothill hil run`")
    group.addoption("--board", default="", help="the board's name: its entry in the file of --boards")
    group.addoption("--boards", type=Path, help="file of the boards' entries; default: boards.toml here")
    group.addoption("--node", default="", help="URL of the node; before the entry's")
    group.addoption("--node-admin-token", type=Path, help="file with the node's admin token")
    group.addoption("--node-token", type=Path, help="file with the token that callers of models show")
    group.addoption("--fleet", default="", help="URL of the fleet manager; the whole suite needs it")
    group.addoption("--fleet-token", type=Path, help="file with its admin token")
    group.addoption("--soak-s", type=float, default=300.0, help="seconds of the soak")
    group.addoption("--step-s", type=float, default=5.0, help="seconds of each step of the curve")
    group.addoption("--only-checks", default="", help="make these checks only, separated by commas")
    group.addoption("--skip-checks", default="", help="leave these checks out")
    group.addoption("--hil-report", type=Path, help="write the report here as JSON, and beside it as HTML")
    group.addoption("--hil-key", type=Path, help="sign the report with this private key")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """In this process alone: a worker that is ended could not put the node back."""
    if config.option.board or config.option.node:
        config.option.numprocesses, config.option.dist, config.option.tx = 0, "no", []


def pytest_configure(config: pytest.Config) -> None:
    """What is wrong with the options is told before anything runs."""
    if config.option.board or config.option.node:
        try:
            config.stash[_WHAT] = opened(_options(config))
        except SettingsError as error:
            raise pytest.UsageError(str(error)) from error


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Without a board this is no test: there is nothing to look at."""
    return True if collection_path.parent == Path(__file__).parent and _WHAT not in config.stash else None


@pytest.fixture(scope="session")
def acceptance(pytestconfig: pytest.Config) -> Acceptance:
    """One run of the suite, for all tests."""
    found = asyncio.run(examine(pytestconfig.stash[_WHAT], lambda line: None, lambda check: None))
    report, key = pytestconfig.option.hil_report, pytestconfig.option.hil_key
    if report is not None:
        data = seal(found, read_private(key) if key is not None else None)
        write_file(report, data)
        write_file(report.with_suffix(".html"), page_of(data).encode())
    return found


def _options(config: pytest.Config) -> Options:
    given = config.option
    if given.hil_key is not None:
        read_private(given.hil_key)
    skip = skipped(given.only_checks, given.skip_checks)
    return Options(
        board=given.board,
        boards=given.boards,
        node=given.node,
        admin_token=given.node_admin_token,
        token=given.node_token,
        fleet=given.fleet,
        fleet_token=given.fleet_token,
        plan=Plan(soak_s=given.soak_s, step_s=given.step_s, skip=skip),
    )
