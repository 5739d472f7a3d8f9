"""Routes whose requests are so many that each microsecond counts: they take a shorter way than through aiohttp."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import msgspec
from aiohttp import web

from runtime.links.access.grants import Grant
from runtime.links.http.exchanges import Body, Known, Outgoing, Story, Varied
from runtime.links.http.heads import Alike

_PARAMETER = re.compile(r"{([a-z_]+)}")

Done = Callable[[Outgoing], None]
"""Gets the answer, once."""
GiveUp = Callable[[], None]
"""The caller is gone. Nobody is called any more."""


class Turn(msgspec.Struct):
    """One request's turn on its connection: what is its own of its head, and who gets its answer. `grant` is what its
    caller may do, once somebody has asked."""

    request_id: str
    varied: Varied
    done: Done
    grant: Grant | None = None


class Coming(Protocol):
    """A request of which the head is here, and whose body comes."""

    @property
    def waited_s(self) -> float:
        """For so long already."""
        ...

    def start(self, body: Body, turn: Turn) -> GiveUp | None:
        """All of it is here: as `Shortcut.start`."""
        ...

    def give_up(self) -> None: ...


class Shortcut(Protocol):
    """What was prepared once for all requests whose heads are alike: they are answered without tasks of their own. All
    that returns None, and has not called `done`, leaves the request to the story."""

    def start(self, body: Body, turn: Turn) -> GiveUp | None:
        """Answers a request whose whole body is here, at once or later."""
        ...

    def expect(self, peek: Callable[[int], bytes], body_bytes: int, turn: Turn) -> Coming | None:
        """A request whose body, of `body_bytes`, comes: `peek` shows what is here of it. It may be refused now."""
        ...


Prepare = Callable[[Known], Shortcut | None]


def _unprepared(_: Known) -> None:
    """For routes that have a story alone."""


class Route(NamedTuple):
    """`pattern` as aiohttp's: each `{name}` stands for one part of the path. One that `relays` bodies may get them as
    parts of other bytes, which need not be aligned to anything."""

    method: str
    pattern: str
    story: Story
    prepare: Prepare = _unprepared
    relays: bool = False


class Hot(NamedTuple):
    """A request's route and what it found in the path."""

    route: Route
    params: dict[str, str]


class HotRoutes:
    """Finds the story of a request. A target with a query, or with escapes in it, is none of these."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = [(_compiled(route.pattern), route) for route in routes]

    def match(self, head: Alike) -> Hot | None:
        for pattern, route in self._routes:
            found = pattern.fullmatch(head.target) if route.method == head.method else None
            if found is not None:
                return Hot(route, found.groupdict())
        return None


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(_PARAMETER.sub(r"(?P<\1>[A-Za-z0-9_.~:@!$&'()*+,;=\\-]+)", pattern))


HOT_ROUTES = web.AppKey("hot_routes", HotRoutes)
"""Where an application keeps them; `runtime.links.http.serve.start_app` looks there."""
