from __future__ import annotations

from pathlib import Path

import pytest

from fleet.config import FleetConfig
from fleet.keys import KeyFiles
from runtime.links.process.settings import SettingsError
from runtime.links.trust.key_files import find_hop_key_file, read_hop_key, read_token


def test_secrets_are_read_without_the_white_space_around_them(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("ab" * 16 + "\n")
    (tmp_path / "token").write_text("  secret\n")
    assert read_hop_key(tmp_path / "key") == b"\xab" * 16
    assert read_token(tmp_path / "token") == "secret"


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "0 bytes are too few"), (b"abcd", "2 bytes are too few"), (b"xyz", "not hexadecimal"), (b"\xff", "no text")],
)
def test_what_is_no_key_is_refused_by_the_name_of_its_setting(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(SettingsError, match=f"hop_key_file .*{says}"):
        read_hop_key(tmp_path / "key")


def test_an_empty_token_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    with pytest.raises(SettingsError, match="is empty"):
        read_token(tmp_path / "token")


def test_parts_with_defaults_find_the_key_of_the_fleet_manager_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_hop_key_file("") == ""
    key = KeyFiles(Path(FleetConfig().state_dir) / "keys").hop()
    assert read_hop_key(Path(find_hop_key_file(""))).hex() == key
    assert find_hop_key_file("own") == "own"
