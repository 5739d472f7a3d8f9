"""Programs and relays that act on a board: bounded in time and output, their failures told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from contracts.errors import FoothillError
from hil.boards import Action
from hil.http_port import HttpPort, plain
from runtime.links.http.upstream import Upstreams
from runtime.links.process.settings import SettingsError
from runtime.links.trust.key_files import read_token

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

    Its output goes to a file: a node that it leaves running holds a pipe open for as long as it lives.
    """
    shown = plain(shlex.join(argv), 120)
    with tempfile.TemporaryFile() as output:
        code = await _ended(argv, output, shown, timeout_s)
        output.seek(0)
        said = output.read(_MAX_OUTPUT_BYTES).decode(errors="replace")
    if code != 0:
        raise FoothillError("unavailable", f"{shown} ended with {code}: {plain(said) or 'it said nothing'}.")
    return said


async def _ended(argv: Sequence[str], output: IO[bytes], shown: str, timeout_s: float) -> int:
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    except (OSError, ValueError) as error:
        raise FoothillError("unavailable", f"{shown} does not start: {error}.") from error
    try:
        return await asyncio.wait_for(process.wait(), timeout_s)
    except asyncio.TimeoutError as error:
        raise FoothillError("unavailable", f"{shown} took more than {timeout_s:g} s.") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


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
