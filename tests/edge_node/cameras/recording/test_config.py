"""The two tables of recording, and what they make together."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from edge_node.cameras.recording.config import CameraRecordingConfig, RecordingConfig, limits_of


def test_recording_is_off_unless_somebody_wants_it() -> None:
    assert not limits_of(RecordingConfig(), CameraRecordingConfig()).on
    assert limits_of(RecordingConfig(), CameraRecordingConfig(on=True)).on
    assert not limits_of(RecordingConfig(on=True), CameraRecordingConfig(on=False)).on


def test_a_camera_overrides_what_it_sets_and_nothing_else() -> None:
    limits = limits_of(RecordingConfig(pre_s=3.0), CameraRecordingConfig(post_s=0.0, keep_days=2.0))
    assert (limits.pre_s, limits.post_s, limits.keep_days, limits.keep_bytes) == (3.0, 0.0, 2.0, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pre_s": -1},
        {"pre_s": 601},
        {"pre_s": 100, "post_s": 100},
        {"longest_s": 0},
        {"ring_bytes": 1000},
        {"keep_days": 0},
        {"keep_bytes": 1},
        {"reserve_bytes": -1},
        {"pre": 1},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, RecordingConfig)


def test_tables_that_make_no_sense_together_are_refused() -> None:
    with pytest.raises(ValueError, match="raise longest_s"):
        limits_of(RecordingConfig(longest_s=20.0), CameraRecordingConfig(pre_s=15.0))
