"""The demo's folder: never somebody else's."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from foothill.demo.folder import state_folder
from foothill.site import MachineError


def test_a_folder_with_other_things_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(MachineError, match="no demo made it"), state_folder(tmp_path, Console()):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_what_an_earlier_demo_left_is_emptied(tmp_path: Path) -> None:
    wanted = tmp_path / "demo"
    with state_folder(wanted, Console()) as folder:
        (folder / "old").touch()
    with state_folder(wanted, Console()) as folder:
        assert not (folder / "old").exists()
    assert wanted.is_dir()


def test_a_temporary_folder_goes_when_all_went_well() -> None:
    with state_folder(None, Console()) as folder:
        (folder / "logs").mkdir()
    assert not folder.exists()


def test_a_temporary_folder_stays_and_is_named_after_a_failure() -> None:
    said = io.StringIO()
    with pytest.raises(RuntimeError), state_folder(None, Console(file=said)) as folder:
        raise RuntimeError
    assert str(folder) in said.getvalue()
    folder.rmdir()


def test_a_temporary_folder_goes_on_ctrl_c() -> None:
    with pytest.raises(KeyboardInterrupt), state_folder(None, Console()) as folder:
        raise KeyboardInterrupt
    assert not folder.exists()
