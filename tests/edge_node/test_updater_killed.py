"""SIGKILL at random moments of real updates: afterwards the node has the old state or the new one, nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.edge_node.kills import kill_many

pytestmark = pytest.mark.integration

KILLS = 20


async def test_killed_at_any_moment_the_node_is_old_or_new(tmp_path: Path) -> None:
    """A handful; `make kills` kills five hundred."""
    killed = await kill_many(tmp_path, KILLS, seed=0)
    assert killed.wrong == []
    assert killed.seen > 1, "the kills hit several versions"
