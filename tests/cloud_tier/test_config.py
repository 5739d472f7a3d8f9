from __future__ import annotations

from pathlib import Path

import pytest

from cloud_tier.config import Config
from runtime.links.process.settings import SettingsError, load
from runtime.serving.pictures.images import MAX_PIXELS


def test_the_defaults_are_a_working_cloud_tier() -> None:
    config = load(None, Config)
    assert (config.host, config.port, config.models) == ("127.0.0.1", 8090, {"digits": "digits-cloud@1"})
    assert config.max_pixels == MAX_PIXELS


def test_models_may_be_named_by_digest(tmp_path: Path) -> None:
    path = tmp_path / "cloud.toml"
    path.write_text(f'[models]\ndigits = "sha256:{"a" * 64}"\n')
    assert load(path, Config).models == {"digits": "sha256:" + "a" * 64}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[models]\ndigits = "digits"', "NAME@VERSION"),
        ('[models]\n"Bad Name" = "digits@1"', "Bad Name"),
        ('fleet_url = "fleet"', "fleet_url 'fleet' is not a URL"),
        ('target = "toaster"', "target 'toaster' is not in the board table"),
        ('name = "My Cloud"', "lower-case"),
        ('region = "Ireland!"', "region 'Ireland!' is not lower-case"),
        ("threads = 0", "threads"),
        ("max_pixels = 0", r"`int` >= 1 - at `\$.max_pixels`. Correct that value"),
        ("max_pixels = 200000001", r"`int` <= 200000000 - at `\$.max_pixels`. Correct that value"),
        ("port = 70000", "port"),
        ("thread = 1", "Did you mean `threads`"),
    ],
)
def test_a_wrong_key_is_named_with_what_to_do(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "cloud.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=says):
        load(path, Config)
