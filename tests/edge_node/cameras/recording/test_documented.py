"""What the documentation says of recording is what the code has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_node.cameras.privacy import PrivacyConfig
from edge_node.cameras.recording.clip import Clip
from edge_node.cameras.recording.config import CameraRecordingConfig, RecordingConfig
from edge_node.cameras.recording.metrics import DROP_REASONS
from edge_node.config import Config

DOCS = Path(__file__).parents[4] / "docs"
PAGES = (DOCS / "cameras.md", DOCS / "recording.md")
TEXT = "\n".join(page.read_text() for page in PAGES if page.exists())
_ROW = re.compile(r"^\| (?P<names>`[a-z_`, -]+`) \| (?P<rest>.*) \|$", re.MULTILINE)


def rows(heading: str) -> dict[str, list[str]]:
    """The cells behind each name, in the tables below a heading."""
    below = TEXT.partition(f"# {heading}\n")[2]
    until = re.search(r"^#", below, re.MULTILINE)
    found = _ROW.finditer(below[: until.start()] if until else below)
    return {
        name: [cell.strip() for cell in row["rest"].split("|")]
        for row in found
        for name in re.findall(r"`([^`]+)`", row["names"])
    }


@pytest.mark.parametrize(("heading", "kind"), [("Keys", RecordingConfig), ("What pictures may show", PrivacyConfig)])
def test_every_key_is_documented_with_its_default(heading: str, kind: type[Any]) -> None:
    told = {name: cells[1] for name, cells in rows(heading).items() if len(cells) == 3}
    defaults = {name: list(value) if isinstance(value, tuple) else value for name, value in _fields(kind()).items()}
    assert told == {name: f"`{msgspec.json.encode(value).decode()}`" for name, value in defaults.items()}


def _fields(config: msgspec.Struct) -> dict[str, Any]:
    return {field: getattr(config, field) for field in config.__struct_fields__}


def test_every_key_of_a_camera_is_documented() -> None:
    told = {name for name, cells in rows("Keys of one camera").items() if len(cells) == 2}
    assert told == set(CameraRecordingConfig.__struct_fields__)


def test_every_reason_is_documented() -> None:
    assert set(rows("When the disk is full, or fails")) == set(DROP_REASONS)


def test_the_text_beside_a_clip_is_shown_as_it_is() -> None:
    shown = re.search(r"```json\n(\{\n \"camera\".*?\n\})", TEXT, re.DOTALL)
    assert shown is not None
    clip = msgspec.json.decode(shown[1], type=Clip)
    assert msgspec.json.decode(shown[1]) == msgspec.to_builtins(clip, builtin_types=()) | {"events": list(clip.events)}


def test_the_tables_that_are_shown_are_taken() -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", (DOCS / "recording.md").read_text(), re.DOTALL)
    config = msgspec.convert(msgspec.toml.decode(shown), Config)
    assert (config.recording.on, config.cameras[0].recording.events) == (True, ("rule",))
