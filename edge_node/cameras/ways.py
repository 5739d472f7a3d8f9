"""What all cameras of a node have in common."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import NamedTuple

from edge_node.cameras.escalation.amending import Amending
from edge_node.cameras.escalation.asks import Asks
from edge_node.cameras.escalation.permission import Permission
from edge_node.cameras.feed import Feed
from edge_node.cameras.snapshots.taking import Snapshots
from edge_node.pipelines import Pipelines


class Ways(NamedTuple):
    """`workers` run what takes long; `event_id` names a new event of a camera; `base` is where relative paths begin."""

    pipelines: Pipelines
    feed: Feed
    amending: Amending
    workers: Executor
    event_id: Callable[[str], str]
    snapshots: Snapshots
    asks: Asks
    permission: Permission
    base: Path = Path()
