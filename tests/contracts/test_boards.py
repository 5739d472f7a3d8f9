from __future__ import annotations

import msgspec
import pytest

from contracts.boards import BOARDS, Board, Fingerprint


def test_every_board_is_listed_under_its_own_target() -> None:
    assert all(board.target == target for target, board in BOARDS.items())


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_only_accelerators_have_a_compute_capability(board: Board) -> None:
    assert (board.sm is None) == (board.family == "cpu")
    assert board.family != "jetson" or (board.arch == "aarch64" and board.memory_bytes)


def test_orin_has_no_fp8() -> None:
    assert [board.target for board in BOARDS.values() if board.sm == 87 and board.fp8] == []


def test_a_fingerprint_survives_the_wire_and_leaves_out_what_it_does_not_know() -> None:
    fingerprint = Fingerprint(
        "cpu-x86", "x86_64", "linux 6.1", 2, 1 << 30, "CPUExecutionProvider", "onnxruntime 1.23.2"
    )
    data = msgspec.msgpack.encode(fingerprint)
    assert msgspec.msgpack.decode(data, type=Fingerprint) == fingerprint
    assert b"tensorrt" not in data
