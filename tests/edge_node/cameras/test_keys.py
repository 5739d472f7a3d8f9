"""Every key of trackers and scenes is documented, with its default."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast, get_args

import msgspec
import pytest

from edge_node.cameras.config import CameraConfig
from edge_node.cameras.escalation.config import EscalationConfig
from edge_node.cameras.gate import MotionConfig
from edge_node.cameras.observers.vectors import EmbeddingConfig
from edge_node.cameras.outlets.webhook_config import WebhookConfig
from edge_node.cameras.scene import events
from edge_node.cameras.scene.config import LineConfig, MaskConfig, RuleConfig, SceneConfig, ZoneConfig
from edge_node.cameras.snapshots.config import CameraSnapshotsConfig
from edge_node.cameras.states import State
from edge_node.cameras.tracking.config import TrackerConfig
from edge_node.cameras.tracking.track import Track
from edge_node.cameras.web.routes import CameraRoutes
from edge_node.config import AloneConfig

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "tracking.md").read_text()
CAMERAS = (DOCS / "cameras.md").read_text()
TABLES: dict[str, type[msgspec.Struct]] = {
    "### Keys of a tracker": TrackerConfig,
    "### Zones": ZoneConfig,
    "### Masks": MaskConfig,
    "### Lines": LineConfig,
    "### Rules": RuleConfig,
}
_ROW = re.compile(r"^\| `([a-z_]+)` \| [^|]+ \| `?([^`|]*?)`? \|", re.MULTILINE)


OF_CAMERAS: dict[str, type[msgspec.Struct]] = {
    "## Keys of a camera": CameraConfig,
    "## The motion gate": MotionConfig,
    "## Embeddings": EmbeddingConfig,
    "## A node without a fleet": AloneConfig,
    "## What the cloud is asked": EscalationConfig,
    "## Snapshots": CameraSnapshotsConfig,
    "## Webhooks": WebhookConfig,
}


def within(heading: str, page: str = PAGE) -> str:
    return re.split(r"\n##", page.partition(f"\n{heading}\n")[2], maxsplit=1)[0]


def keys(table: type[msgspec.Struct]) -> Iterator[tuple[str, str]]:
    for field in msgspec.structs.fields(table):
        has_own = isinstance(field.default, msgspec.Struct) or field.default is msgspec.NODEFAULT
        default = {} if field.default is msgspec.NODEFAULT else field.default
        told = "see above" if has_own and default else msgspec.json.encode(default).decode()
        yield field.name, "required" if field.required else told


@pytest.mark.parametrize("heading", TABLES)
def test_every_key_is_documented_with_its_default(heading: str) -> None:
    assert dict(_ROW.findall(within(heading))) == dict(keys(TABLES[heading]))


@pytest.mark.parametrize("heading", OF_CAMERAS)
def test_every_key_of_a_camera_is_documented_with_its_default(heading: str) -> None:
    table = within(heading, CAMERAS).replace("`zones`, `masks`, `lines`, `rules` |", "`zones` |")
    expected = {name: told for name, told in keys(OF_CAMERAS[heading]) if name not in ("masks", "lines", "rules")}
    assert dict(_ROW.findall(table)) == expected


@pytest.mark.parametrize("state", get_args(State))
def test_every_state_is_told(state: str) -> None:
    assert f"\n| `{state}` |" in within("## States", CAMERAS)


def test_every_route_is_told() -> None:
    told = within("## HTTP", CAMERAS)
    routes = CameraRoutes.routes(cast(CameraRoutes, SimpleNamespace(**dict.fromkeys(dir(CameraRoutes)))))
    assert not [route for route in routes if f"`{route.method} {route.path}`" not in told]


def test_every_field_of_tracks_and_events_is_named() -> None:
    kinds = (Track, events.Entered, events.Left, events.Crossed, events.RuleBegan, events.RuleEnded)
    assert not [name for kind in kinds for name in kind.__struct_fields__ if f"`{name}`" not in PAGE]


def test_the_example_is_a_scene() -> None:
    (example,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    scene = msgspec.toml.decode(example, type=SceneConfig)
    assert (len(scene.zones), len(scene.masks), len(scene.lines), len(scene.rules)) == (1, 1, 1, 1)
