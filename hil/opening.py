"""From what an operator named to a suite that runs: entry, tokens, ports, and the report."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from contracts.acceptance import CHECKS, Acceptance, CheckName
from hil.bench import Bench, Say
from hil.boards import Board, find
from hil.fleet import FleetPort
from hil.node import NodeUnderTest
from hil.plan import Plan
from hil.suite import Taken, Tell, accept
from runtime.links.http.upstream import Upstreams
from runtime.links.process.settings import SettingsError
from runtime.links.trust.key_files import read_token
from runtime.links.trust.tls import SYSTEM, TlsConfig, checked, client_context

BOARDS_FILE = Path("boards.toml")
FLEET_TOKEN_FILE = Path("state/fleet/admin.token")
"""Where a fleet manager with default settings, started in the same directory, keeps it."""

_ALWAYS: frozenset[CheckName] = frozenset({"ready", "metadata", "identity", "restored"})
"""What the others build on."""


class Options(msgspec.Struct, frozen=True):
    """`boards` None: `boards.toml` where there is one. Empty strings and None leave it to the board's entry."""

    board: str = ""
    boards: Path | None = None
    node: str = ""
    admin_token: Path | None = None
    token: Path | None = None
    fleet: str = ""
    fleet_token: Path | None = None
    plan: Plan = Plan()


class Opened(msgspec.Struct, frozen=True):
    """Everything read and checked; nothing was asked of anybody yet."""

    entry: Board
    name: str
    url: str
    admin_token: str
    token: str
    fleet: str
    fleet_token: str
    plan: Plan
    tls: TlsConfig = SYSTEM


def opened(options: Options) -> Opened:
    """Raises SettingsError that says what to change."""
    entry = _entry(options)
    url = options.node or entry.url
    if not url:
        raise SettingsError("No node is named. Give --node URL, or `url` in the board's entry.")
    _check_url("--node", url)
    if options.fleet:
        _check_url("--fleet", options.fleet)
    return Opened(
        entry=entry,
        name=options.board,
        url=url,
        admin_token=_token(options.admin_token, entry.admin_token_file, "admin_token_file"),
        token=_token(options.token, entry.token_file, "token_file"),
        fleet=options.fleet,
        fleet_token=_fleet_token(options.fleet_token) if options.fleet else "",
        plan=options.plan,
        tls=checked(entry.tls),
    )


async def examine(what: Opened, say: Say, tell: Tell, wall: Callable[[], float] = time.time) -> Acceptance:
    """Runs the suite. The first interrupt ends it in order, a second one leaves the node as it is."""
    upstreams = Upstreams(ssl=client_context(what.tls))
    try:
        node = NodeUnderTest(what.url, upstreams, admin_token=what.admin_token, token=what.token)
        fleet = FleetPort(what.fleet, upstreams, token=what.fleet_token) if what.fleet else None
        bench = Bench(node, fleet, what.entry, what.plan, upstreams, say)
        running = asyncio.ensure_future(accept(bench, Taken(what.name, version(), wall()), tell))
        with _interrupting(running, say):
            return await running
    finally:
        await upstreams.close()


def skipped(only: str, skip: str) -> frozenset[CheckName]:
    """Names separated by commas. Raises SettingsError that lists the known ones."""
    wanted, unwanted = _names(only, "--only"), _names(skip, "--skip")
    left_out = unwanted | (frozenset(CHECKS) - wanted - _ALWAYS if wanted else frozenset())
    return left_out - {"restored"}


def version() -> str:
    """The installed package's version; a source tree that is not installed has none."""
    try:
        return metadata.version("foothill")
    except metadata.PackageNotFoundError:
        return "0+source"


@contextmanager
def _interrupting(running: asyncio.Future[Acceptance], say: Say) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        say("interrupted: the node is put back as it was found; once more leaves it as it is")
        running.cancel()

    numbers: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)
    try:
        for number in numbers:
            loop.add_signal_handler(number, interrupt)
    except (NotImplementedError, RuntimeError, ValueError):
        # Off the main thread, and on Windows: whoever runs the suite there ends it.
        numbers = ()
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _entry(options: Options) -> Board:
    if not options.board:
        return Board()
    if options.boards is None and not BOARDS_FILE.exists():
        if not options.node:
            raise SettingsError(
                f"There is no {BOARDS_FILE} here. Name the file of board {options.board!r} with --boards, or give "
                f"--node URL for a run without an entry."
            )
        return Board()
    return find(options.boards or BOARDS_FILE, options.board)


def _token(given: Path | None, entry: str, setting: str) -> str:
    path = given or (Path(entry) if entry else None)
    return read_token(path, setting) if path is not None else ""


def _fleet_token(given: Path | None) -> str:
    token = os.environ.get("FOOTHILL_ADMIN_TOKEN", "") if given is None else ""
    return token or read_token(given or FLEET_TOKEN_FILE, "--fleet-token")


def _check_url(option: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    if not right:
        raise SettingsError(f"{option} {url[:80]!r} is no URL. Write it like http://board:8100.")


def _names(text: str, option: str) -> frozenset[CheckName]:
    known: dict[str, CheckName] = {name: name for name in CHECKS}
    named = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in named if word not in known]
    if unknown:
        raise SettingsError(f"{option}: no check is called {', '.join(unknown)}. There are {', '.join(CHECKS)}.")
    return frozenset(known[word] for word in named)
