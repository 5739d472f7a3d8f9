"""What `edge.toml` may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_node.config import Config
from runtime.links.process.settings import SettingsError, load
from runtime.serving.pictures.images import MAX_PIXELS


def test_pictures_are_bounded_as_everywhere_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text("max_pixels = 2000000")
    assert (load(None, Config).max_pixels, load(path, Config).max_pixels) == (MAX_PIXELS, 2_000_000)


@pytest.mark.parametrize(("pixels", "says"), [(0, "`int` >= 1"), (200_000_001, "`int` <= 200000000")])
def test_a_bound_beyond_reason_is_refused(tmp_path: Path, pixels: int, says: str) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(f"max_pixels = {pixels}")
    with pytest.raises(SettingsError, match=rf"{says} - at `\$.max_pixels`. Correct that value"):
        load(path, Config)
