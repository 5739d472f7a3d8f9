"""What the documentation promises is what the code has: keys and defaults, routes, headers, codes, reasons, options."""

from __future__ import annotations

import importlib
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import typer.main
from aiohttp import web

import cloud_tier.config
import edge_node.config
import router.config
from contracts import headers, topics
from contracts.errors import KINDS
from contracts.escalation import Reason
from contracts.places import Place
from contracts.timing import PHASES, TOTAL
from fleet.__main__ import opened
from fleet.app import create_app as fleet_app
from fleet.broker import BrokerConfig
from fleet.config import FleetConfig
from foothill import commands
from foothill.rooms import ROOMS
from router.__main__ import wired
from router.proxy import NO_EDGE, REFUSED
from runtime.links.holder import CLOUD_FAILED
from runtime.links.settings import load
from runtime.links.telemetry import Telemetry
from runtime.serving.app import UNSETTLED, ServingSettings, create_app
from runtime.serving.hosting import ModelHost

ROOT = Path(__file__).parents[1]
API, CONFIG, MQTT = (ROOT.joinpath("docs", name).read_text() for name in ("api.md", "config.md", "mqtt.md"))
PACKAGES = ("contracts", "runtime", "edge_node", "cloud_tier", "router", "fleet")

FILES: dict[str, type[msgspec.Struct]] = {
    "fleet.toml": FleetConfig,
    "broker.toml": BrokerConfig,
    "cloud.toml": cloud_tier.config.Config,
    "router.toml": router.config.Config,
    "edge.toml": edge_node.config.Config,
}
PARTS: dict[str, dict[str, type[msgspec.Struct]]] = {
    "router.toml": {"nodes.": router.config.StaticNode, "place.": Place}
}
"""Tables whose type no default shows, by prefix."""

TYPER_OWN = {"--help", "--install-completion", "--show-completion"}

_KEY_ROW = re.compile(r"^\| `([a-z_.]+)` \| [^|]+ \| `([^`]*)` \|", re.MULTILINE)
_CODE_ROW = re.compile(r"^\| `([a-z_]+)` \| ([0-9]{3}) \| (yes|no) \|", re.MULTILINE)
_METRIC = re.compile(r'"(foothill_[a-z_]+)"')


def section(file: str) -> str:
    return CONFIG.partition(f"\n## {file}\n")[2].partition("\n## ")[0]


def defaults(kind: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each key with its default as the tables show it; a table with defaults of its own by its keys."""
    for field in msgspec.structs.fields(kind):
        if isinstance(field.default, msgspec.Struct):
            yield from defaults(type(field.default), f"{prefix}{field.name}.")
        elif field.required:
            yield prefix + field.name, "required"
        else:
            value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
            yield prefix + field.name, "none" if value is None else msgspec.json.encode(value).decode()


@pytest.mark.parametrize("file", FILES)
def test_every_key_is_documented_with_its_default(file: str) -> None:
    expected = dict(defaults(FILES[file]))
    for prefix, kind in PARTS.get(file, {}).items():
        expected |= dict(defaults(kind, prefix))
    assert dict(_KEY_ROW.findall(section(file))) == expected


@pytest.mark.parametrize("file", FILES)
def test_every_example_loads_and_has_every_key(file: str) -> None:
    path = ROOT / "examples" / file
    load(path, FILES[file])
    assert set(msgspec.toml.decode(path.read_bytes())) == set(FILES[file].__struct_fields__)


@pytest.mark.parametrize("file", FILES)
def test_example_in_the_documentation_is_the_file(file: str) -> None:
    assert re.findall(r"```toml\n(.*?)```", section(file), re.DOTALL) == [(ROOT / "examples" / file).read_text()]


def test_no_toml_stands_where_nobody_loads_it() -> None:
    assert CONFIG.count("```toml") == len(FILES)


def test_error_codes() -> None:
    told = {code: (int(status), retryable == "yes") for code, status, retryable in _CODE_ROW.findall(API)}
    assert told == {code: tuple(kind) for code, kind in KINDS.items()}


def test_headers() -> None:
    names = {value for name, value in vars(headers).items() if name.isupper() and isinstance(value, str)}
    assert len(names) > 15
    assert not {name for name in names if f"`{name}`" not in API}


def test_reasons() -> None:
    reasons = (*get_args(Reason), CLOUD_FAILED, NO_EDGE, REFUSED, UNSETTLED, "cloud")
    assert not [reason for reason in reasons if f"\n| `{reason}` |" not in API]


def test_phases() -> None:
    table = API.partition("\n## Server-Timing\n")[2].partition("\n## ")[0]
    assert not [phase for phase in (*PHASES, TOTAL) if f"`{phase}`" not in table]


def test_metrics() -> None:
    sources = (path.read_text() for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    names = {name for source in sources for name in _METRIC.findall(source)}
    assert len(names) > 15
    assert not {name for name in names if f"\n| `{name}" not in API}


@pytest.mark.parametrize("kind", topics.NODE_KINDS)
def test_topics_of_nodes(kind: str) -> None:
    assert f"\n| `nodes/{{node}}/{kind}` |" in MQTT


def test_other_topics() -> None:
    named = (topics.EVERY_AUDIT, topics.EVERY_CERTIFICATE, topics.DENY)
    shown = [topic.removeprefix(f"{topics.PREFIX}/").replace("+", "{stratum}") for topic in named]
    assert not [topic for topic in shown if f"`{topic}`" not in MQTT]


def routes_of(app: web.Application) -> set[str]:
    return {
        f"{route.method} {route.resource.canonical}"
        for route in app.router.routes()
        if route.method != "HEAD" and route.resource is not None
    }


def assert_told(app: web.Application) -> None:
    routes = routes_of(app) - {"GET /tuf"}  # a directory, written with what lies in it
    assert len(routes) > 10
    assert not {route for route in routes if f"`{route}`" not in API}


def test_routes_of_node_and_cloud() -> None:
    assert_told(create_app(ModelHost(), ServingSettings(node="n", tier="edge"), holder=None, telemetry=Telemetry()))


async def test_routes_of_the_router() -> None:
    async with wired(router.config.Config(broker_url=""), rng=random.Random(0)) as app:
        assert_told(app)


async def test_routes_of_the_fleet_manager(tmp_path: Path) -> None:
    async with opened(FleetConfig(state_dir=str(tmp_path), broker_url="mqtt://127.0.0.1:1")) as parts:
        assert_told(fleet_app(parts))


def options(command: Any) -> set[str]:
    """The long options of a command and of all commands under it."""
    own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    under = getattr(command, "commands", {}).values()
    return {name for name in own if name.startswith("--")}.union(*map(options, under))


def test_every_option_of_the_command_line() -> None:
    apps: list[Any] = [commands.build(""), *(importlib.import_module(room.module).app for room in ROOMS.values())]
    named = set().union(*(options(typer.main.get_command(app)) for app in apps)) - TYPER_OWN
    assert len(named) > 25
    assert not {name for name in named if f"`{name}`" not in CONFIG}
