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
from contracts.boards import BOARDS
from contracts.errors import KINDS
from contracts.escalation import Reason
from contracts.manifest import Measured, Measurements, Precision, Preprocess
from contracts.places import Place
from contracts.timing import PHASES, TOTAL
from fleet.__main__ import opened
from fleet.app import create_app as fleet_app
from fleet.broker import BrokerConfig
from fleet.config import FleetConfig
from foothill import commands
from foothill.rooms import ROOMS
from model_compiler import plan, recipe
from model_compiler.confidence import Promise
from model_compiler.learning.augment import Augment
from model_compiler.learning.prune import Method as PruneMethod
from model_compiler.learning.train import Schedule
from model_compiler.learning.ways import PAPERS
from model_compiler.quantizing.causes import CAUSES
from model_compiler.quantizing.ranges import METHODS
from model_compiler.recipe import Recipe
from router.proxy import EDGE_BUSY, NO_EDGE, REFUSED
from router.wiring import wired
from runtime.links.escalation.holder import CLOUD_FAILED
from runtime.links.escalation.late import LATE
from runtime.links.process.settings import load
from runtime.links.process.telemetry import Telemetry
from runtime.serving.answering.answers import UNSETTLED
from runtime.serving.answering.settings import ServingSettings
from runtime.serving.app import create_app
from runtime.serving.models.hosting import ModelHost

ROOT = Path(__file__).parents[1]
API, BUNDLE, COMPILE, CONFIG, MQTT = (
    ROOT.joinpath("docs", f"{name}.md").read_text() for name in ("api", "bundle", "compile", "config", "mqtt")
)
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
OF_SITES = {"edge.toml": {"alone", "cameras", "recording", "webhooks", "home_assistant"}}
"""Keys that another example shows."""

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
    assert set(msgspec.toml.decode(path.read_bytes())) == set(FILES[file].__struct_fields__) - OF_SITES.get(file, set())


def test_the_example_of_a_site_has_two_cameras_and_no_fleet() -> None:
    site = load(ROOT / "examples" / "site.toml", edge_node.config.Config)
    assert (len(site.cameras), site.alone is not None) == (2, True)


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
    reasons = (*get_args(Reason), CLOUD_FAILED, EDGE_BUSY, LATE, NO_EDGE, REFUSED, UNSETTLED, "cloud")
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


TABLES: dict[str, type[msgspec.Struct]] = {
    "`[bundle]`": recipe.BundleTable,
    "`[teacher]` and `[student]`": recipe.SourceTable,
    "`[cloud]`": recipe.CloudTable,
    "`[prune]`": plan.Prune,
    "`[learn]`": plan.Learning,
    "Schedules": Schedule,
    "Augmentation": Augment,
    "`[quantize]`": plan.Quantizing,
    "`[budget]`": plan.Budget,
    "`[promise]`": Promise,
    "`[data]`": recipe.DataTable,
    "`[data.split]`": recipe.SplitTable,
    "`[preprocess]`": Preprocess,
    "`[postprocess]`": recipe.PostprocessTable,
}
"""The tables of a recipe by their headings in compile.md."""

