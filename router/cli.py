"""`foothill router …`: run one, ask one why it routes as it does, and try how well it would."""

from __future__ import annotations

import asyncio
import os
import time
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import urlencode

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from contracts.deadlines import Deadline
from contracts.decoding import UNREADABLE
from contracts.errors import ErrorBody, FoothillError
from router.__main__ import run as run_router
from router.config import MOST_WORKERS, Config
from router.explain import Explanation
from router.explained import show
from router.simulation.campaign import simulate as run_seeds
from router.simulation.case import Case
from router.simulation.run import POLICIES
from router.simulation.table import table
from router.simulation.traces import TraceError
from router.simulation.traces import read as read_trace
from router.simulation.world import Arrivals
from runtime import regions
from runtime.links.http.exposure import INSECURE
from runtime.links.http.serve import configure_logging, run_loop
from runtime.links.http.upstream import Answer, Request, Upstreams, UpstreamUnreachable
from runtime.links.process.settings import SettingsError, load

app = typer.Typer(name="router", help="Send requests to the nearest good answer.", no_args_is_help=True)
_TIMEOUT_MS = 10_000.0
_STRAGGLERS = 0.05
_COMPARED = ("foothill", "foothill-hedged", "own-in-flight", "p2c", "zones", "least-connections", "round-robin")
_CORES = os.cpu_count() or 1
_PROGRESS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("seeds"),
    TimeRemainingColumn(),
)


@app.command()
def run(
    config: Annotated[
        Path | None, typer.Argument(help="TOML file; without one the defaults of docs/config.md.")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help=INSECURE)] = False,
    workers: Annotated[
        int | None, typer.Option(help="Processes that answer requests; 0: one for each core.", min=0, max=MOST_WORKERS)
    ] = None,
) -> None:
    """Run a router until Ctrl-C."""
    configure_logging()
    try:
        settings = load(config, Config)
    except SettingsError as error:
        _fail(str(error), 2)
    changed: dict[str, Any] = {"workers": workers} if workers is not None else {}
    run_loop(run_router(msgspec.structs.replace(settings, insecure=settings.insecure or insecure, **changed)))


@app.command()
def explain(
    model: Annotated[str, typer.Argument(help="The logical model, for example digits.")],
    ip: Annotated[str, typer.Option(help="The client's address; yours without it.")] = "",
    lat: Annotated[float | None, typer.Option(help="The client's latitude, in degrees; with --lon.")] = None,
    lon: Annotated[float | None, typer.Option(help="The client's longitude, in degrees; with --lat.")] = None,
    residency: Annotated[str, typer.Option(help="Regions the request must stay in, separated by commas.")] = "",
    capabilities: Annotated[str, typer.Option(help="What a node has to have, separated by commas.")] = "",
    deadline_ms: Annotated[float | None, typer.Option(help="In which it must be answered.")] = None,
    size_bytes: Annotated[int, typer.Option("--bytes", min=0, help="Of its bodies, there and back.")] = 0,
    url: Annotated[str, typer.Option(help="The router.")] = "http://127.0.0.1:8080",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show every node with its score, or with what speaks against it."""
    wanted = {"model": model, "ip": ip, "lat": lat, "lon": lon, "residency": residency, "bytes": size_bytes or ""}
    wanted["capabilities"] = capabilities
    wanted["deadline_ms"] = f"{deadline_ms:.9f}".rstrip("0").rstrip(".") if deadline_ms is not None else ""
    query = urlencode({name: value for name, value in wanted.items() if value not in ("", None)})
    answer = asyncio.run(_get(url, f"/v1/explain?{query}"))
    if answer.status != 200:
        _fail(_told(answer), 1)
    if as_json:
        typer.echo(answer.body)
    else:
        show(_explanation(answer), Console())


class Area(str, Enum):
    """Where nodes, routers and clients are."""

    world = "world"
    europe = "europe"
    asia = "asia"
    north_america = "north-america"


class Services(str, Enum):
    """How unequal requests are."""

    exponential = "exponential"
    lognormal = "lognormal"
    constant = "constant"


@app.command()
def simulate(
    routers: Annotated[int, typer.Option(min=1, max=64, help="Each near some of the clients.")] = 4,
    load: Annotated[float, typer.Option(min=0.05, max=0.98, help="The share of what all nodes can do.")] = 0.8,
    nodes: Annotated[int, typer.Option(min=2, max=512, help="Each up to 4 times as fast as another.")] = 32,
    area: Annotated[Area, typer.Option(help="Where all of them are.")] = Area.world,
    services: Annotated[Services, typer.Option(help="How unequal requests are.")] = Services.exponential,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Each draws a world of its own.")] = 30,
    requests: Annotated[int, typer.Option(min=1000, max=1_000_000, help="Of each seed.")] = 12_000,
    policy: Annotated[list[str] | None, typer.Option(help="Only this one, beside the oracle; repeatable.")] = None,
    stragglers: Annotated[
        bool, typer.Option("--stragglers", help="5 % of the nodes slow x10, in bursts of 5 s.")
    ] = False,
    trace: Annotated[Path | None, typer.Option(help="Recorded arrivals, .csv or .jsonl; Poisson without.")] = None,
    processes: Annotated[int, typer.Option(min=1, max=256, help="As many as there are cores without it.")] = _CORES,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Try Foothill's selection and others in simulated worlds, against an oracle that knows everything."""
    chosen = tuple(policy or _COMPARED)
    unknown = [name for name in chosen if name not in POLICIES]
    if unknown:
        _fail(f"There is no policy {unknown[0]!r}. There are: {', '.join(POLICIES)}.", 2)
    case = Case(
        routers=routers,
        load=load,
        nodes=nodes,
        area=area.value,
        services=services.value,
        requests=requests,
        slow_share=_STRAGGLERS if stragglers else 0.0,
    )
    arrivals = _arrivals(trace)
    with Progress(*_PROGRESS, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Simulating", total=seeds)
        report = run_seeds(
            case,
            regions.load(),
            chosen,
            seeds,
            arrivals=arrivals,
            processes=processes,
            tell=lambda: progress.advance(task),
        )
    if as_json:
        typer.echo(msgspec.json.encode(report))
    else:
        Console().print(table(report))


def _arrivals(trace: Path | None) -> Arrivals | None:
    try:
        return read_trace(trace) if trace is not None else None
    except TraceError as error:
        _fail(str(error), 2)


def _explanation(answer: Answer) -> Explanation:
    try:
        return msgspec.json.decode(answer.body, type=Explanation)
    except UNREADABLE as error:
        _fail(f"The answer is no explanation: {error}. Router and command may be of different versions.", 1)


async def _get(url: str, path: str) -> Answer:
    upstreams = Upstreams()
    deadline = Deadline.after(_TIMEOUT_MS, now_s=time.monotonic())
    try:
        return await upstreams.send(url, Request("GET", path, {}), deadline=deadline)
    except (UpstreamUnreachable, FoothillError) as error:
        _fail(f"{error} Is the router running there? Name it with --url.", 1)
    finally:
        await upstreams.close()


def _told(answer: Answer) -> str:
    try:
        return msgspec.json.decode(answer.body, type=ErrorBody).message
    except UNREADABLE:
        return f"HTTP {answer.status}; this does not look like a Foothill router."


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code)
