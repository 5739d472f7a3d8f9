"""`foothill fleet …`: run the fleet manager, publish models, roll them out, let nodes join."""

from __future__ import annotations

import contextlib
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from contracts.enrolment import TokenRequest
from fleet import acceptance_cli, audit_cli, tables
from fleet.api import RolloutRequest
from fleet.broker import BrokerConfig
from fleet.broker import run as run_broker
from fleet.client import FleetClient
from fleet.config import FleetConfig
from fleet.rollouts.windows import Window
from fleet.terminal import DEFAULT_URL, AsJson, TokenFile, Url, client_of, fail, show, told
from runtime.links.http.serve import configure_logging, run_loop
from runtime.links.process.settings import SettingsError, load

app = typer.Typer(name="fleet", help="Manage models and edge nodes.", no_args_is_help=True)
model_app = typer.Typer(help="Published bundles.", no_args_is_help=True)
rollout_app = typer.Typer(help="Staged, gated rollouts.", no_args_is_help=True)
node_app = typer.Typer(help="Edge nodes.", no_args_is_help=True)
app.add_typer(model_app, name="model")
app.add_typer(rollout_app, name="rollout")
app.add_typer(node_app, name="node")
app.add_typer(acceptance_cli.app, name="acceptance")
app.add_typer(audit_cli.app, name="audit")

Config = Annotated[Path | None, typer.Argument(help="TOML file; without one the defaults of docs/config.md.")]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Let the broker listen beyond this machine although nobody logs in.")
]


class GateKind(str, Enum):
    """What a rollout is judged by."""

    quality = "quality"
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
    with told():
        client = client_of(fleet, token_file)
        details = [client.publish(directory) for directory in directories]
    published = [{"bundle": detail.manifest.reference, "digest": detail.digest} for detail in details]
    lines = [f"{one['bundle']} is published as {one['digest']}" for one in published]
    show(published, Text("\n".join(lines)), as_json)