_RECIPE_ROW = re.compile(r"^\| `([a-z0-9_]+)` \| [^|]+ \| `([^`]*)` \|", re.MULTILINE)
_STAGE = re.compile(r'\bstage\(\s*"([a-z0-9 ]+)"')
_DOOR = re.compile(r"^\| `[a-z0-9 ]+` \|.*\| `([a-z0-9_.]+)` \|$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")
_FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def fenced(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", COMPILE, re.DOTALL | re.MULTILINE)


def within(heading: str) -> str:
    """What compile.md has under a heading of the third level."""
    return re.split(r"\n##", COMPILE.partition(f"\n### {heading}\n")[2], maxsplit=1)[0]


def keys(table: type[msgspec.Struct]) -> Iterator[tuple[str, str]]:
    """Each key with its default as compile.md shows it; a table within has one of its own, and may be left empty."""
    for field in msgspec.structs.fields(table):
        value = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        if field.required:
            yield field.name, "required"
        elif value is None or value is msgspec.UNSET:
            yield field.name, "none"
        else:
            yield field.name, "{}" if isinstance(value, msgspec.Struct) else msgspec.json.encode(value).decode()


def tables_in(kind: Any) -> set[type[msgspec.Struct]]:
    """All Structs that a type is made of."""
    found = set().union(*map(tables_in, get_args(kind)))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        found |= {kind}.union(*(tables_in(field.type) for field in msgspec.structs.fields(kind)))
    return found


@pytest.mark.parametrize("heading", TABLES)
def test_every_key_of_a_recipe_is_documented_with_its_default(heading: str) -> None:
    assert dict(_RECIPE_ROW.findall(within(heading))) == dict(keys(TABLES[heading]))


def test_no_table_of_a_recipe_is_left_out() -> None:
    assert tables_in(Recipe) - {Recipe} == set(TABLES.values())


def test_words_that_a_recipe_may_use() -> None:
    words = (*BOARDS, *get_args(Precision), *METHODS, *PAPERS, *get_args(PruneMethod), *CAUSES)
    assert not [word for word in words if f"`{word}`" not in COMPILE and f"| {word} |" not in COMPILE]
    assert not [paper for paper in PAPERS.values() if paper.partition("arXiv:")[2] not in COMPILE]


def test_every_file_that_is_built() -> None:
    planned = plan.artifacts_for(tuple(BOARDS), get_args(Precision))
    assert not [each.file for each in planned if f"\n| `{each.file}` | `{each.precision}` |" not in COMPILE]


def test_every_stage_and_its_door() -> None:
    sources = (path.read_text() for path in (ROOT / "model_compiler").rglob("*.py"))
    stages = {name for source in sources for name in _STAGE.findall(source)} | {"fp16", "int4"}
    assert len(stages) > 10
    assert not {name for name in stages if f"\n| `{name}` |" not in COMPILE}
    doors = _DOOR.findall(COMPILE.partition("\n## Stages\n")[2])
    assert len(doors) == len(stages)
    for door in doors:
        module, _, name = f"model_compiler.{door}".rpartition(".")
        assert callable(getattr(importlib.import_module(module), name))


def test_the_recipe_of_the_digits_is_shown_as_it_is() -> None:
    assert fenced("toml")[0] == (ROOT / "examples" / "digits" / "recipe.toml").read_text()


def test_pieces_of_recipes_are_valid() -> None:
    bundle = {"name": "n", "version": "1", "model": "m"}
    for piece in fenced("toml"):
        msgspec.convert({"bundle": bundle, **msgspec.toml.decode(piece)}, Recipe)


@pytest.mark.integration
def test_python_of_the_compiler_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the first piece, which compiles the digits: tests/model_compiler/test_examples.py runs it."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for piece in fenced("python")[1:]:
        exec(compile(piece, "compile.md", "exec"), names)
    assert names["packed"].manifest.reference == "largest@1.0.0"
    assert (tmp_path / "int8.onnx").exists()


@pytest.mark.parametrize("kind", [Measurements, Measured])
def test_fields_of_measurements(kind: type[msgspec.Struct]) -> None:
    told = BUNDLE.partition("\n## measurements.json\n")[2].partition("\n## ")[0]
    assert not [name for name in kind.__struct_fields__ if f"`{name}`" not in told]


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", _FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


CODE = (*PACKAGES, "model_compiler", "foothill", "hil", "examples")
_SOURCE = re.compile(r"`([a-z0-9_/]+\.(?:py|toml))\b")

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    for file, anchor in _LINK.findall(_FENCED.sub("", page.read_text())):
        if "://" not in file:
            target = (page.parent / file) if file else page
            assert target.exists(), file
            assert not anchor or anchor in anchors(target), f"{file}#{anchor}"


def test_files_that_the_architecture_names_are_there() -> None:
    named = _SOURCE.findall((ROOT / "docs" / "architecture.md").read_text() + COMPILE)
    files = {path.relative_to(ROOT).as_posix() for package in CODE for path in (ROOT / package).rglob("*.*")}
    assert len(named) > 40
    assert not [name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in files)]
