"""What a compilation found, as its report tells it."""

from __future__ import annotations

import platform
from collections.abc import Mapping

import msgspec

from contracts.boards import BOARDS
from contracts.engines import engine_artifact
from contracts.errors import FoothillError
from model_compiler.build import Built
from model_compiler.compilation import Compilation
from model_compiler.confidence import Certified
from model_compiler.int8_files import Int8
from model_compiler.learn import Learned
from model_compiler.learning.train import Schedule
from model_compiler.learning.ways import PAPERS
from model_compiler.measure import REFERENCE, Findings, Found
from model_compiler.onnx_ends import load
from model_compiler.pack import Packed
from model_compiler.plan import Net, Plan, most_exact
from model_compiler.quantizing.mixed import Mixed
from model_compiler.quantizing.search import Search, Written
from model_compiler.reporting import findings as told
from model_compiler.reporting import gather
from model_compiler.reporting.spread import latency_of
from runtime.serving.models.loaded import pick_artifact

_NO_SAMPLES = told.NotMeasured("There are no test samples.")
_ELSEWHERE = told.NotMeasured("made for GPUs.")


def tell(
    work: Compilation,
    packed: Packed,
    learned: Learned,
    built: Built,
    certified: Mapping[str, Certified],
    found: Findings,
) -> told.CompileReport:
    """Everything that was found, in the report's terms; what was not measured says why."""
    budget = work.plan.budget
    return told.CompileReport(
        head=_head(work, packed, found),
        budget=told.Budget(budget.max_drop_points, budget.min_speed_up, budget.max_latency_ms, budget.max_bytes),
        candidates=_candidates(work, built, found),
        learning=_learning(work, learned),
        quantizing=_quantizing(work, built),
        confidence=_confidence(work, certified),
        export=_export(work, built),
        targets=_targets(work, packed, built),
    )


def _head(work: Compilation, packed: Packed, found: Findings) -> told.Head:
    return told.Head(
        bundle=packed.manifest.reference,
        digest=packed.digest,
        task=work.plan.task,
        measured_at=found.measured_at,
        machine=found.machine,
        how=work.plan.how,
        tools=work.stages.tools,
        stages=gather.stages_of(ran for ran in work.stages.ran if ran.bundle == work.plan.reference),
        warnings=tuple(work.warnings),
    )


def _candidates(work: Compilation, built: Built, found: Findings) -> told.Candidates:
    plan = work.plan
    role = "teacher" if plan.is_compared else "fp32 form"
    tried = tuple(
        _candidate(artifact.file, artifact.precision, found.forms[artifact.file], artifact.file, chosen=number == 0)
        for number, artifact in enumerate(built.order)
    )
    reference = _candidate(role, "fp32", found.forms[REFERENCE], "", chosen=False)
    return told.Candidates(found.metric, plan.how, tried, reference, role)


def _candidate(name: str, precision: str, found: Found, file: str, *, chosen: bool) -> told.Candidate:
    score = _NO_SAMPLES if found.score is None else told.Score(found.score, found.samples, found.against_reference)
    latency = latency_of(found.times_ms) if found.times_ms else _ELSEWHERE
    return told.Candidate(name, precision, found.bytes, score, latency, file, chosen)


def _learning(work: Compilation, learned: Learned) -> told.Learning | told.Absent:
    schedule = _schedule(work.plan)
    if schedule is None:
        return told.NotDone("The model came with its weights.")
    return told.Learning(
        pruning=gather.pruning_of(learned.pruned) if learned.pruned else told.NotDone("The recipe has no [prune]."),
        ways=gather.ways_of(learned.trials, PAPERS),
        validation_samples=len(work.plan.data.validation),
        training=told.Training(learned.way, schedule.epochs, len(work.plan.data.train)),
    )


def _schedule(plan: Plan) -> Schedule | None:
    """By which that learned what became artifacts; None where it came with its weights."""
    source = plan.student or plan.teacher
    if plan.prune is None and not (isinstance(source, Net) and source.weights is None):
        return None
    alone = plan.prune is None and (plan.teacher is None or plan.student is None)
    if alone and isinstance(source, Net) and source.training is not None:
        return source.training.schedule
    return plan.learning.schedule if plan.learning is not None else None


