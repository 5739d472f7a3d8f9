"""Mixed precision: the fewest layers in float with which an int8 file keeps its accuracy, and what each costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from model_compiler.data.samples import Samples, first
from model_compiler.errors import CompileError
from model_compiler.metrics import Metric
from model_compiler.progress import Advance, unwatched
from model_compiler.quantizing.diagnose import Diagnosis, Finding, Quantize
from model_compiler.quantizing.judge import Judge, Score, points, standard_error
from model_compiler.quantizing.noise import answers_db
from model_compiler.quantizing.placement import Keep
from model_compiler.quantizing.ranges import Table
from model_compiler.quantizing.timing import medians_ms
from model_compiler.replay import Ends

_STEPS = (1, 1, 1, 1, 2, 2, 4, 4, 8)
"""How many more places each trial adds; the last for ever."""

_TAKEN_BACK = 24
_SPARED_DB = 1.0
_ROUNDS = 60

Mix = Mapping[str, Keep]


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`max_drop`: points that may be lost against the float model, with a margin of so many standard errors of the
    measured drop: a drop that a few samples more would have shown is none that was kept.
    `max_latency_ratio`: over the plain int8 file, by measurement, which makes the outcome depend on the machine.
    `max_bytes`: of the file.
    """

    max_drop: float
    margin: float = 1.0
    max_latency_ratio: float | None = None
    max_bytes: int | None = None


class KeptLayer(msgspec.Struct, frozen=True):
    """What one layer in float costs and brings, beside the same file with this layer int8 again.

    `gain`: points; `cost_ms`: of one run at batch 1, None for a file that this machine does not run as its target does.
    """

    node: str
    precision: Keep
    gain: float
    cost_ms: float | None
    cost_bytes: int


class Fallback(msgspec.Struct, frozen=True):
    """`keep` is what `quantize` takes. `told` is one sentence for the report, and says so where no mix `holds`.

    `latency_ratio`: over the plain int8 file, None where it was not measured. `tried`: files made and scored.
    """

    keep: dict[str, Keep]
    costs: tuple[KeptLayer, ...]
    float_score: float
    int8_score: float
    score: float
    bytes: int
    latency_ratio: float | None
    holds: bool
    told: str
    tried: int


def fall_back(
    diagnosis: Diagnosis,
    fp32: Path,
    out: Path,
    table: Table,
    samples: Samples,
    ends: Ends,
    metric: Metric,
    budget: Budget,
    *,
    quantize: Quantize,
    literal: bool = False,
    advance: Advance = unwatched,
) -> Fallback:
    """Writes to `out` the int8 file with the fewest layers in float that keeps the budget on `samples`.

    Greedy, in the order of the diagnosis: places are added in fp16 until the drop is within the budget, then lifted to
    fp32 where that is not enough; then each layer is made int8 again if the budget holds without it, the least
    important first. All is bounded by counts, not by the clock: the same inputs give the same mix, unless the budget
    names a latency. Where no mix holds, `out` is the most accurate one found within latency and bytes.
    """
    judge = Judge(samples, ends, metric, literal)
    with TemporaryDirectory() as work:
        search = _Search(diagnosis, fp32, table, judge, quantize, budget, Path(work))
        enough = _taken_back(search, _enough(search, advance), advance)
        mix = enough if search.affords(enough) else _within(search, enough)
        search.write(mix, out)
        costs = search.costs(mix)
        advance(1.0)
        return _outcome(search, mix, enough, costs, out)


def _enough(search: _Search, advance: Advance) -> Mix:
    """The first mix that keeps the accuracy, else the most accurate one."""
    mixes = list(_growing(search.findings))
    for index, mix in enumerate(mixes):
        if search.accurate(mix):
            return mix
        advance(0.5 * (index + 1) / len(mixes))
    return max((mix for mix in mixes if search.exists(mix)), key=lambda mix: search.score(mix).value)


def _growing(findings: Sequence[Finding]) -> Iterator[Mix]:
    """Nothing; more and more places in fp16, the worst first; then more and more of them in fp32."""
    yield {}
    stages: tuple[tuple[Keep, Mix], ...] = (("fp16", {}), ("fp32", _mix(findings, "fp16")))
    for precision, rest in stages:
        taken = 0
        for step in chain(_STEPS, repeat(_STEPS[-1])):
            taken = min(taken + step, len(findings))
            yield {**rest, **_mix(findings[:taken], precision)}
            if taken == len(findings):
                break


def _mix(findings: Sequence[Finding], precision: Keep) -> dict[str, Keep]:
    return {node: precision for finding in findings for node in finding.takers}


def _taken_back(search: _Search, mix: Mix, advance: Advance) -> Mix:
    """Without the layers that the budget holds without.

    The answers must stay as near to the float model's, too: the samples that choose among many mixes flatter the one
    that they choose.
    """
    if not search.accurate(mix):
        return mix
    least_db = search.answer_db(mix) - _SPARED_DB
    for index, node in enumerate([*mix][: -_TAKEN_BACK - 1 : -1]):
        fewer = _without(mix, node)
        if search.accurate(fewer) and search.answer_db(fewer) >= least_db:
            mix = fewer
        advance(0.5 + 0.3 * index / _TAKEN_BACK)
    return mix


def _without(mix: Mix, node: str) -> Mix:
    return {name: precision for name, precision in mix.items() if name != node}


def _within(search: _Search, mix: Mix) -> Mix:
    """The longest beginning of `mix` that latency and bytes allow, by halves: both grow with each layer."""
    nodes, fits, breaks = [*mix], 0, len(mix)
    while breaks - fits > 1:
        middle = (fits + breaks) // 2
        if search.affords({node: mix[node] for node in nodes[:middle]}):
            fits = middle
        else:
            breaks = middle
    return {node: mix[node] for node in nodes[:fits]}


