"""Two nodes that are given one directory for their clips."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.errors import FoothillError
from edge_node.cameras.recording.config import RecordingConfig
from edge_node.cameras.recording.library import Library
from edge_node.cameras.recording.shelf import WRITING, Shelf
from edge_node.cameras.recording.tenure import Tenure

OTHER = """
import sys
from pathlib import Path
from contracts.errors import FoothillError
from edge_node.cameras.recording.config import RecordingConfig
from edge_node.cameras.recording.shelf import Shelf
from edge_node.cameras.recording.tenure import Tenure
tenure = Tenure()
shelf = Shelf(Path(sys.argv[1]), RecordingConfig(), {}, hold=tenure.take)
shelf.load()
shelf.begin("yard").write(b"half a clip")
print("there", flush=True)
sys.stdin.read()
"""


def test_the_second_writes_and_clears_nothing_until_the_first_is_gone(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"there\n"
        tenure = Tenure()
        shelf = Shelf(tmp_path, RecordingConfig(), {}, hold=tenure.take)
        for refused in (shelf.load, lambda: shelf.begin("yard")):
            with pytest.raises(OSError, match="another node has its clips") as busy:
                refused()
            assert busy.value.errno == errno.EBUSY
        with pytest.raises(FoothillError, match="another node"):
            Library(shelf).list()
        assert [left.name for left in (tmp_path / WRITING).iterdir()] == ["yard-0.mp4"]
        other.kill()
        other.wait()
        shelf.load()
        assert list((tmp_path / WRITING).iterdir()) == []
        part = shelf.begin("yard")
        part.write(b"a clip")
        shelf.abandon(part)
