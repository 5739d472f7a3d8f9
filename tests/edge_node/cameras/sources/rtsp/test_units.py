"""Every unit of every picture comes out of the packets that it was put into, and nothing that is not whole."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.cameras.sources.rtsp.rtp import Order, packet_of
from edge_node.cameras.sources.rtsp.units import Assembly, Encoded
from tests.edge_node.cameras.sources.rtsp.packets import annex_b, fragments, packets, rtp

SPS, PPS, SEI, KEY, SLICE = (bytes((0x60 | kind,)) for kind in (7, 8, 6, 5, 1))
RECOVERY = bytes((0x66, 6, 1, 0xC4, 0x80))
VPS, SPS5, PPS5, KEY5, SLICE5 = (bytes((kind << 1, 1)) for kind in (32, 33, 34, 19, 1))

bodies = st.binary(min_size=2, max_size=4000)


def pictures_of(head: bytes) -> st.SearchStrategy[list[list[bytes]]]:
    """Each of one to three slices."""
    picture = st.lists(bodies.map(lambda body: head + body), min_size=1, max_size=3)
    return st.lists(picture, min_size=1, max_size=6)


def assembled(
    sent: Sequence[bytes], codec: str = "h264", sets: bytes = b"", patience: int = 0
) -> tuple[list[Encoded], int]:
    """What comes of packets, and how much of them was corrupt."""
    assembly = Assembly("hevc" if codec == "hevc" else "h264", sets)
    order, came = Order(patience), []
    for data in sent:
        packet = packet_of(data)
        assert packet is not None
        for due, missing in order.put(packet, 0.0):
            came += assembly.put(due, missing)
    return came, assembly.corrupt


@given(pictures_of(SLICE), st.integers(20, 1500), st.integers(0, 65535))
def test_pictures_of_h264_come_out_as_they_went_in(pictures: list[list[bytes]], size: int, first: int) -> None:
    came, corrupt = assembled(list(packets(pictures, size=size, first=first)))
    assert [each.data for each in came] == [annex_b(units) for units in pictures]
    assert corrupt == 0


@given(pictures_of(SLICE5), st.integers(20, 1500))
def test_pictures_of_h265_come_out_as_they_went_in(pictures: list[list[bytes]], size: int) -> None:
    came, corrupt = assembled(list(packets(pictures, size=size, hevc=True)), "hevc")
    assert [each.data for each in came] == [annex_b(units) for units in pictures]
    assert corrupt == 0


@given(pictures_of(SLICE), st.data())
def test_a_missing_packet_costs_its_unit_and_no_other(pictures: list[list[bytes]], data: st.DataObject) -> None:
    sent = list(packets(pictures, size=300))
    missing = data.draw(st.integers(0, len(sent) - 1))
    came, corrupt = assembled(sent[:missing] + sent[missing + 1 :])
    whole = {unit for units in pictures for unit in units}
    pieces = [unit for each in came for unit in each.data.split(b"\0\0\0\1")[1:]]
    # Bodies may hold start codes of their own: such a picture is compared as a whole.
    if not any(b"\0\0\0\1" in unit or unit.startswith(b"\0") or unit.endswith(b"\0") for unit in whole):
        assert set(pieces) <= whole
    assert corrupt == (0 < missing < len(sent) - 1)


@given(st.permutations(range(12)))
def test_packets_that_overtake_each_other_are_put_in_order(way: list[int]) -> None:
    sent = list(packets([[SLICE + bytes(20)] for _ in range(12)]))
    first = rtp(SEI + b"\xff", 65535, 0)
    shuffled = [packet_of(data) for data in (first, *(sent[at] for at in way))]
    order, came = Order(32), []
    for packet in shuffled:
        assert packet is not None
        came += [due.number for due, missing in order.put(packet, 0.0) if not missing]
    assert came == [65535, *range(12)]
    assert order.lost == 0


def test_what_is_late_is_waited_for_no_longer_than_its_patience() -> None:
    sent = [packet_of(data) for data in packets([[SLICE + bytes(20)] for _ in range(9)])]
    order = Order(3)
    told: list[tuple[int, bool]] = []
    for packet in (sent[at] for at in (0, 2, 3, 4, 5, 1, 6)):
        assert packet is not None
        told += [(due.number, missing) for due, missing in order.put(packet, 0.0)]
    assert told == [(0, False), (2, True), (3, False), (4, False), (5, False), (6, False)]
    assert order.lost == 1


def test_nor_longer_than_a_moment() -> None:
    sent = [packet_of(data) for data in packets([[SLICE + bytes(20)] for _ in range(4)])]
    order = Order(32)
    told: list[int] = []
    for at, now_s in ((0, 0.0), (2, 0.1), (3, 0.2)):
        packet = sent[at]
        assert packet is not None
        told += [due.number for due, _ in order.put(packet, now_s)]
    assert told == [0, 2, 3]


def test_a_camera_that_counts_anew_is_followed() -> None:
    order = Order(3)
    told: list[tuple[int, bool]] = []
    for number in (5, 6, 40_000, 40_001):
        packet = packet_of(rtp(SLICE + b"\1\2", number, 0))
        assert packet is not None
        told += [(due.number, missing) for due, missing in order.put(packet, 0.0)]
    assert told == [(5, False), (6, False), (40_000, True), (40_001, False)]


def test_a_picture_is_there_with_its_marked_packet_and_not_one_later() -> None:
    assembly = Assembly("h264", b"")
    marked = packet_of(rtp(SLICE + b"\1\2", 1, 100, marker=True))
    plain = packet_of(rtp(SLICE + b"\1\2", 2, 200))
    later = packet_of(rtp(SLICE + b"\1\2", 3, 300))
    assert marked is not None
    assert plain is not None
    assert later is not None
    assert [each.ticks for each in assembly.put(marked, False)] == [100]
    assert assembly.put(plain, False) == []
    assert [each.ticks for each in assembly.put(later, False)] == [200]


def test_who_marks_every_packet_is_not_believed_again() -> None:
    slices = [
        rtp(SLICE + bytes((picture, part, 1)), 2 * picture + part, picture, marker=True)
        for picture in range(5)
        for part in range(2)
    ]
    came, _ = assembled([*slices, rtp(SLICE + b"\1\2", 10, 5)])
    whole = [each for each in came if len(each.data) == 2 * (4 + 4)]
    assert [each.ticks for each in whole] == [1, 2, 3, 4]


def test_a_marked_parameter_set_goes_with_its_picture() -> None:
    came, _ = assembled(
        [
            rtp(SPS + b"\1\2", 0, 9, marker=True),
            rtp(PPS + b"\3", 1, 9, marker=True),
            rtp(KEY + b"\4", 2, 9, marker=True),
        ]
    )
    assert [(each.data, each.key, each.sets) for each in came] == [
        (annex_b([SPS + b"\1\2", PPS + b"\3", KEY + b"\4"]), True, True)
    ]


@pytest.mark.parametrize(
    ("codec", "units", "key", "sets"),
    [
        ("h264", [SPS, PPS, KEY], True, True),
        ("h264", [KEY], True, False),
        ("h264", [SLICE], False, False),
        ("h264", [RECOVERY, SLICE], True, False),
        ("h264", [SEI + bytes((5, 2, 1, 1)), SLICE], False, False),
        ("hevc", [VPS, SPS5, PPS5, KEY5], True, True),
        ("hevc", [SLICE5], False, False),
    ],
)
def test_where_a_decoder_can_begin_is_seen(codec: str, units: list[bytes], key: bool, sets: bool) -> None:
    filled = [unit if len(unit) > 2 else unit + b"\x11\x22" for unit in units]
    came, corrupt = assembled(list(packets([filled], hevc=codec == "hevc")), codec)
    assert [(each.key, each.sets) for each in came] == [(key, sets)]
    assert corrupt == 0


def test_sets_that_only_the_description_tells_are_put_before_the_key() -> None:
    told = annex_b([SPS + b"\1", PPS + b"\2"])
    came, _ = assembled(list(packets([[KEY + b"\3\4"], [SLICE + b"\5\6"]])), sets=told)
    assert [each.data for each in came] == [told + annex_b([KEY + b"\3\4"]), annex_b([SLICE + b"\5\6"])]


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@given(st.lists(st.binary(max_size=60), max_size=40))
def test_noise_is_counted_and_breaks_nothing(codec: str, noise: list[bytes]) -> None:
    head, hevc = (SLICE5, True) if codec == "hevc" else (SLICE, False)
    sent = [rtp(payload, at, at, marker=bool(at % 3)) for at, payload in enumerate(noise)]
    sent += list(packets([[head + bytes((1, 2, 3))]], hevc=hevc, first=len(noise)))
    sent[-1] = rtp(sent[-1][12:], len(noise), 1 << 20, marker=True)
    came, _ = assembled(sent, codec)
    assert came[-1].data.endswith(annex_b([head + bytes((1, 2, 3))]))


@given(st.binary(max_size=40))
def test_what_is_no_packet_is_none(data: bytes) -> None:
    packet = packet_of(data)
    assert packet is None or len(packet.payload) <= len(data) - 12


def test_extensions_sources_and_padding_are_left_out() -> None:
    plain = rtp(b"", 7, 8)
    dressed = (
        bytes((0x80 | 0x20 | 0x10 | 2,)) + plain[1:] + bytes(8) + b"\xbe\xde\0\1" + bytes(4) + b"payload" + b"\0\0\3"
    )
    packet = packet_of(dressed)
    assert packet is not None
    assert packet.payload == b"payload"


def test_a_fragment_without_its_beginning_is_left_out() -> None:
    unit = SLICE + bytes(range(200))
    tail = list(fragments(unit, 50))[1:]
    sent = [rtp(payload, at, 0, marker=at == len(tail) - 1) for at, payload in enumerate(tail)]
    assert assembled(sent) == ([], 0)
