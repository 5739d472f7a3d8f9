"""One server under test over HTTP: bounded bodies, a deadline on every request, its failures in its own words."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from contracts.deadlines import Deadline
from contracts.decoding import UNREADABLE
from contracts.errors import KINDS, ErrorBody, FoothillError
from runtime.links.http.upstream import Answer, Request, Upstreams, UpstreamUnreachable

T = TypeVar("T")

_SAID = 300


class HttpPort:
    """`name` is how failures call the server; `token` goes along where `admin` is asked for."""

    def __init__(self, url: str, upstreams: Upstreams, *, name: str, token: str = "", timeout_s: float = 30.0) -> None:
        self.url = url.rstrip("/")
        self.token = token
        self._upstreams = upstreams
        self._name = name
        self._timeout_s = timeout_s

    async def send(self, request: Request, *, timeout_s: float | None = None) -> Answer:
        """Any answer. Raises UpstreamUnreachable, or FoothillError `deadline_exceeded` or `upstream_failed`."""
        deadline = Deadline.after((timeout_s or self._timeout_s) * 1000.0, now_s=time.monotonic())
        return await self._upstreams.send(self.url, request, deadline=deadline)

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        admin: bool = False,
        timeout_s: float | None = None,
    ) -> Answer:
        """A success. Raises FoothillError with the server's own words for any other answer, and for none.

        The token goes along wherever there is one: a node may ask everybody who calls.
        """
        given = {**(headers or {}), **({"Authorization": f"Bearer {self.token}"} if admin or self.token else {})}
        try:
            answer = await self.send(Request(method, path, given, body), timeout_s=timeout_s)
        except UpstreamUnreachable as error:
            raise FoothillError("unavailable", f"{self._name}: {error}.") from error
        if answer.status not in (200, 201):
            raise self._refused(method, path, answer)
        return answer

    async def read(self, path: str, kind: type[T], *, admin: bool = False) -> T:
        return self.decoded((await self.ask("GET", path, admin=admin)).body, kind, path)

    def decoded(self, data: bytes, kind: type[T], path: str) -> T:
        try:
            return msgspec.json.decode(data, type=kind)
        except UNREADABLE as error:
            raise FoothillError(
                "upstream_failed", f"{self._name}: {path} answered something else than the contract: {error}."
            ) from error

    def _refused(self, method: str, path: str, answer: Answer) -> FoothillError:
        try:
            told = msgspec.json.decode(answer.body, type=ErrorBody)
        except UNREADABLE:
            said = plain(answer.body[:_SAID].decode(errors="replace"))
            return FoothillError("upstream_failed", f"{self._name}: {method} {path} answered {answer.status}: {said}")
        code = told.code if told.code in KINDS else "upstream_failed"
        return FoothillError(code, f"{self._name}: {plain(told.message)} ({answer.status} on {method} {path})")


def plain(text: str, limit: int = _SAID) -> str:
    """What a server said, fit for a terminal and a page: one line, printable, of bounded length."""
    shown = "".join(character if character.isprintable() else " " for character in text[: 2 * limit])
    return " ".join(shown.split())[:limit]
