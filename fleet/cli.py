"""`foothill fleet …`: run the fleet manager, publish models, roll them out, let nodes join."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import typer
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from contracts.enrolment import TokenRequest
from contracts.errors import FoothillError
from fleet import tables
from fleet.api import RolloutRequest
from fleet.broker import BrokerConfig
from fleet.broker import run as run_broker
from fleet.client import FleetClient
from fleet.config import FleetConfig
from runtime.links.serve import configure_logging, run_loop
from runtime.links.settings import SettingsError, load

app = typer.Typer(name="fleet", help="Manage models and edge nodes.", no_args_is_help=True)
model_app = typer.Typer(help="Published bundles.", no_args_is_help=True)
rollout_app = typer.Typer(help="Staged, gated rollouts.", no_args_is_help=True)
node_app = typer.Typer(help="Edge nodes.", no_args_is_help=True)
app.add_typer(model_app, name="model")
app.add_typer(rollout_app, name="rollout")
app.add_typer(node_app, name="node")

DEFAULT_URL = "http://127.0.0.1:8070"
DEFAULT_TOKEN_FILE = Path("state/fleet/admin.token")

Config = Annotated[Path | None, typer.Argument(help="TOML file; without one the defaults of docs/config.md.")]
Url = Annotated[str, typer.Option("--fleet", envvar="FOOTHILL_FLEET_URL", help="The fleet manager's URL.")]
TokenFile = Annotated[
    Path | None, typer.Option(help="File with the admin token. Default: $FOOTHILL_ADMIN_TOKEN, else the local state.")
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Let the broker listen beyond this machine although nobody logs in.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class GateKind(str, Enum):
    """What a rollout is judged by."""

    agreement = "agreement"
    health = "health"


@app.command()
def serve(config: Config = None, insecure: Insecure = False) -> None:
    """Run the fleet manager until Ctrl-C."""
    from fleet.__main__ import run

    configure_logging()
    settings = _load(config, FleetConfig)
    run_loop(run(msgspec.structs.replace(settings, broker=_exposed(settings.broker, insecure))))


@app.command()
def broker(config: Config = None, insecure: Insecure = False) -> None:
    """Run the MQTT broker alone, as a process of its own, until Ctrl-C."""
    configure_logging()
    run_loop(run_broker(_exposed(_load(config, BrokerConfig), insecure)))


def _exposed(config: BrokerConfig, insecure: bool) -> BrokerConfig:
    return msgspec.structs.replace(config, insecure=config.insecure or insecure)


@model_app.command("publish")
def publish(
    directories: Annotated[list[Path], typer.Argument(help="Packed bundle directories.")],
    fleet: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Upload bundles with their measurements, and have them signed."""
    with _told():
        client = _client(fleet, token_file)
        details = [client.publish(directory) for directory in directories]
    published = [{"bundle": detail.manifest.reference, "digest": detail.digest} for detail in details]
    lines = [f"{one['bundle']} is published as {one['digest']}" for one in published]
    _print(published, Text("\n".join(lines)), as_json)


