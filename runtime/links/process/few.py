"""What is made once and used again, as long as there are few of it."""

from __future__ import annotations

from typing import Generic, TypeVar

MOST = 64

K = TypeVar("K")
V = TypeVar("V")


class Few(Generic[K, V]):
    """Up to MOST things by their keys. Who makes up keys makes all of them be made again, and nothing worse."""

    def __init__(self) -> None:
        self._known: dict[K, V] = {}
        self.get = self._known.get

    def put(self, key: K, value: V) -> V:
        if len(self._known) >= MOST:
            self._known.clear()
        self._known[key] = value
        return value
