"""The machine under the benchmarks: cores to pin to, what a process cost, and who else was busy meanwhile."""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import msgspec

_PACKAGES = ("onnxruntime", "aiohttp", "uvloop", "httpx", "msgspec", "numpy", "paho-mqtt")


class Cores(NamedTuple):
    """One core for what is measured and one for what asks it; the same one where there is only one."""

    server: int
    client: int

    @property
    def both(self) -> tuple[int, ...]:
        return (self.server, self.client)


class Machine(msgspec.Struct, frozen=True):
    """What the figures were taken on."""

    cpu: str
    cores: int
    kernel: str
    python: str
    packages: dict[str, str]


class Meanwhile(msgspec.Struct, frozen=True):
    """What else took the machine's time during a benchmark, in cores: other processes, and the hypervisor."""

    other_processes: float
    stolen: float


def cores() -> Cores:
    """Raises SystemExit where processes cannot be pinned."""
    if not hasattr(os, "sched_getaffinity"):
        raise SystemExit("The benchmarks pin processes to cores, which this system does not offer. Run them on Linux.")
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(allowed[0], allowed[-1])


@contextmanager
def pinned(*cores: int) -> Iterator[None]:
    """This process, and the children it starts meanwhile, on these cores alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pin(pid: int, *cores: int) -> None:
    """Another process on some cores: its threads of now, and so those that they start."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


def cpu_s(pid: int) -> float:
    """CPU seconds of a whole process so far, in nanoseconds' steps: its clock of clock_getcpuclockid(3)."""
    return time.clock_gettime((~pid << 3) | 2)


def describe() -> Machine:
    return Machine(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        kernel=platform.release(),
        python=platform.python_version(),
        packages={name: metadata.version(name) for name in _PACKAGES},
    )


class Watch:
    """Counts, from its making on, what the machine did for others than this process and `children`.

    A child that ends meanwhile counts once it has been waited for.
    """

    def __init__(self, children: Sequence[int]) -> None:
        self._children_s = dict.fromkeys(children, 0.0)
        self._wall_s, self._own_s = time.monotonic(), self._own()
        self._busy_s, self._stolen_s = _kernel_times()

    def read(self) -> Meanwhile:
        wall_s = time.monotonic() - self._wall_s
        busy_s, stolen_s = _kernel_times()
        others_s = busy_s - self._busy_s - (self._own() - self._own_s)
        return Meanwhile(max(0.0, others_s / wall_s), (stolen_s - self._stolen_s) / wall_s)

    def _own(self) -> float:
        for pid in self._children_s:
            self._children_s[pid] = 0.0
            with suppress(OSError):
                self._children_s[pid] = cpu_s(pid)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + ended.ru_utime + ended.ru_stime + sum(self._children_s.values())


def _kernel_times() -> tuple[float, float]:
    """Seconds that all cores together were busy, and that the hypervisor took: the first line of /proc/stat."""
    fields = Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    user, nice, system, _idle, _wait, irq, soft, stolen = (int(field) for field in fields)
    tick_s = 1.0 / os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + soft) * tick_s, stolen * tick_s


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