class _Search:
    """Mixes that were tried: each is made and scored once."""

    def __init__(
        self,
        diagnosis: Diagnosis,
        fp32: Path,
        table: Table,
        judge: Judge,
        quantize: Quantize,
        budget: Budget,
        work: Path,
    ) -> None:
        self.budget, self.judge = budget, judge
        self.findings = [each for each in diagnosis.findings if "missing QDQ" not in each.causes]
        self._fp32, self._table, self._quantize, self._work = fp32, table, quantize, work
        self.exact = judge.score(fp32)
        self._scores: dict[frozenset[tuple[str, Keep]], Score | None] = {}
        self._ratios: dict[frozenset[tuple[str, Keep]], float] = {}

    @property
    def tried(self) -> int:
        return len(self._scores)

    def write(self, mix: Mix, out: Path) -> None:
        self._quantize(self._fp32, out, self._table, keep=mix)

    def exists(self, mix: Mix) -> bool:
        """Whether it can be made: not where it leaves nothing to quantize, or where a weight is too large for fp16."""
        key = frozenset(mix.items())
        if key not in self._scores:
            try:
                self._scores[key] = self.judge.score(self._file(mix, "trial"))
            except CompileError:
                if not mix:
                    raise
                self._scores[key] = None
        return self._scores[key] is not None

    def score(self, mix: Mix) -> Score:
        if not self.exists(mix):
            raise CompileError(f"{len(mix)} layers cannot be kept in float: nothing is left, or fp16 is too narrow.")
        score = self._scores[frozenset(mix.items())]
        assert score is not None
        return score

    def drop(self, mix: Mix) -> float:
        return points(self.exact, self.score(mix))

    def error(self, mix: Mix) -> float:
        """The standard error of the drop."""
        return standard_error(self.exact, self.score(mix))

    def answer_db(self, mix: Mix) -> float:
        return answers_db(self.exact.answers, self.score(mix).answers)

    def accurate(self, mix: Mix) -> bool:
        if not self.exists(mix):
            return False
        margin = self.budget.margin * self.error(mix) if self.budget.margin else 0.0
        return self.drop(mix) + margin <= self.budget.max_drop

    def affords(self, mix: Mix) -> bool:
        """Whether latency and bytes allow it."""
        if self.budget.max_bytes is not None and self._file(mix, "trial").stat().st_size > self.budget.max_bytes:
            return False
        return self.budget.max_latency_ratio is None or self.ratio(mix) <= self.budget.max_latency_ratio

    def ratio(self, mix: Mix) -> float:
        """Latency over that of the plain int8 file."""
        key = frozenset(mix.items())
        if key not in self._ratios:
            taken = self._times({"int8": self._file({}, "int8"), "mix": self._file(mix, "mix")})
            self._ratios[key] = taken["mix"] / taken["int8"] if mix else 1.0
        return self._ratios[key]

    def costs(self, mix: Mix) -> tuple[KeptLayer, ...]:
        files = {node: self._file(_without(mix, node), f"without-{index}") for index, node in enumerate(mix)}
        whole = self._file(mix, "mix")
        taken = {} if self.judge.literal or not mix else self._times({**files, "": whole})
        return tuple(
            KeptLayer(
                node,
                precision,
                points(self.score(mix), self.score(_without(mix, node))),
                taken[""] - taken[node] if taken else None,
                whole.stat().st_size - files[node].stat().st_size,
            )
            for node, precision in mix.items()
        )

    def _file(self, mix: Mix, name: str) -> Path:
        path = self._work / f"{name}.onnx"
        self.write(mix, path)
        return path

    def _times(self, files: Mapping[str, Path]) -> dict[str, float]:
        return medians_ms(files, first(self.judge.samples, _ROUNDS), self.judge.ends, rounds=_ROUNDS)


def _outcome(search: _Search, mix: Mix, enough: Mix, costs: tuple[KeptLayer, ...], out: Path) -> Fallback:
    ratio = None if search.judge.literal else search.ratio(mix)
    return Fallback(
        keep=dict(mix),
        costs=costs,
        float_score=search.exact.value,
        int8_score=search.score({}).value,
        score=search.score(mix).value,
        bytes=out.stat().st_size,
        latency_ratio=ratio,
        holds=search.accurate(mix) and mix == enough,
        told=_told(search, mix, enough, ratio),
        tried=search.tried,
    )


def _told(search: _Search, mix: Mix, enough: Mix, ratio: float | None) -> str:
    budget, speed = search.budget, "" if ratio is None else f", at {ratio:.2f} times the int8 file's latency"
    allowed = f"{search.drop(mix):.2f} ± {search.error(mix):.2f} points lost where {budget.max_drop:.2f} may be"
    if search.accurate(mix) and mix == enough:
        what = f"{len(mix)} layers in float keep the budget" if mix else "Int8 alone keeps the budget"
        return f"{what}: {allowed}, {search.drop({}):.2f} without them{speed}." if mix else f"{what}: {allowed}."
    if mix != enough:
        return (
            f"No mix holds the budget: {allowed}{speed}; {len(enough)} layers in float would lose "
            f"{search.drop(enough):.2f}, and break its latency or bytes. Allow more of them, or train with int8."
        )
    return (
        f"No mix holds the budget: {allowed} with {len(mix)} layers in float{speed}. What is left is not rounding of "
        "these layers, or fewer samples than points need: measure on more samples, or train with int8."
    )
