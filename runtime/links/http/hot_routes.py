"""Routes whose requests are so many that each microsecond counts: they take a shorter way than through aiohttp."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from aiohttp import web

from runtime.links.http.exchanges import Known, Outgoing, Story
from runtime.links.http.framing import Head

_PARAMETER = re.compile(r"{([a-z_]+)}")


Start = Callable[[bytes, str, Callable[[Outgoing], None]], Callable[[], None] | None]
"""Answers a request whose whole body is there, under that request id, without a task of its own: calls back once with
the answer, at once or later. It returns what gives the request up, after which nobody is called; or None, and leaves it
to the story."""

Prepare = Callable[[Known], Start | None]
"""What is done once for all requests whose heads are in the very same bytes; None leaves them to the story."""


def _unprepared(_: Known) -> None:
    """For routes that have a story alone."""


class Route(NamedTuple):
    """`pattern` as aiohttp's: each `{name}` stands for one part of the path."""

    method: str
    pattern: str
    story: Story
    prepare: Prepare = _unprepared


class Hot(NamedTuple):
    """A request's route and what it found in the path."""

    route: Route
    params: dict[str, str]


class HotRoutes:
    """Finds the story of a request. A target with a query, or with escapes in it, is none of these."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = [(_compiled(route.pattern), route) for route in routes]

    def match(self, head: Head) -> Hot | None:
        for pattern, route in self._routes:
            found = pattern.fullmatch(head.target) if route.method == head.method else None
            if found is not None:
                return Hot(route, found.groupdict())
        return None


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(_PARAMETER.sub(r"(?P<\1>[A-Za-z0-9_.~:@!$&'()*+,;=\\-]+)", pattern))


HOT_ROUTES = web.AppKey("hot_routes", HotRoutes)
"""Where an application keeps them; `runtime.links.http.serve.start_app` looks there."""
