"""A picture that moves, for who has no camera at hand: squares on a noisy ground."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple, cast
from urllib.parse import parse_qs, urlsplit

import numpy as np

from edge_node.cameras.sources.address import Address
from edge_node.cameras.sources.shot import Still
from edge_node.cameras.sources.source import Facts
from edge_node.cameras.sources.wishes import Wishes
from runtime.serving.engines.tensors import Array
from runtime.serving.pictures.picture import Size

_SIZE = re.compile(r"(\d{2,4})x(\d{2,4})")
_NOISE = 6
_SQUARES = ((0.11, 0.07, (40, 40, 220)), (0.05, 0.13, (220, 120, 40)), (0.17, 0.03, (60, 200, 60)))
"""Widths of the picture a second, heights a second, and a colour, blue first."""


class Asked(NamedTuple):
    """What a pattern is to look like."""

    size: Size
    fps: int


def asked(url: str) -> Asked:
    """`pattern:?size=640x480&fps=10`. Raises ValueError for any other question."""
    told = {name: values[-1] for name, values in parse_qs(urlsplit(url).query).items()}
    size = _SIZE.fullmatch(told.pop("size", "640x480"))
    fps = told.pop("fps", "10")
    if told or size is None or not fps.isdecimal() or not 1 <= int(fps) <= 100:
        raise ValueError(f"{url[:200]!r}: write pattern:?size=640x480&fps=10, with 1 to 100 pictures a second.")
    return Asked(Size(int(size[1]), int(size[2])), int(fps))


class Pattern:
    """Raises ValueError as `asked` does."""

    def __init__(self, address: Address, wishes: Wishes) -> None:
        (self._width, self._height), fps = asked(address.url)
        self._between_s = 1.0 / fps
        self._waits = wishes.pace == "realtime"
        noise = np.random.default_rng(1).integers(0, _NOISE, (self._height + 64, self._width + 64, 3), np.uint8)
        self._ground = noise + np.uint8(90)
        self._rng = random.Random(1)
        self.received_bytes = 0

    @property
    def facts(self) -> Facts:
        return Facts("pattern")

    def shots(self, stopped: threading.Event) -> Iterator[Still]:
        began_s, number = time.time(), 0
        while not stopped.is_set():
            at_s = began_s + number * self._between_s
            if self._waits and stopped.wait(max(0.0, at_s - time.time())):
                return
            number += 1
            yield Still(self._drawn(at_s - began_s), at_s, number)

    def close(self) -> None:
        pass

    def _drawn(self, passed_s: float) -> Array:
        """The same noise, moved: a camera's picture is never the same twice."""
        down, across = self._rng.randrange(64), self._rng.randrange(64)
        picture = self._ground[down : down + self._height, across : across + self._width].copy()
        side = max(8, self._height // 8)
        for x_per_s, y_per_s, colour in _SQUARES:
            left = _bounced(passed_s * x_per_s, self._width - side)
            top = _bounced(passed_s * y_per_s, self._height - side)
            picture[top : top + side, left : left + side] = colour
        return cast(Array, picture)


def _bounced(way: float, room: int) -> int:
    """There and back again, for ever."""
    return round((1.0 - abs(way % 2.0 - 1.0)) * room)
