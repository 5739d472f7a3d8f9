"""What artifacts really do: the task's metric over counted samples, and latency, all taking turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime

from contracts.manifest import ConfidenceRule, Manifest, Measured, Measurements
from model_compiler.bootstrap import Interval, paired_difference
from model_compiler.build import Built
from model_compiler.calibration import confidence_of
from model_compiler.cloud import cloud_model
from model_compiler.compilation import Compilation
from model_compiler.confidence import Certification, Certified
from model_compiler.data.samples import Floats, first
from model_compiler.learn import Learned
from model_compiler.machine import machine
from model_compiler.onnx_ends import fitted
from model_compiler.plan import Plan
from model_compiler.progress import Advance
from model_compiler.replay import Ends, all_outputs_of, open_engine
from model_compiler.stages import file_digest
from model_compiler.yardstick import Yardstick, as_logits, yardstick

ROUNDS = 150
WARM_UP = 20
_LONGEST_S = 20.0
_FOUND_FILE = "measured.json"
REFERENCE = "reference"
_HOW_LATENCY = (
    f"latency: median of up to {ROUNDS} runs at batch 1, one thread, ONNX Runtime {onnxruntime.__version__}, "
    "artifacts and reference taking turns"
)


Rules = Mapping[str, ConfidenceRule]


class Form(msgspec.Struct, frozen=True):
    """A file to measure. `literal`: an artifact for GPUs, whose speed nothing here can tell."""

    path: Path
    literal: bool = False


class Found(msgspec.Struct, frozen=True):
    """`score` over `samples` (None: there are none), `against_reference` on the same rows, and `times_ms` of each run
    at batch 1 on one thread (empty: it does not run here).

    Of an artifact with a confidence rule: `agreement` with the cloud, and the share of samples that escalates.
    """

    bytes: int
    samples: int
    times_ms: tuple[float, ...]
    score: float | None = None
    against_reference: Interval | None = None
    agreement: float | None = None
    escalation: float | None = None

    @property
    def latency_ms(self) -> float | None:
        return round(float(np.median(self.times_ms)), 4) if self.times_ms else None


class Findings(msgspec.Struct, frozen=True):
    """By artifact file, and REFERENCE for what they are compared with; when, in UTC, and on which machine."""

    metric: str
    forms: dict[str, Found]
    measured_at: str
    machine: str


def measure(work: Compilation, built: Built, learned: Learned, certified: Mapping[str, Certified]) -> Findings:
    """Every artifact on the test samples, beside what it is compared with. Run once for the same files and rules."""
    plan = work.plan
    rules = {name: found.fitted.rule for name, found in certified.items()}
    forms = {each.file: Form(built.files[each.file], each.literal) for each in built.order}
    forms[REFERENCE] = Form(_reference(work, learned))
    told = {
        "forms": {name: file_digest(form.path) for name, form in forms.items()},
        "test": plan.data.test.digest(),
        "task": plan.task,
        "kind": plan.kind,
        **plan.judged_by,
        "rounds": ROUNDS,
        "machine": machine(),
        "rules": msgspec.to_builtins(rules),
    }

    def produce(directory: Path, advance: Advance) -> None:
        found = _measure(work, forms, rules, advance)
        (directory / _FOUND_FILE).write_bytes(msgspec.json.encode(found))

    kept = work.stage("measure", told, produce)
    found = msgspec.json.decode((kept / _FOUND_FILE).read_bytes(), type=Findings)
    _warn_of_no_gain(work, built, found)
    if plan.detector is None:
        return found
    told_of = {name: _told_of_things(found.forms[name], each.fitted.certification) for name, each in certified.items()}
    return msgspec.structs.replace(found, forms={**found.forms, **told_of})


def _told_of_things(form: Found, certification: Certification) -> Found:
    """No test picture says what the cloud's detector finds: the things that certify the threshold do."""
    agreement = 1.0 - certification.disagreement
    return msgspec.structs.replace(form, agreement=agreement, escalation=certification.escalation)


def _warn_of_no_gain(work: Compilation, built: Built, found: Findings) -> None:
    """Where nodes take a file first that another one of the same targets beats in all that was measured."""
    for number, taken in enumerate(built.order):
        for other in built.order[number + 1 :]:
            shared = set(taken.targets) & set(other.targets)
            if shared and _beats(found.forms[other.file], found.forms[taken.file]):
                work.warn(
                    f"{', '.join(sorted(shared))}: nodes take {taken.file} first, and {other.file} is smaller, faster "
                    "and no worse. Name its precision first, or leave the other out."
                )
                return


