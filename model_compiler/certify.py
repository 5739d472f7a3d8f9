"""The confidence rule of every artifact against the cloud bundle's answers."""

from __future__ import annotations

from pathlib import Path

import msgspec

from contracts.manifest import digest_of
from contracts.strata import stratum_of
from model_compiler.build import Built
from model_compiler.calibration import confidence_of
from model_compiler.cloud import cloud_model
from model_compiler.compilation import Compilation
from model_compiler.confidence import Certified, fit_rule
from model_compiler.data.samples import Floats, Samples
from model_compiler.detectors.certify import certify_things
from model_compiler.onnx_ends import fitted
from model_compiler.plan import Plan
from model_compiler.progress import Advance
from model_compiler.replay import outputs_of
from model_compiler.stages import file_digest
from model_compiler.yardstick import as_logits

_RULES_FILE = "rules.json"


def certify(work: Compilation, built: Built) -> dict[str, Certified]:
    """By artifact file; none without a cloud bundle, for tasks without classes, or without samples to certify on."""
    rules = certify_things(work, built) if work.plan.detector is not None else _certify_answers(work, built)
    for name, found in rules.items():
        if not found.fitted.certification.feasible:
            work.warn(f"{name}: {found.fitted.certification.message}")
    return rules


def _certify_answers(work: Compilation, built: Built) -> dict[str, Certified]:
    """The samples that fit the maps and those that certify the threshold are disjoint parts of the plan's data."""
    plan = work.plan
    if plan.cloud is None:
        return {}
    if plan.kind not in ("logits", "probabilities"):
        work.warn(f"No confidence rule: answers of the kind {plan.kind} have no class whose confidence could be told.")
        return {}
    if not len(plan.data.fit) or not len(plan.data.threshold):
        work.warn("No confidence rule: it needs the parts `fit` and `threshold` of [data]. Everything counts as sure.")
        return {}
    cloud = cloud_model(work)
    assert cloud is not None  # the plan has a cloud bundle
    told = {
        "files": {name: file_digest(path) for name, path in built.files.items()},
        "cloud": plan.cloud.digest,
        "fit": plan.data.fit.digest(),
        "threshold": plan.data.threshold.digest(),
        "promise": msgspec.structs.asdict(plan.promise),
        "kind": plan.kind,
    }

    def produce(directory: Path, advance: Advance) -> None:
        found = _certify(work, built, cloud, advance)
        (directory / _RULES_FILE).write_bytes(msgspec.json.encode(found))

    kept = work.stage("confidence", told, produce)
    return msgspec.json.decode((kept / _RULES_FILE).read_bytes(), type=dict[str, Certified])


def _certify(work: Compilation, built: Built, cloud: Path, advance: Advance) -> dict[str, Certified]:
    plan = work.plan
    fit, threshold = (plan.data.fit, plan.data.threshold)
    ends = fitted(plan.ends, cloud)
    fit_answers, threshold_answers = (outputs_of(cloud, part, ends).argmax(axis=1) for part in (fit, threshold))
    assert plan.cloud is not None
    rules = {}
    for artifact in built.order:
        path, literal = built.files[artifact.file], artifact.literal
        fit_logits, threshold_logits = (_logits(plan, path, part, literal=literal) for part in (fit, threshold))
        rule = fit_rule(
            fit_logits,
            fit_answers,
            threshold_logits,
            threshold_answers,
            plan.promise,
            stratum=stratum_of(digest_of(path.read_bytes()), plan.cloud.digest, plan.task),
            cloud_digest=plan.cloud.digest,
        )
        confidence = confidence_of(threshold_logits, rule.rule)
        differs = threshold_logits.argmax(axis=1) != threshold_answers
        rules[artifact.file] = Certified(rule, tuple(confidence.tolist()), tuple(differs.tolist()))
        advance(len(rules) / len(built.files))
    return rules


def _logits(plan: Plan, path: Path, samples: Samples, *, literal: bool) -> Floats:
    return as_logits(plan, outputs_of(path, samples, plan.ends, literal=literal))
