"""Every key of trackers and scenes is documented, with its default."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edge_node.cameras.scene import events
from edge_node.cameras.scene.config import LineConfig, MaskConfig, RuleConfig, SceneConfig, ZoneConfig
from edge_node.cameras.tracking.config import TrackerConfig
from edge_node.cameras.tracking.track import Track

PAGE = (Path(__file__).parents[3] / "docs" / "cameras-tracking-part.md").read_text()
TABLES: dict[str, type[msgspec.Struct]] = {
    "### Keys of a tracker": TrackerConfig,
    "### Zones": ZoneConfig,
    "### Masks": MaskConfig,
    "### Lines": LineConfig,
    "### Rules": RuleConfig,
}
_ROW = re.compile(r"^\| `([a-z_]+)` \| [^|]+ \| `?([^`|]*?)`? \|", re.MULTILINE)


def within(heading: str) -> str:
    return re.split(r"\n##", PAGE.partition(f"\n{heading}\n")[2], maxsplit=1)[0]


def keys(table: type[msgspec.Struct]) -> Iterator[tuple[str, str]]:
    for field in msgspec.structs.fields(table):
        yield field.name, "required" if field.required else msgspec.json.encode(field.default).decode()


@pytest.mark.parametrize("heading", TABLES)
def test_every_key_is_documented_with_its_default(heading: str) -> None:
    assert dict(_ROW.findall(within(heading))) == dict(keys(TABLES[heading]))


def test_every_field_of_tracks_and_events_is_named() -> None:
    kinds = (Track, events.Entered, events.Left, events.Crossed, events.RuleBegan, events.RuleEnded)
    assert not [name for kind in kinds for name in kind.__struct_fields__ if f"`{name}`" not in PAGE]


def test_the_example_is_a_scene() -> None:
    (example,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    scene = msgspec.toml.decode(example, type=SceneConfig)
    assert (len(scene.zones), len(scene.masks), len(scene.lines), len(scene.rules)) == (1, 1, 1, 1)