@model_app.command("list")
def list_models(fleet: Url = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """Show what is published."""
    with told():
        models = client_of(fleet, token_file).models()
    show(models, tables.of_models(models), as_json)


@rollout_app.command("start")
def start(
    bundle: Annotated[str, typer.Argument(help="NAME@VERSION, such as digits-edge@2.")],
    nodes: Annotated[str, typer.Option(help="Node names in the order they are exposed, separated by commas.")] = "",
    group: Annotated[str, typer.Option(help='Instead of names: "all".')] = "all",
    stages: Annotated[str, typer.Option(help="How many nodes after each stage: counts or percentages.")] = "1,100%",
    gate: Annotated[GateKind, typer.Option(help="quality judges the model, health only that it runs.")] = (
        GateKind.quality
    ),
    max_parallel: Annotated[int | None, typer.Option(help="Nodes at a time, until they are healthy; 0: all.")] = None,
    min_healthy_s: Annotated[float | None, typer.Option(help="A node is healthy after so long.")] = None,
    healthy_deadline_s: Annotated[float | None, typer.Option(help="A node must be healthy by then.")] = None,
    max_failed: Annotated[int | None, typer.Option(help="So many nodes may fail; one more stops it.")] = None,
    auto_revert: Annotated[bool | None, typer.Option(help="Whether a stop sends nodes back, or waits for you.")] = None,
    bake_s: Annotated[float | None, typer.Option(help="Each stage is watched for so long.")] = None,
    approve_after: Annotated[str, typer.Option(help="Stages after which you promote it, such as 1,2.")] = "",
    window: Annotated[str, typer.Option(help="When nodes may be told, such as 22:00-04:00.")] = "",
    zone: Annotated[str, typer.Option(help="The window's time zone, such as Europe/Berlin.")] = "UTC",
    silence_s: Annotated[float | None, typer.Option(help="The gate must decide by then.")] = None,
    follow: Annotated[bool, typer.Option("--watch", help="Follow it to its end.")] = False,
    fleet: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Start a rollout: the canary first, then stage by stage to all."""
    if group != "all":
        fail(f'--group {group!r}: the only group is "all"; name nodes with --nodes.', 2)
    with told():
        client = client_of(fleet, token_file)
        request = RolloutRequest(
            bundle=bundle,
            nodes=_words(nodes) or "all",
            stages=tuple(int(word) if word.isdecimal() else word for word in _words(stages)),
            gate=gate.value,
            policy=_given(
                max_parallel=max_parallel,
                min_healthy_s=min_healthy_s,
                healthy_deadline_s=healthy_deadline_s,
                max_failed=max_failed,
                auto_revert=auto_revert,
                bake_s=bake_s,
                approve_after=[*map(_number, _words(approve_after))] or None,
            ),
            window=_window(window, zone) if window else None,
            silence_s=silence_s,
        )
        view = client.start_rollout(request)
    if follow:
        _follow(client, view.id, as_json)
    show(view, tables.of_rollout(view), as_json)


@rollout_app.command("status")
def status(
    rollout_id: Annotated[str, typer.Argument(help="One rollout; all without it.")] = "",
    fleet: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show one rollout, or all."""
    with told():
        client = client_of(fleet, token_file)
        found = client.rollout(rollout_id) if rollout_id else client.rollouts()
    show(found, tables.of_rollouts(found) if isinstance(found, list) else tables.of_rollout(found), as_json)


@rollout_app.command("watch")
def watch(
    rollout_id: Annotated[str, typer.Argument(help="The rollout's id.")],
    fleet: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Follow a rollout live. Ends with 0 when it completed, 1 when it was rolled back or halted."""
    with told():
        client = client_of(fleet, token_file)
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
    with told():
        view = client_of(fleet, token_file).abort(rollout_id, reason)
    show(view, tables.of_rollout(view), as_json)


@rollout_app.command("rollback")
def roll_back(
    rollout_id: Annotated[str, typer.Argument(help="The rollout's id, completed or under way.")],
    reason: Annotated[str, typer.Option(help="Written down with the rollout.")] = "the operator stopped it",
    fleet: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Send every node back to what it had before a rollout."""
    with told():
        view = client_of(fleet, token_file).roll_back(rollout_id, reason)
    show(view, tables.of_rollout(view), as_json)


def _steering(wish: Literal["pause", "resume", "promote", "retry"], help_: str) -> None:
    @rollout_app.command(wish, help=help_)
    def steer(
        rollout_id: Annotated[str, typer.Argument(help="The rollout's id.")],
        fleet: Url = DEFAULT_URL,
        token_file: TokenFile = None,
        as_json: AsJson = False,
    ) -> None:
        with told():
            view = client_of(fleet, token_file).steer(rollout_id, wish)
        show(view, tables.of_rollout(view), as_json)


_steering("pause", "Tell no more nodes for now. Those that are at it go on, and may still stop it.")
_steering("resume", "Go on with a paused rollout.")
_steering("promote", "Approve of the present stage.")
_steering("retry", "Tell nodes that have failed once more, and go on with a halted rollout.")


@node_app.command("ls")
def list_nodes(fleet: Url = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """Show all nodes: where they are, whether they live, what they run."""
    with told():
        nodes = client_of(fleet, token_file).nodes()
    show(nodes, tables.of_nodes(nodes), as_json)


@node_app.command("withdraw")
def withdraw(
    node: Annotated[str, typer.Argument(help="The node's name.")],
    model: Annotated[str, typer.Argument(help="The logical model that it is to serve no more.")],
    fleet: Url = DEFAULT_URL,
    token_file: TokenFile = None,
) -> None:
    """Take a model off one node."""
    with told():
        client_of(fleet, token_file).withdraw(node, model)
    typer.echo(f"{model} is taken off {node}.")


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
    with told():
        answer = client_of(fleet, token_file).issue_token(TokenRequest(node, region, lat, lon))
    command = f"foothill edge enrol --fleet {fleet} --token {answer.token} --url http://NODE:8100"
    typer.echo("Once, on the node, before the token expires:", err=True)
    show(answer, Text(command), as_json)


def _follow(client: FleetClient, rollout_id: str, as_json: bool) -> NoReturn:
    """A live table on a terminal, one line a change elsewhere."""
    console, view = Console(), None
    live = Live(console=console, auto_refresh=False) if console.is_terminal and not as_json else None
    with told(), live or contextlib.nullcontext():
        for view in client.watch(rollout_id):
            if live is not None:
                live.update(tables.of_rollout(view), refresh=True)
            else:
                typer.echo(msgspec.json.encode(view).decode() if as_json else tables.line_of(view))
            if view.state == "halted":
                break
    raise typer.Exit(0 if view is not None and view.state == "completed" else 1)


def _given(**options: object) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}


def _number(word: str) -> int:
    if not word.isdecimal():
        fail(f"--approve-after {word!r}: name stages by their numbers, such as 1,2.", 2)
    return int(word)


def _window(text: str, zone: str) -> Window:
    start, dash, end = text.partition("-")
    try:
        return msgspec.convert({"start": start.strip(), "end": end.strip() if dash else "", "zone": zone}, Window)
    except msgspec.ValidationError as error:
        fail(f"--window {text!r}: {error}. Write it as 22:00-04:00.", 2)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _load(path: Path | None, kind: Any) -> Any:
    try:
        return load(path, kind)
    except SettingsError as error:
        fail(str(error), 2)


if __name__ == "__main__":
    app()
