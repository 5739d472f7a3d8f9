"""Child processes that are started together, watched, and never left behind."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType

from foothill import child as child_program
from foothill.plain_http import get

_POLL_S = 0.02
_TAIL_LINES = 20
_TAIL_BYTES = 8192


class ProcessError(Exception):
    """A child did not become ready, or ended on its own. The message ends with the end of the child's log."""


class Child:
    """One running program: `name`, process id, and the file that takes its output."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None and not self._has_ended()

    def send(self, number: signal.Signals) -> None:
        """Signals the program alone; nothing happens when it has ended."""
        if self.running:
            os.kill(self.pid, number)

    def reap(self) -> int:
        """Waits for the end, ends with SIGKILL what the program itself had started, and returns its exit code."""
        if self._process.returncode is None:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            # Until the wait below the process id is still taken, so that this group is the child's and no other's.
            os.killpg(self.pid, signal.SIGKILL)
        return self._process.wait()

    def ended_early(self) -> ProcessError:
        code = self.reap()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return ProcessError(f"{self.name} {how}.\n{self.log_end()}")

    def log_end(self) -> str:
        """The last lines of the log, with its path, for a person."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            lines = log.read().decode("utf-8", "replace").splitlines()[-_TAIL_LINES:]
        return "\n".join([f"The end of {self.log}:", *(f"  {line}" for line in lines or ["(empty)"])])

    def _has_ended(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


Ready = Callable[[], bool]


def file_ready(path: Path) -> Ready:
    """Ready when the file is there. Writers rename it into place, so that it is whole."""
    return path.exists


def http_ready(url: str) -> Ready:
    """Ready when a GET of `url` answers 200."""

    def answers() -> bool:
        try:
            return get(url, timeout_s=2.0).status == 200
        except (OSError, http.client.HTTPException):
            return False

    return answers


class Processes:
    """A context: what is started in it is stopped when it ends, last started first, whatever ended it.

    Each child has a process group of its own, so that Ctrl-C in a terminal reaches only this process, which then
    stops the children in order: SIGTERM, after `grace_s` SIGKILL. Should this process be killed itself, the kernel
    sends its children SIGTERM. Logs go to `{log_dir}/{name}.log`.
    """

    def __init__(self, log_dir: Path, *, grace_s: float = 8.0) -> None:
        self._log_dir = log_dir
        self._grace_s = grace_s
        self._children: list[Child] = []
        self._hurry = False

    def start(
        self, name: str, command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Child:
        """Starts a program and returns at once. `env` is added to this process's environment.

        A Python program takes no modules from the working directory, where a user may have a `router.py` too.

        Raises RuntimeError off the main thread: the kernel ties a child to the thread that started it.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(f"Start {name} from the main thread: a child ends with the thread that started it.")
        self._log_dir.mkdir(parents=True, exist_ok=True)
        log = self._log_dir / f"{name}.log"
        tied = [sys.executable, "-I", "-S", str(child_program.__file__), str(os.getpid()), *command]
        with log.open("wb") as output:
            process = subprocess.Popen(
                tied,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONSAFEPATH": "1", **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )
        child = Child(name, process, log)
        self._children.append(child)
        return child

    def wait_ready(self, child: Child, ready: Ready, *, timeout_s: float = 60.0) -> None:
        """Blocks until `ready`. Raises ProcessError when the child ends first or takes longer."""
        until_s = time.monotonic() + timeout_s
        while not ready():
            if not child.running:
                raise child.ended_early()
            if time.monotonic() > until_s:
                raise ProcessError(f"{child.name} is not ready after {timeout_s:g} s.\n{child.log_end()}")
            time.sleep(_POLL_S)

    def check(self) -> None:
        """Raises ProcessError for a child that ended although nobody stopped it."""
        for child in self._children:
            if not child.running:
                raise child.ended_early()

    def stop(self, child: Child) -> int:
        """Ends one child in order; returns its exit code."""
        return self._end(child, signal.SIGTERM)

    def kill(self, child: Child) -> int:
        """Ends one child with SIGKILL, as a power cut would."""
        return self._end(child, signal.SIGKILL)

    def close(self) -> None:
        """Stops all that still run, last started first. A second Ctrl-C meanwhile ends the rest at once."""
        with self._interrupts_hurry():
            while self._children:
                self.stop(self._children[-1])

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _end(self, child: Child, first: signal.Signals) -> int:
        child.send(first)
        until_s = time.monotonic() + self._grace_s
        while child.running:
            if self._hurry or time.monotonic() > until_s:
                child.send(signal.SIGKILL)
            time.sleep(_POLL_S / 4)
        if child in self._children:
            self._children.remove(child)
        return child.reap()

    @contextmanager
    def _interrupts_hurry(self) -> Iterator[None]:
        def hurry(_number: int, _frame: FrameType | None) -> None:
            self._hurry = True

        with _handling((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), hurry):
            yield


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """While it lasts, SIGTERM and SIGHUP raise KeyboardInterrupt in the main thread, as Ctrl-C does.

    Ctrl-C does too where the shell that started this process in the background had it ignored; a hang-up that
    `nohup` had ignored stays so.
    """
    kept = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    numbers = [signal.SIGTERM, signal.SIGINT] if kept else [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    with _handling(numbers, signal.default_int_handler):
        yield


@contextmanager
def _handling(numbers: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
