"""Programs and relays that act on a board: bounded in time and output, their failures told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path

from contracts.errors import FoothillError
from hil.boards import Action
from hil.http_port import HttpPort, plain
from runtime.links.key_files import read_token
from runtime.links.settings import SettingsError
from runtime.links.upstream import Upstreams

_MAX_OUTPUT_BYTES = 1 << 20
_SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10")


async def act(action: Action, upstreams: Upstreams) -> None:
    """Does it, and returns once it is done. Raises FoothillError `unavailable` that names the action."""
    if action.http:
        await _ask(action, upstreams)
    else:
        await run(over(action.ssh, command_of(action)), timeout_s=action.timeout_s)


def command_of(action: Action) -> tuple[str, ...]:
    """SIGKILL first: a restart alone would let the node end in order. What systemd then does by itself makes no
    difference, since a restart of a unit in any state ends with one that runs."""
    if not action.systemd:
        return action.argv
    unit = shlex.quote(action.systemd)
    return ("sh", "-c", f"systemctl kill --signal=SIGKILL -- {unit} && systemctl restart -- {unit}")


def over(ssh: str, argv: Sequence[str]) -> tuple[str, ...]:
    """The same command on `ssh`, whose shell gets it as one quoted line; "" is this machine."""
    return (*_SSH, ssh, "--", shlex.join(argv)) if ssh else tuple(argv)


async def run(argv: Sequence[str], *, timeout_s: float) -> str:
    """What it printed. Raises FoothillError `unavailable` when it cannot start, fails, or takes too long.

    It may leave a node behind that lives on: only what holds no more of its output is waited for.
    """
    shown = plain(shlex.join(argv), 120)
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise FoothillError("unavailable", f"{shown} does not start: {error.strerror or error}.") from error
    assert process.stdout is not None
    reading = asyncio.ensure_future(_read(process.stdout))
    try:
        code = await asyncio.wait_for(process.wait(), timeout_s)
    except asyncio.TimeoutError as error:
        raise FoothillError("unavailable", f"{shown} took more than {timeout_s:g} s.") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        done, _ = await asyncio.wait({reading}, timeout=1.0)
        if not done:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        _let_go(process)
    said = reading.result() if reading in done else ""
    if code != 0:
        raise FoothillError("unavailable", f"{shown} ended with {code}: {plain(said) or 'it said nothing'}.")
    return said


async def _read(stream: asyncio.StreamReader) -> str:
    parts: list[bytes] = []
    size = 0
    while (part := await stream.read(65_536)) and size < _MAX_OUTPUT_BYTES:
        parts.append(part)
        size += len(part)
    return b"".join(parts).decode(errors="replace")


def _let_go(process: asyncio.subprocess.Process) -> None:
    """Closes our end of its output, which a node that it started may hold for as long as it lives."""
    transport = getattr(process, "_transport", None)
    if transport is not None:
        transport.close()


async def _ask(action: Action, upstreams: Upstreams) -> None:
    scheme, _, rest = action.http.partition("://")
    host, slash, path = rest.partition("/")
    try:
        token = read_token(Path(action.token_file), "token_file") if action.token_file else ""
    except SettingsError as error:
        raise FoothillError("unavailable", str(error)) from error
    relay = HttpPort(f"{scheme}://{host}", upstreams, name=f"the relay {host}", token=token)
    body = action.body.encode()
    await relay.ask(action.method, slash + path or "/", body, admin=bool(token), timeout_s=action.timeout_s)
