"""The compiler's numbers: `python -m benchmarks.compiler [PART]... --cache DIR`.

FOOTHILL_ASSETS has the pictures, models and videos. What takes long is kept in the cache: the first run takes hours of
one core, another one minutes. What NVIDIA's parser says of the TensorRT files is `make test-trt`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import torch
import typer

from benchmarks import compile_cifar, confidence_replays, hostile, int4, outside, planted
from benchmarks.machine import describe
from benchmarks.report import table
from model_compiler.confidence import Promise


class Ask(msgspec.Struct, frozen=True):
    """What every part is asked with. `nncf`: the Python of an environment that has NNCF."""

    cache: Path
    seeds: range
    nncf: Path | None


def cifar(ask: Ask) -> str:
    outcome = compile_cifar.measure(ask.cache, ask.seeds)
    points = outcome.points
    return (
        f"{table(outcome.rows)}\n\n{100 * points.mean:+.2f} points in the mean; the seeds' intervals lie within "
        f"{100 * points.low:+.2f} to {100 * points.high:+.2f}. The teacher took {outcome.teacher_cpu_minutes} minutes "
        "of one core."
    )


def hostile_(ask: Ask) -> str:
    return table(hostile.rows(hostile.measure(ask.cache, ask.seeds, nncf=ask.nncf, told=_told)))


def planted_(ask: Ask) -> str:
    return table(planted.rows(planted.measure(ask.cache, ask.seeds, told=_told)))


def int4_(ask: Ask) -> str:
    return table(int4.measure(ask.seeds))


def confidence(ask: Ask) -> str:
    """On the digits, and on the first CIFAR-10 student beside its teacher."""
    edge, cloud = compile_cifar.test_logits(ask.cache, ask.seeds[0])
    populations = [
        confidence_replays.digits_population(ask.cache / "digits"),
        confidence_replays.logits_population("cifar10", "10,000 test pictures of CIFAR-10", edge, cloud),
    ]
    promises = [Promise(epsilon=epsilon) for epsilon in (0.01, Promise().epsilon, 0.05)]
    told = [confidence_replays.measure(population, promises) for population in populations]
    replayed = table([row for each in told for row in each.replayed])
    return "\n\n".join(
        [replayed, table([row for each in told for row in each.calibrated]), *(h for t in told for h in t.how)]
    )


def outside_(ask: Ask) -> str:
    return table(outside.measure(ask.cache))


PARTS: Mapping[str, Callable[[Ask], str]] = {
    "cifar": cifar,
    "hostile": hostile_,
    "planted": planted_,
    "int4": int4_,
    "confidence": confidence,
    "outside": outside_,
}


def main(
    parts: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(PARTS)}; all when left out.")] = None,
    cache: Annotated[Path, typer.Option(help="Where pictures, trained networks and stages are kept.")] = Path(".cache"),
    seeds: Annotated[int, typer.Option(help="How many networks of each kind.", min=1)] = 5,
    nncf: Annotated[Path | None, typer.Option(help="The Python of an environment that has NNCF, a peer.")] = None,
) -> None:
    """Prints a table for each part, for the machine it runs on."""
    unknown = [part for part in parts or [] if part not in PARTS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is no part. Use some of {', '.join(PARTS)}.")
    torch.set_num_threads(1)
    ask = Ask(cache, range(seeds), nncf)
    print(describe())
    for part in parts or PARTS:
        print(f"\n## {part}\n\n{PARTS[part](ask)}", flush=True)


def _told(what: object) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    typer.run(main)
