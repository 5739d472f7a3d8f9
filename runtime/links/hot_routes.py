"""Routes whose requests are so many that each microsecond counts: they take a shorter way than through aiohttp."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from aiohttp import web

from runtime.links.exchanges import Story
from runtime.links.http_framing import Head

_PARAMETER = re.compile(r"{([a-z_]+)}")


class Route(NamedTuple):
    """`pattern` as aiohttp's: each `{name}` stands for one part of the path."""

    method: str
    pattern: str
    story: Story


class Hot(NamedTuple):
    """A request's story and what its route found in the path."""

    story: Story
    params: dict[str, str]


class HotRoutes:
    """Finds the story of a request. A target with a query, or with escapes in it, is none of these."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = [(route.method, _compiled(route.pattern), route.story) for route in routes]

    def match(self, head: Head) -> Hot | None:
        for method, pattern, story in self._routes:
            found = pattern.fullmatch(head.target) if method == head.method else None
            if found is not None:
                return Hot(story, found.groupdict())
        return None


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(_PARAMETER.sub(r"(?P<\1>[A-Za-z0-9_.~:@!$&'()*+,;=\\-]+)", pattern))


HOT_ROUTES = web.AppKey("hot_routes", HotRoutes)
"""Where an application keeps them; `runtime.links.serve.start_app` looks there."""
