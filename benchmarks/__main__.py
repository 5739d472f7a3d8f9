"""The benchmarks: `python -m benchmarks [NAME] [--json FILE]`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from benchmarks import client, cold_start, faults, machine, mqtt, overload, peers, proxies, router, serving
from benchmarks.cameras import table as cameras
from benchmarks.report import Report, Reports, markdown
from benchmarks.rounds import FULL, Profile
from benchmarks.stage import Benchmark, perform

BENCHMARKS: Mapping[str, Benchmark] = {
    module.NAME: module.measure for module in (serving, overload, cold_start, router, faults, client, mqtt)
}
ONLY_BY_NAME: Mapping[str, Benchmark] = {module.NAME: module.measure for module in (peers, proxies, cameras)}
"""What needs programs that this repository does not bring."""
_NAMED = {**BENCHMARKS, **ONLY_BY_NAME}
_NAMES = f"One of {', '.join(_NAMED)}; without it all but {', '.join(ONLY_BY_NAME)}."


def main(
    name: Annotated[str, typer.Argument(help=_NAMES)] = "",
    json: Annotated[Path | None, typer.Option(help="Write all figures to this file.")] = None,
    rounds: Annotated[int, typer.Option(help="How often every case is measured.", min=1)] = FULL.rounds,
    seconds: Annotated[float, typer.Option(help="How long a case is measured each time.", min=0.05)] = FULL.seconds,
    patience: Annotated[
        float, typer.Option(help="For so many seconds, measure again where other processes were busy.", min=0)
    ] = FULL.patience_s,
) -> None:
    """Measures on two cores of this machine and prints tables; ratios of interleaved rounds, since machines drift."""
    if name and name not in _NAMED:
        raise typer.BadParameter(f"{name!r} is no benchmark. Use one of {', '.join(_NAMED)}.")
    profile = Profile(rounds, seconds, FULL.warm_s, patience)
    told: dict[str, Report] = {}
    with tempfile.TemporaryDirectory(prefix="foothill-digits-") as digits:
        for each in [name] if name else BENCHMARKS:
            told[each] = perform(_NAMED[each], profile, Path(digits))
            print(markdown(told[each]), end="\n\n", flush=True)
    if json is not None:
        date = datetime.now(timezone.utc).strftime("%Y-%m-%d")
        json.write_bytes(msgspec.json.encode(Reports(machine.describe(), profile, date, told)))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
