"""`foothill up`: every part on this machine, a model rolled out, and everything stopped again on Ctrl-C."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
from rich.console import Console

from fleet.api import RolloutRequest, RolloutView
from foothill.demo.places import database_path
from foothill.processes import Processes, terminate_as_interrupt
from foothill.site import CLOUD_BUNDLE, EDGE_BUNDLE, EDGES, MODEL, Machine, MachineError
from runtime.links.process.durable import write_file
from runtime.links.process.state_dir import held

_ROLLOUT_S = 120.0
_WATCH_S = 0.5


class UpOptions(msgspec.Struct, frozen=True):
    """`state` keeps everything between runs. `ready_file` is written once everything answers, removed at the end."""

    state: Path = Path("state/up")
    ready_file: Path | None = None
    distances: bool = False
    quick: bool = False
    json: bool = False


def up(options: UpOptions) -> None:
    """Starts all parts and blocks until Ctrl-C or SIGTERM. Raises MachineError or ProcessError when that fails."""
    console = Console(stderr=True)
    with held(options.state), terminate_as_interrupt():
        try:
            _forget(options.ready_file)
            with Processes(options.state / "logs") as processes:
                machine = bring_up(options, processes, console)
                _announce(machine, options, console)
                _watch(processes)
        except KeyboardInterrupt:
            console.print("Stopped; nothing is left running.")
        finally:
            _forget(options.ready_file)


def _forget(ready_file: Path | None) -> None:
    """Also one that was left behind by an `up` that was killed."""
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)


def bring_up(options: UpOptions, processes: Processes, console: Console) -> Machine:
    """The parts in the order they need each other, and the digits models where the registry has none."""
    machine = Machine(
        options.state,
        processes,
        relay=options.distances,
        distances=options.distances,
        geoip_database=str(database_path()),
        usual_ports=True,
        say=lambda line: console.print(f"[dim]{line}[/dim]"),
    )
    machine.start_core()
    published = {f"{model.name}@{model.version}" for model in machine.fleet().models()}
    if not {CLOUD_BUNDLE, EDGE_BUNDLE} <= published:
        _publish_digits(machine, options, console)
    machine.start_serving()
    for name in EDGES:
        machine.join(name)
    _roll_out(machine, console)
    machine.wait_served(timeout_s=_ROLLOUT_S)
    return machine


def _publish_digits(machine: Machine, options: UpOptions, console: Console) -> None:
    """Imported here: torch is heavy, and needed only the first time."""
    from model_compiler.digits.recipe import FULL, QUICK, compile_digits

    console.print("The registry is empty: compiling the digits models, about a minute, this once.")
    bundles = compile_digits(options.state / "bundles", profile=QUICK if options.quick else FULL)
    for packed in (bundles.cloud, bundles.edge):
        machine.fleet().publish(packed.directory)


def _roll_out(machine: Machine, console: Console) -> None:
    """Ends what an earlier run left open; starts a rollout where one of our nodes has none. Others' are theirs."""
    fleet = machine.fleet()
    for view in fleet.rollouts():
        if not view.ended:
            machine.follow(view, timeout_s=_ROLLOUT_S, each=_unseen)
    if all(MODEL in node.desired for node in fleet.nodes() if node.node in EDGES):
        return
    view = machine.roll_out(RolloutRequest(bundle=EDGE_BUNDLE, nodes=tuple(EDGES)), timeout_s=_ROLLOUT_S, each=_unseen)
    if view.state != "completed":
        raise MachineError(f"The rollout of {view.bundle} ended as {view.state}: {view.reason}")
    console.print(_rolled_out(view))


def _unseen(_: RolloutView) -> None:
    """For rollouts nobody watches."""


def _rolled_out(view: RolloutView) -> str:
    return f"{view.bundle} runs on {view.nodes} nodes after {view.seconds or 0.0:.1f} s."


def _announce(machine: Machine, options: UpOptions, console: Console) -> None:
    urls = machine.urls
    if options.ready_file is not None:
        write_file(options.ready_file, msgspec.json.encode(urls))
    if options.json:
        Console().print_json(msgspec.json.encode(urls).decode())
        return
    for name, url in (("router", urls.router), ("cloud", urls.cloud), ("fleet", urls.fleet), ("broker", urls.broker)):
        console.print(f"  {name:<10} {url}")
    for name, url in urls.edges.items():
        console.print(f"  {name:<10} {url}")
    curl = f"curl --data-binary @digit.png -H 'Content-Type: image/png' {urls.router}/v1/predict/{MODEL}"
    console.print(f"Try: {curl}", soft_wrap=True)
    console.print("Ctrl-C stops everything.")


def _watch(processes: Processes) -> None:
    """A part that ends by itself ends the whole: better seen than half alive."""
    while True:
        processes.check()
        time.sleep(_WATCH_S)
