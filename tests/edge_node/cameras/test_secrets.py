"""The API's cameras have the passwords that were laid out for them, and no other secret of the box."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import FoothillError
from edge_node.cameras.config import CameraConfig
from edge_node.cameras.secrets import check_lent


def camera(**keys: str) -> CameraConfig:
    return CameraConfig("door", "rtsp://10.0.0.2/live", user="admin", **keys)  # type: ignore[arg-type]


def test_what_was_laid_out_may_be_named(tmp_path: Path) -> None:
    check_lent(camera(), tmp_path)
    check_lent(camera(password_env="CAMERA_DOOR"), tmp_path)
    check_lent(camera(password_file=str(tmp_path / "secrets" / "door")), tmp_path)
    check_lent(camera(password_file=str(tmp_path / "secrets" / "site" / "door")), tmp_path)


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "PATH", "camera_door"])
def test_no_other_variable_may(tmp_path: Path, name: str) -> None:
    with pytest.raises(FoothillError, match="begins with CAMERA_"):
        check_lent(camera(password_env=name), tmp_path)


@pytest.mark.parametrize("path", ["/etc/shadow", "secrets/../hop.key", "../secrets/door", "secretsdoor"])
def test_no_other_file_may(tmp_path: Path, path: str) -> None:
    state = tmp_path / "state"
    with pytest.raises(FoothillError, match="names a file in"):
        check_lent(camera(password_file=str(state / path)), state)


def test_a_link_out_of_there_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "door").symlink_to("/etc/passwd")
    with pytest.raises(FoothillError, match="names a file in"):
        check_lent(camera(password_file=str(tmp_path / "secrets" / "door")), tmp_path)
