"""The configuration: what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.config import Config
from runtime.links.process.settings import SettingsError, load


def loaded(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "router.toml"
    path.write_text(text)
    return load(path, Config)


def test_the_defaults_fit_the_defaults_of_the_other_parts() -> None:
    config = Config()
    assert (config.port, config.cloud_urls, config.fleet_url, config.broker_url) == (
        8080,
        ("http://127.0.0.1:8090",),
        "http://127.0.0.1:8070",
        "mqtt://127.0.0.1:1883",
    )


def test_a_whole_file_loads(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        """
        port = 0
        broker_url = ""
        cloud_urls = ["https://cloud.example:8090"]
        cloud_region = "eu-west"
        trusted_proxies = ["127.0.0.0/8"]
        place = { lat = 53.35, lon = -6.26 }
        [connect_to]
        "http://edge-fra:8100" = "http://127.0.0.1:9001"
        [[nodes]]
        name = "edge-fra"
        url = "http://edge-fra:8100"
        region = "eu-central"
        lat = 50.1
        lon = 8.7
        models = ["digits"]
        """,
    )
    assert config.nodes[0].models == ("digits",)
    assert config.place is not None
    assert config.connect_to == {"http://edge-fra:8100": "http://127.0.0.1:9001"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("audit_rate = 2", "$.audit_rate"),
        ("port = 70000", "$.port"),
        ("default_deadline_ms = 0", "$.default_deadline_ms"),
        ("cloud_urls = ['cloud:8090']", "write http://HOST:PORT"),
        ("broker_url = 'localhost'", "write mqtt://HOST:PORT"),
        ("place = { lat = 91, lon = 0 }", "latitude"),
        ("name = 'Router 1'", "lower-case"),
        ("[[nodes]]\nname = 'a'\nurl = 'x'\nregion = 'r'\nlat = 0\nlon = 0\nmodels = []", "$.nodes[0]"),
    ],
)
def test_a_value_that_cannot_work_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(SettingsError) as raised:
        loaded(tmp_path, text)
    assert told in str(raised.value)
    assert "router.toml" in str(raised.value)