def _beats(one: Found, other: Found) -> bool:
    if one.latency_ms is None or other.latency_ms is None:
        return False
    smaller, faster = one.bytes < other.bytes, one.latency_ms < other.latency_ms
    return smaller and faster and (one.score or 0.0) >= (other.score or 0.0)


def _reference(work: Compilation, learned: Learned) -> Path:
    """What the artifacts are compared with: the cloud bundle, the teacher, or the model's own float form."""
    return cloud_model(work) or learned.reference.onnx


def measurements_of(plan: Plan, manifest: Manifest, found: Findings) -> Measurements:
    """As measurements.json tells it."""
    artifacts = {each.file: _measured(found.forms[each.file]) for each in manifest.artifacts}
    return Measurements(
        bundle=manifest.reference,
        artifacts=artifacts,
        how=f"{found.metric} on {plan.how}; {_HOW_LATENCY}",
        machine=found.machine,
        teacher=_measured(found.forms[REFERENCE]) if plan.is_compared else None,
        metric=found.metric,
    )


def _measured(found: Found) -> Measured:
    return Measured(found.score, found.samples, found.latency_ms, found.bytes, found.agreement, found.escalation)


def _measure(work: Compilation, forms: Mapping[str, Form], rules: Rules, advance: Advance) -> Findings:
    plan, test = work.plan, work.plan.data.test
    some = test if len(test) else plan.data.some
    by = yardstick(plan, some, forms[REFERENCE].path)
    scored = _scored(plan, by, forms, rules) if len(test) else {}
    advance(0.5)
    timed = {name: form.path for name, form in forms.items() if not form.literal}
    times = times_ms(timed, first(some, ROUNDS), plan.ends)
    found = {}
    for name, form in forms.items():
        bare = Found(form.path.stat().st_size, len(test), times.get(name, ()))
        found[name] = msgspec.structs.replace(bare, **scored.get(name, {}))
    return Findings(by.name, found, datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), machine())


def _scored(plan: Plan, by: Yardstick, forms: Mapping[str, Form], rules: Rules) -> dict[str, dict[str, Any]]:
    """What the test samples say of every form: the fields of Found that need them."""
    test = by.samples
    scored: dict[str, dict[str, Any]] = {}
    compared = forms[REFERENCE].path
    reference = all_outputs_of(compared, test, fitted(plan.ends, compared))
    for name, form in forms.items():
        outputs = all_outputs_of(form.path, test, plan.ends, literal=form.literal) if name != REFERENCE else reference
        scored[name] = {"score": by.whole(outputs, test.labels)}
        if by.rows is not None and name != REFERENCE:
            ours, theirs = (by.rows(each, test.labels) for each in (outputs, reference))
            scored[name]["against_reference"] = paired_difference(ours, theirs, seed=0)
        if name in rules:
            logits = as_logits(plan, outputs[plan.ends.output])
            cloud = reference[plan.ends.output].argmax(axis=1)
            scored[name]["agreement"] = float((logits.argmax(axis=1) == cloud).mean())
            scored[name]["escalation"] = 1.0 - float(
                (confidence_of(logits, rules[name]) >= rules[name].threshold).mean()
            )
    return scored


def times_ms(
    artifacts: Mapping[str, Path], inputs: Floats, ends: Ends, *, clock: Callable[[], float] = time.perf_counter
) -> dict[str, tuple[float, ...]]:
    """Milliseconds of each of up to ROUNDS runs at batch 1 per artifact, fewer where that would take too long.

    The artifacts take turns on the same input, so that a machine that drifts slows all of them.
    """
    taken: dict[str, list[float]] = {name: [] for name in artifacts}
    with ExitStack() as stack:
        engines = {name: stack.enter_context(closing(open_engine(path))) for name, path in artifacts.items()}

        def turn(number: int) -> None:
            feed = {ends.input: np.ascontiguousarray(inputs[number % len(inputs)][None])}
            for name, engine in engines.items():
                start = clock()
                engine.run(feed)
                taken[name].append((clock() - start) * 1e3)

        for turns, longest_s in ((WARM_UP, _LONGEST_S / 4), (ROUNDS, _LONGEST_S)):
            taken.update({name: [] for name in artifacts})  # what came before warmed up
            begin = clock()
            for number in range(turns):
                turn(number)
                if clock() - begin > longest_s:
                    break
    return {name: tuple(round(each, 4) for each in times) for name, times in taken.items()}