@model_app.command("list")
def list_models(fleet: Url = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """Show what is published."""
    with _told():
        models = _client(fleet, token_file).models()
    _print(models, tables.of_models(models), as_json)


@rollout_app.command("start")
def start(
    bundle: Annotated[str, typer.Argument(help="NAME@VERSION, such as digits-edge@2.")],
    nodes: Annotated[str, typer.Option(help="Node names in the order they are exposed, separated by commas.")] = "",
    group: Annotated[str, typer.Option(help='Instead of names: "all".')] = "all",
    stages: Annotated[str, typer.Option(help="How many nodes after each stage: counts or percentages.")] = "1,100%",
    gate: Annotated[GateKind, typer.Option(help="agreement judges the model, health only that it runs.")] = (
        GateKind.agreement
    ),
    stage_deadline_s: Annotated[float | None, typer.Option(help="A stage's nodes must be active by then.")] = None,
    silence_s: Annotated[float | None, typer.Option(help="The gate must decide by then.")] = None,
    follow: Annotated[bool, typer.Option("--watch", help="Follow it to its end.")] = False,
    fleet: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Start a rollout: the canary first, then stage by stage to all."""
    if group != "all":
        _fail(f'--group {group!r}: the only group is "all"; name nodes with --nodes.', 2)
    with _told():
        client = _client(fleet, token_file)
        request = RolloutRequest(
            bundle=bundle,
            nodes=_words(nodes) or "all",
            stages=tuple(int(word) if word.isdecimal() else word for word in _words(stages)),
            gate=gate.value,
            stage_deadline_s=stage_deadline_s,
            silence_s=silence_s,
        )
        view = client.start_rollout(request)
    if follow:
        _follow(client, view.id, as_json)
    _print(view, tables.of_rollout(view), as_json)


@rollout_app.command("status")
def status(
    rollout_id: Annotated[str, typer.Argument(help="One rollout; all without it.")] = "",
    fleet: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show one rollout, or all."""
    with _told():
        client = _client(fleet, token_file)
        found = client.rollout(rollout_id) if rollout_id else client.rollouts()
    _print(found, tables.of_rollouts(found) if isinstance(found, list) else tables.of_rollout(found), as_json)


@rollout_app.command("watch")
def watch(
    rollout_id: Annotated[str, typer.Argument(help="The rollout's id.")],
    fleet: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Follow a rollout live. Ends with 0 when it completed, 1 when it was rolled back."""
    with _told():
        client = _client(fleet, token_file)
    _follow(client, rollout_id, as_json)


@rollout_app.command("abort")
def abort(
    rollout_id: Annotated[str, typer.Argument(help="The rollout's id.")],
    reason: Annotated[str, typer.Option(help="Written down with the rollout.")] = "the operator stopped it",
    fleet: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Stop a rollout and send every exposed node back to what it had."""
    with _told():
        view = _client(fleet, token_file).abort(rollout_id, reason)
    _print(view, tables.of_rollout(view), as_json)


@node_app.command("ls")
def list_nodes(fleet: Url = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """Show all nodes: where they are, whether they live, what they run."""
    with _told():
        nodes = _client(fleet, token_file).nodes()
    _print(nodes, tables.of_nodes(nodes), as_json)


@node_app.command("enrol")
def enrol(
    node: Annotated[str, typer.Argument(help="The new node's name: lower-case letters, digits and '-'.")],
    region: Annotated[str, typer.Option(help="Its region, such as eu-central.")],
    lat: Annotated[float, typer.Option(help="Its latitude in degrees.")],
    lon: Annotated[float, typer.Option(help="Its longitude in degrees.")],
    fleet: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a one-time token with which one node may join."""
    with _told():
        answer = _client(fleet, token_file).issue_token(TokenRequest(node, region, lat, lon))
    command = f"foothill edge enrol --fleet {fleet} --token {answer.token} --url http://NODE:8100"
    typer.echo("Once, on the node, before the token expires:", err=True)
    _print(answer, Text(command), as_json)


def _follow(client: FleetClient, rollout_id: str, as_json: bool) -> NoReturn:
    """A live table on a terminal, one line a change elsewhere."""
    console, view = Console(), None
    live = Live(console=console, auto_refresh=False) if console.is_terminal and not as_json else None
    with _told(), live or contextlib.nullcontext():
        for view in client.watch(rollout_id):
            if live is not None:
                live.update(tables.of_rollout(view), refresh=True)
            else:
                typer.echo(msgspec.json.encode(view).decode() if as_json else tables.line_of(view))
    raise typer.Exit(0 if view is not None and view.state == "completed" else 1)


def _client(url: str, token_file: Path | None) -> FleetClient:
    """The token: the file named, else the environment, else where a local fleet manager keeps it."""
    token = os.environ.get("FOOTHILL_ADMIN_TOKEN", "") if token_file is None else ""
    if not token:
        path = token_file or DEFAULT_TOKEN_FILE
        try:
            token = path.read_text().strip()
        except OSError as error:
            _fail(
                f"{path}: {error.strerror}. Name the fleet manager's admin.token with --token-file, or set "
                f"FOOTHILL_ADMIN_TOKEN.",
                2,
            )
    return FleetClient(url, token)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Failures in one line: code 2 when the fleet manager cannot be reached, 1 when it says no."""
    try:
        yield
    except FoothillError as error:
        _fail(error.message, 2 if error.code == "unavailable" else 1)


def _print(body: Any, picture: RenderableType, as_json: bool) -> None:
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(body)).decode())
    else:
        Console(soft_wrap=True).print(picture)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _load(path: Path | None, kind: Any) -> Any:
    try:
        return load(path, kind)
    except SettingsError as error:
        _fail(str(error), 2)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    app()
