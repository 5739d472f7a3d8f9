"""What both clients do, without doing I/O: generators that yield a `Send` and take a `Reply` or a `Lost`."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import NoReturn, TypeVar

import msgspec

from contracts import headers
from contracts.budgets import RetryBudget
from contracts.deadlines import Deadline
from contracts.decoding import UNREADABLE
from contracts.leases import Lease, RouteRequest
from contracts.places import Place
from foothill.client.answers import Settled
from foothill.client.failures import RequestError, nobody_answered, read_failure, unreadable
from foothill.client.lease_book import LeaseBook, Subject
from foothill.client.origins import origin
from foothill.client.round_trips import RoundTrips
from foothill.client.upstreams import Health, Lost, Reply, Send, Upstream, judge, order, time_for
from foothill.client.wishes import Wish, new_id

DEFAULT_DEADLINE_MS = 10_000.0
_LONGEST_ASK_S = 2.0
_CANDIDATES = 3

T = TypeVar("T")
Exchange = Generator[Send, Reply | Lost, T]


class Started(msgspec.Struct, frozen=True):
    """When a call began (seconds on the session's clock) and when it must end."""

    at_s: float
    deadline: Deadline


class Session:
    """The state of one client: its leases, the health of upstreams, its retry budget. Safe to share between threads.

    `url` is the router's; with `direct`, whatever it is gets all requests itself. `clock` is monotonic, in seconds.
    Raises ValueError for a URL that is not http or https.
    """

    def __init__(
        self,
        url: str,
        *,
        direct: bool,
        own_headers: Mapping[str, str],
        deadline_ms: float,
        place: Place | None,
        clock: Callable[[], float],
        token: str = "",
    ) -> None:
        origin(url)
        self._token = checked_token(token)
        self.url = url.rstrip("/")
        self.direct = direct
        self.own_headers = dict(own_headers)
        self.clock = clock
        self.book = LeaseBook()
        self._deadline_ms = deadline_ms
        self._place = place
        self._health = Health()
        self._round_trips = RoundTrips()
        self._budget = RetryBudget()
        self._budget_lock = threading.Lock()

    def start(self, deadline_ms: float | None) -> Started:
        now_s = self.clock()
        milliseconds = self._deadline_ms if deadline_ms is None else deadline_ms
        return Started(now_s, Deadline.after(milliseconds, now_s=now_s))

    def must_ask(self, subject: Subject, *, renews_behind: bool) -> bool:
        """Whether the router comes before the request. `renews_behind`: a due lease is renewed in the background."""
        if self.direct:
            return False
        standing = self.book.standing(subject, self.clock())
        return standing in ("none", "expired") or (standing == "due" and not renews_behind)

    def due(self, subject: Subject) -> bool:
        return not self.direct and self.book.standing(subject, self.clock()) == "due"

    def ask(self, subject: Subject, deadline: Deadline) -> Exchange[None]:
        """Asks the router where to go, and keeps the lease.

        A router that is away is no failure while an older lease is there. Raises RequestError when there is none,
        and always when the router refuses the subject itself.
        """
        request_id = new_id()
        measured_ms = self._round_trips.take()
        outcome = yield self._question(subject, deadline, request_id, measured_ms)
        lease = _read_lease(outcome, self.url, subject, request_id)
        if isinstance(lease, Lease):
            self.book.put(subject, lease, self.clock())
        elif not lease.retryable:
            self.book.drop(subject)
            raise lease
        elif self.book.get(subject) is None:
            raise lease
        else:
            self._round_trips.put_back(measured_ms)
            self.book.router_away(subject, self.clock())

    def leased(self, subject: Subject) -> Lease:
        """The lease in hand. Raises LookupError in a direct session, which never asks for one."""
        lease = self.book.get(subject)
        if lease is None:
            raise LookupError("This client was made with lease=False and holds no leases.")
        return lease

    def call(self, wish: Wish, started: Started, *, asked: bool) -> Exchange[Settled]:
        """One request: each upstream in turn, until one answers or refuses, or time or retries are spent.

        `asked`: the time since `started` went into asking for a lease.
        """
        tally = _Tally(wish, started, self.clock(), asked=asked)
        with self._budget_lock:
            self._budget.deposit(self.clock())
        queue = deque(self._upstreams(wish.subject))
        while queue:
            upstream = queue.popleft()
            left_s = started.deadline.left_s(self.clock())
            if left_s <= 0 or (tally.tried and not self._may_retry()):
                break
            tally.tries(upstream, self.clock())
            outcome = yield _addressed(wish, upstream, left_s, upstream.ticket or self._token, last=not queue)
            if upstream.ticket and isinstance(outcome, Reply) and outcome.status == 429:
                self.book.suspect(wish.subject, self.clock())  # a new ticket may have more to use
            step = tally.judge(outcome, upstream)
            if step == "renew":
                queue = yield from self._renewed(wish.subject, upstream, started, tally)
                continue
            if isinstance(outcome, Reply) and step == "answer":
                self._health.answered(upstream.url)
                self._round_trips.note(upstream, outcome)
                return tally.settled(outcome, self.clock())
            if step == "again":
                queue.appendleft(upstream)
            else:
                self._health.failed(upstream.url, self.clock())
                self.book.suspect(wish.subject, self.clock())
        tally.give_up(out_of_time=started.deadline.left_s(self.clock()) <= 0)

    def _renewed(
        self, subject: Subject, refused: Upstream, started: Started, tally: _Tally
    ) -> Exchange[deque[Upstream]]:
        """Whom to ask under a new lease, once; another call may have brought one. Raises RequestError for none."""
        held = self.book.get(subject)
        if tally.renewed or held is None:
            tally.give_up(out_of_time=False)
        tally.renewed = True
        if held.ticket == refused.ticket:
            yield from self.ask(subject, started.deadline)
        fresh = deque(self._upstreams(subject))
        if not fresh or fresh[0].ticket == refused.ticket:
            tally.give_up(out_of_time=False)
        return fresh

    def _may_retry(self) -> bool:
        with self._budget_lock:
            return self._budget.withdraw(self.clock())

    def _question(self, subject: Subject, deadline: Deadline, request_id: str, measured_ms: dict[str, float]) -> Send:
        left_s = deadline.left_s(self.clock())
        timeout_s = left_s if self.book.get(subject) is None else min(left_s / 2, _LONGEST_ASK_S)
        sent = self.own_headers | {"Content-Type": "application/json", headers.REQUEST_ID: request_id} | subject.headers
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        body = msgspec.json.encode(RouteRequest(subject.model, self._place, _CANDIDATES, measured_ms))
        return Send(self.url, "POST", "/v1/route", sent, body, timeout_s, timeout_s)

    def _upstreams(self, subject: Subject) -> Sequence[Upstream]:
        if self.direct:
            return [Upstream(self.url)]
        lease = self.book.get(subject)
        return order(lease, self._health, self.clock()) if lease else []


class _Tally:
    """What one call has tried so far, and what came of it."""

    def __init__(self, wish: Wish, started: Started, now_s: float, *, asked: bool) -> None:
        self.tried: list[str] = []
        self.renewed = False
        self._wish = wish
        self._asked = asked
        self._started_s = started.at_s
        self._called_s = now_s
        self._attempt_s = now_s
        self._failure = nobody_answered(
            "unavailable",
            f"The router leased no node and no cloud for model {wish.subject.model!r}. "
            "See `foothill router explain`, and that a rollout of the model has ended.",
            request_id=wish.request_id,
        )

    def tries(self, upstream: Upstream, now_s: float) -> None:
        self.tried.append(upstream.url)
        self._attempt_s = now_s

    def judge(self, outcome: Reply | Lost, upstream: Upstream) -> str:
        """The step to take next; raises RequestError when nobody else should be asked."""
        if isinstance(outcome, Reply) and outcome.status == 200:
            return "answer"
        self._failure = _read_failure(outcome, upstream, self._wish)
        step = judge(outcome, self._failure.code, upstream)
        if step == "fail":
            self.give_up(out_of_time=False)
        # Several idle connections may be stale; the one second try on the same upstream is enough.
        return "next" if step == "again" and self.tried.count(upstream.url) > 1 else step

    def settled(self, reply: Reply, now_s: float) -> Settled:
        before_ms: dict[str, float] = {}
        if self._asked:
            before_ms["lease"] = (self._called_s - self._started_s) * 1000.0
        if len(self.tried) > 1:
            before_ms["retry"] = (self._attempt_s - self._called_s) * 1000.0
        total_ms = (now_s - self._started_s) * 1000.0
        return Settled(
            reply.headers,
            reply.body,
            hop_ms=reply.elapsed_ms,
            total_ms=total_ms,
            before_ms=before_ms,
            attempts=len(self.tried),
            sent_bytes=len(self._wish.body),
        )

    def give_up(self, *, out_of_time: bool) -> NoReturn:
        failure = self._failure
        if out_of_time and failure.code != "deadline_exceeded":
            message = f"The deadline passed; the last attempt: {failure.message}"
            failure = nobody_answered("deadline_exceeded", message, request_id=self._wish.request_id)
        raise failure.after(tuple(self.tried))


def checked_token(token: str) -> str:
    """Raises ValueError for what cannot stand in a header."""
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise ValueError("token: a token is printable ASCII without spaces; strip what stands around it in its file.")
    return token


def _addressed(wish: Wish, upstream: Upstream, left_s: float, credential: str, *, last: bool) -> Send:
    timeout_s, connect_s, told_ms = time_for(left_s, upstream, last=last)
    sent = wish.headers | {headers.DEADLINE_MS: f"{min(told_ms, headers.MAX_DEADLINE_MS):.3f}"}
    if credential:
        sent["Authorization"] = f"Bearer {credential}"
    return Send(upstream.url, "POST", wish.path, sent, wish.body, timeout_s, connect_s)


def _read_failure(outcome: Reply | Lost, upstream: Upstream, wish: Wish) -> RequestError:
    if isinstance(outcome, Reply):
        return read_failure(outcome.status, outcome.headers, outcome.body, url=upstream.url, request_id=wish.request_id)
    code = "deadline_exceeded" if outcome.how == "late" else "unavailable"
    return nobody_answered(code, f"{upstream.url}: {outcome.message}.", request_id=wish.request_id)


def _read_lease(outcome: Reply | Lost, url: str, subject: Subject, request_id: str) -> Lease | RequestError:
    if isinstance(outcome, Lost):
        message = (
            f"The router at {url} gave no lease for model {subject.model!r}: {outcome.message}. "
            "Check the URL, and that the router is up (`foothill router run`)."
        )
        return nobody_answered("unavailable", message, request_id=request_id, tried=(url,))
    if outcome.status != 200:
        return read_failure(outcome.status, outcome.headers, outcome.body, url=url, request_id=request_id)
    try:
        lease = msgspec.json.decode(outcome.body, type=Lease)
        for upstream in (*(node.url for node in lease.nodes), *filter(None, [lease.cloud])):
            origin(upstream)
    except (ValueError, *UNREADABLE) as error:
        message = f"{url}/v1/route answered no lease: {error}. Check that this URL is a Foothill router."
        return unreadable(message, request_id=request_id)
    return lease
