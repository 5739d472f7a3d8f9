"""Configuration files: what loads, and what the errors tell their reader to do."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from runtime.links.process.settings import SettingsError, load


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    lat: float = 0.0


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    host: str = "127.0.0.1"
    port: int = 8080
    place: Place = Place()


def written(path: Path, text: str) -> Path:
    file = path / "router.toml"
    file.write_text(text)
    return file


def test_without_a_file_the_defaults_hold() -> None:
    assert load(None, Config) == Config()


def test_a_file_overrides_the_defaults(tmp_path: Path) -> None:
    assert load(written(tmp_path, "port = 9\n[place]\nlat = 1.5\n"), Config) == Config(port=9, place=Place(lat=1.5))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prot = 1", ["`prot`", "Did you mean `port`?"]),
        ("zebra = 1", ["`zebra`", "docs/config.md"]),
        ("[place]\nlatt = 1", ["`latt`", "`place`"]),
        ("port = 'x'", ["Expected `int`", "$.port"]),
        ("[place]\nlat = 'x'", ["$.place.lat"]),
        ("port = = 1", ["not TOML", "line 1"]),
    ],
)
def test_a_wrong_file_is_named_with_its_key_and_a_way_out(tmp_path: Path, text: str, told: list[str]) -> None:
    file = written(tmp_path, text)
    with pytest.raises(SettingsError) as raised:
        load(file, Config)
    assert all(part in str(raised.value) for part in [str(file), *told])


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml: cannot be read \(No such file"):
        load(tmp_path / "absent.toml", Config)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    file = tmp_path / "router.toml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="not TOML"):
        load(file, Config)
