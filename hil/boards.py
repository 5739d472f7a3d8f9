"""`boards.toml`: what the suite must know of a board and the board does not tell: how to restart it, what to expect."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from contracts.boards import BOARDS
from runtime.links.process.settings import SettingsError, load
from runtime.links.trust.tls import TlsConfig

SensorKind = Literal["sysfs", "rapl", "tegrastats", "nvidia-smi"]

_Positive = Annotated[float, Meta(gt=0)]


class Action(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way to do something to a board: a command, a systemd unit, or a request to a relay.

    `argv` and `systemd` run on this machine, or on `ssh` (`user@host`; keys only, it never asks). `systemd` kills all
    processes of the unit with SIGKILL and starts it again. `http` is a URL that does it, with `method` and `body`, and
    the bearer token in `token_file`.
    """

    argv: tuple[str, ...] = ()
    systemd: str = ""
    ssh: str = ""
    http: str = ""
    method: Literal["GET", "POST", "PUT"] = "POST"
    body: str = ""
    token_file: str = ""
    timeout_s: _Positive = 60.0

    def __post_init__(self) -> None:
        if sum(map(bool, (self.argv, self.systemd, self.http))) != 1:
            raise ValueError("an action has exactly one of argv, systemd and http")
        if self.ssh.startswith("-"):
            raise ValueError(f"ssh {self.ssh!r} is no user@host")

    @property
    def told(self) -> str:
        """In words, for the report; no secrets are in it."""
        where = f" on {self.ssh}" if self.ssh else ""
        return f"{self.method} {self.http}" if self.http else f"{self.systemd or shlex.join(self.argv)}{where}"


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A check fails beyond these. Growth is that of a soak: both the share and the allowance must be passed."""

    p99_ms: _Positive = 1000.0
    min_throughput: Annotated[float, Meta(ge=0)] = 1.0
    max_growth_percent: Annotated[float, Meta(ge=0)] = 2.0
    growth_allowance_bytes: Annotated[int, Meta(ge=0)] = 4 << 20
    max_file_growth: Annotated[int, Meta(ge=0)] = 8
    max_thread_growth: Annotated[int, Meta(ge=0)] = 4
    max_celsius: _Positive = 95.0
    throttling: Literal["fail", "tell"] = "fail"
    recovery_s: _Positive = 120.0
    update_s: _Positive = 300.0


class ModelLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """In place of the board's, for one model; 0 takes the board's."""

    p99_ms: Annotated[float, Meta(ge=0)] = 0.0
    min_throughput: Annotated[float, Meta(ge=0)] = 0.0


class Board(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One board. `url` and the token files may come from the command line instead.

    `node` is its name at the fleet; "" believes what the node says. `tls` is for `https://` URLs. `power_cycle`, or
    `power_off` and `power_on` with `off_s` between them, is a relay. `sensors` are read here, or on `sensors_ssh`.
    """

    url: str = ""
    node: str = ""
    target: str = ""
    admin_token_file: str = ""
    token_file: str = ""
    tls: TlsConfig = TlsConfig()
    restart: Action | None = None
    power_cycle: Action | None = None
    power_off: Action | None = None
    power_on: Action | None = None
    off_s: Annotated[float, Meta(ge=0)] = 5.0
    sensors: tuple[SensorKind, ...] = ()
    sensors_ssh: str = ""
    limits: Limits = Limits()
    models: dict[str, ModelLimits] = {}

    def __post_init__(self) -> None:
        if self.target and self.target not in BOARDS:
            raise ValueError(f"target {self.target!r} is not in the board table: use one of {', '.join(BOARDS)}")
        if (self.power_off is None) != (self.power_on is None):
            raise ValueError("power_off and power_on belong together")
        if self.power_cycle is not None and self.power_off is not None:
            raise ValueError("power_cycle, or power_off and power_on, not both")
        if self.sensors_ssh.startswith("-"):
            raise ValueError(f"sensors_ssh {self.sensors_ssh!r} is no user@host")

    def p99_ms(self, model: str) -> float:
        return self.models.get(model, ModelLimits()).p99_ms or self.limits.p99_ms

    def min_throughput(self, model: str) -> float:
        return self.models.get(model, ModelLimits()).min_throughput or self.limits.min_throughput


class Boards(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file: `[boards.NAME]` for each board."""

    boards: dict[str, Board] = {}


def find(path: Path, name: str) -> Board:
    """Raises SettingsError for a file out of form, and for a board that it does not have."""
    known = load(path, Boards).boards
    if name not in known:
        raise SettingsError(
            f"{path} has no board {name!r}; it has {', '.join(sorted(known)) or 'none'}. Add [boards.{name}], or name "
            f"another with --board."
        )
    return known[name]
