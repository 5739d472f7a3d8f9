"""The checks of one run as tests: `pytest hil --board NAME --fleet URL`."""

from __future__ import annotations

import pytest

from contracts.acceptance import CHECKS, Acceptance

# One run serves all tests: the first of them takes as long as the whole suite.
pytestmark = pytest.mark.timeout(0)


@pytest.mark.parametrize("name", CHECKS)
def test_board(acceptance: Acceptance, name: str) -> None:
    made = [check for check in acceptance.checks if check.name == name]
    failed = [f"{check.model or 'node'}: {check.detail}" for check in made if check.outcome == "failed"]
    if failed:
        pytest.fail("\n".join(failed), pytrace=False)
    skipped = [check.detail for check in made if check.outcome == "skipped"]
    if skipped:
        pytest.skip("; ".join(skipped))
    assert made, "the suite was interrupted before this check"
