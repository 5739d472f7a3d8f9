"""The groups of commands: which package each comes from, and what must be installed for it."""

from __future__ import annotations

from typing import NamedTuple


class Room(NamedTuple):
    """One group of commands: the module with its typer application `app`, and the extra that it needs."""

    module: str
    extra: str
    help: str


ROOMS = {
    "edge": Room("edge_node.cli", "edge", "An edge node: join a fleet, serve models."),
    "cloud": Room("cloud_tier.cli", "cloud", "The cloud tier: answer what the edge is not sure of."),
    "router": Room("router.cli", "router", "The router: send each request where it is answered best."),
    "fleet": Room("fleet.cli", "fleet", "The fleet manager: models, rollouts, nodes."),
    "compile": Room("model_compiler.cli", "compiler", "Compile models into bundles."),
    "hil": Room("hil.cli", "edge", "The acceptance suite for real boards."),
}


def install(extras: str = "") -> str:
    """What to type, in a checkout of Foothill, to get what `extras` bring; without extras, the Python client alone."""
    return f"pip install '.[{extras}]'" if extras else "pip install ."