def _quantizing(work: Compilation, built: Built) -> told.Quantizing | told.Absent:
    if built.int8 is None:
        return told.NotDone("The plan has no int8 artifact.")
    search, mixes = built.int8.search, built.int8.mixed
    first = search.written[0]
    mixed = next((mixes[each.file] for each in search.written if each.file in mixes), None)
    return told.Quantizing(
        calibration_rows=search.calibration_rows,
        calibrations=tuple(
            told.Calibration(each.method, each.score, ("equalized",) if each.equalized else (), number == 0)
            for number, each in enumerate(search.tried)
        ),
        validation_samples=len(work.plan.data.validation),
        float_validation=search.float_score,
        equalized=gather.equalized_of(search.equalized),
        bias=_bias(work, first),
        diagnosis=_diagnosis(work, search, mixed),
        fallback=_fallback(mixed) if mixed is not None else _NO_NEED,
        qat=_qat(built.int8),
        int4=gather.int4_of(built.int4, work.plan.quantizing.int4_block) if built.int4 else _NO_INT4,
        scored_by=search.scored_by,
    )


def _fallback(mixed: Mixed) -> told.Fallback:
    found = gather.fallback_of(mixed.fallback)
    return msgspec.structs.replace(found, told=f"{mixed.file}: {found.told}")


_NO_NEED = told.NotDone("int8 keeps the budget, or the recipe does not ask for it.")
_NO_INT4 = told.NotDone("The recipe asks for no int4 artifact.")


def _bias(work: Compilation, written: Written) -> told.BiasCorrection | told.Absent:
    if not work.plan.quantizing.correct_bias:
        return told.NotDone("The recipe does not ask for it.")
    if not written.corrected:
        return told.NotDone("It was tried, and did not help.")
    return told.BiasCorrection(written.corrected, written.first_score, written.score)


def _diagnosis(work: Compilation, search: Search, mixed: Mixed | None) -> told.Diagnosis:
    if mixed is not None:
        return gather.diagnosis_of(mixed.diagnosis, search.tensors, mixed.fallback.keep)
    return told.Diagnosis(
        layers=tuple(told.LayerNoise(each.node, each.tensor, each.sqnr_db) for each in search.noise),
        lost_points=100 * (search.float_score - search.written[0].score),
        samples=len(work.plan.data.validation),
        sought=False,
    )


def _qat(int8: Int8) -> told.Qat | told.Absent:
    if int8.qat is None:
        why = (
            "Calibration alone keeps the budget, the recipe has no learn.qat schedule, or there is nothing to learn by."
        )
        return told.NotDone(why)
    return told.Qat(int8.qat.epochs, int8.qat.before, int8.qat.after, int8.qat.kept)


def _confidence(work: Compilation, certified: Mapping[str, Certified]) -> told.Confidence | told.Absent:
    if work.plan.cloud is None:
        return told.NotDone("There is no cloud bundle to be certified against.")
    if not certified:
        return told.NotDone("No rule could be fitted; the warnings say why.")
    rules = tuple(
        gather.rule_of(name, found.fitted, found.confidence, found.differs) for name, found in certified.items()
    )
    return told.Confidence(rules, work.plan.cloud.manifest.reference, things=work.plan.detector is not None)


def _export(work: Compilation, built: Built) -> told.Export:
    model = load(built.files[most_exact(built.order).file])
    opset = max((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), default=0)
    parity = tuple(
        told.Parity(each.artifact, each.rows, each.largest_difference, each.agreement) for each in built.parity
    )
    return told.Export(opset, work.plan.ends.batch is None, parity)


def _targets(work: Compilation, packed: Packed, built: Built) -> told.Targets:
    targets = dict.fromkeys(target for artifact in work.plan.artifacts for target in artifact.targets)
    gpus = [target for target in targets if BOARDS[target].family != "cpu"]
    arms = [target for target in targets if BOARDS[target].arch != platform.machine() and target not in gpus]
    return told.Targets(
        taken=tuple(_taken(packed, target) for target in targets),
        lint=tuple(told.Lint(each.file) for each in built.order if each.runtime == "tensorrt"),
        not_measured=(
            *(f"Speed on {gpu}: this machine has no such GPU; its engine is built on the board." for gpu in gpus),
            *(f"Speed on {arm}: this machine is {platform.machine()}." for arm in arms),
        ),
    )


def _taken(packed: Packed, target: str) -> told.Taken:
    try:
        first = pick_artifact(packed.manifest, target)
    except FoothillError:
        return told.Taken(target, "", not_measured="No artifact of this bundle runs there without an engine.")
    source = engine_artifact(packed.manifest, target)
    if source is not None:
        note = f"A node with TensorRT builds an engine from {source.file} and serves this until it is ready."
        return told.Taken(target, first.file, first.runtime, note)
    return told.Taken(target, first.file, first.runtime)
