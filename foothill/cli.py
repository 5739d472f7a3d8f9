"""The `foothill` command: checks that its own packages are there, and explains those that are not."""

from __future__ import annotations

import importlib.util
import sys
from typing import NoReturn

from foothill.rooms import ROOMS, install

_OTHERS = {"up": "all,geo", "demo": "all,geo", "demo-camera": "all"}
_OWN = frozenset(
    {"contracts", "runtime", "foothill", "model_compiler", *(r.module.partition(".")[0] for r in ROOMS.values())}
)


def main() -> None:
    """Runs the command line of this process. Exit codes: 0 done, 1 failed, 2 used wrongly or not installed."""
    if importlib.util.find_spec("typer") is None:
        _stop(
            "foothill: this is the base install, the Python client alone. In Foothill's folder install a role, such as "
            f"{install('router')} (or fleet, edge, cloud, compiler), or {install('all')} for everything."
        )
    from foothill import commands

    command = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
    try:
        commands.build(command)(prog_name="foothill")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in _OWN:
            raise
        _stop(explain_missing(command, package))


def explain_missing(command: str, package: str) -> str:
    """What to type when `command` ran into a package that is not installed."""
    extra = ROOMS[command].extra if command in ROOMS else _OTHERS.get(command, "all")
    return f"foothill {command}: needs {package}, which is not installed. In Foothill's folder type: {install(extra)}"


def _stop(message: str) -> NoReturn:
    sys.stderr.write(message + "\n")
    sys.exit(2)
