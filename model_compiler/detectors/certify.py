"""The confidence rule of a detector's artifacts: what they find in pictures, held against what the cloud finds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from contracts.manifest import digest_of
from contracts.predictions import OVERLAP
from contracts.strata import stratum_of
from model_compiler.build import Built
from model_compiler.calibration import confidence_of_scores
from model_compiler.compilation import Compilation
from model_compiler.confidence import Certified, Scored, fit_score_rule
from model_compiler.detectors.cloud import strangers
from model_compiler.detectors.finder import Finder, of_artifact, of_bundle, opened, shown
from model_compiler.detectors.pairs import MAP_SHARE, Pair, Picture, pairs_of, split
from model_compiler.errors import CompileError
from model_compiler.pack import Packed
from model_compiler.plan import Plan
from model_compiler.progress import Advance
from model_compiler.stages import file_digest

_PAIRS_FILE, _RULES_FILE = "pairs.json", "rules.json"
_Pairs = dict[str, tuple[Pair, ...]]
"""By artifact file."""


def certify_things(work: Compilation, built: Built) -> dict[str, Certified]:
    """By artifact file; none without a cloud bundle, or without pictures.

    All detectors see every picture, once: another promise is fitted on what they have found. Raises CompileError where
    one finds nothing to fit a rule on.
    """
    plan = work.plan
    if plan.cloud is None:
        return {}
    if not plan.pictures:
        work.warn(
            "No confidence rule: it needs pictures that both detectors are asked about. Everything counts as sure."
        )
        return {}
    cloud, told = plan.cloud, _told(plan, plan.cloud, built)
    if warning := strangers(plan.labels, cloud):
        work.warn(warning)

    def find(directory: Path, advance: Advance) -> None:
        found = _found(_finders(plan, built), of_bundle(cloud), plan.pictures, advance)
        (directory / _PAIRS_FILE).write_bytes(msgspec.json.encode(found))

    pairs = msgspec.json.decode((work.stage("pairs", told, find) / _PAIRS_FILE).read_bytes(), type=_Pairs)

    def fit(directory: Path, advance: Advance) -> None:
        rules = {each.file: _certified(plan, cloud, built.files[each.file], pairs[each.file]) for each in built.order}
        (directory / _RULES_FILE).write_bytes(msgspec.json.encode(rules))

    kept = work.stage("confidence", {**told, "promise": msgspec.structs.asdict(plan.promise), "map": MAP_SHARE}, fit)
    return msgspec.json.decode((kept / _RULES_FILE).read_bytes(), type=dict[str, Certified])


def _told(plan: Plan, cloud: Packed, built: Built) -> dict[str, Any]:
    """What decides the pairs."""
    pictures = "\n".join(each.digest for each in plan.pictures)
    return {
        "files": {name: file_digest(path) for name, path in built.files.items()},
        "cloud": cloud.digest,
        "pictures": hashlib.sha256(pictures.encode()).hexdigest(),
        "head": msgspec.to_builtins([plan.kind, plan.detector, plan.preprocess, plan.labels, plan.ends.outputs]),
        "overlap": OVERLAP,
    }


def _finders(plan: Plan, built: Built) -> dict[str, Finder]:
    return {
        each.file: of_artifact(plan, each.file, built.files[each.file], literal=each.literal) for each in built.order
    }


def _found(edges: dict[str, Finder], cloud: Finder, pictures: Sequence[Picture], advance: Advance) -> _Pairs:
    """One picture after the other: none is kept."""
    found: dict[str, list[Pair]] = {name: [] for name in edges}
    with ExitStack() as stack:
        asked = {name: stack.enter_context(opened(finder)) for name, finder in edges.items()}
        ask_cloud = stack.enter_context(opened(cloud))
        for number, picture in enumerate(pictures):
            seen = shown(picture.path)
            there = ask_cloud(seen)
            for name, ask in asked.items():
                found[name] += pairs_of(picture.digest, ask(seen), there)
            advance((number + 1) / len(pictures))
    return {name: tuple(pairs) for name, pairs in found.items()}


def _certified(plan: Plan, cloud: Packed, artifact: Path, pairs: Sequence[Pair]) -> Certified:
    parts = split(pairs)
    if not parts.fit:
        raise CompileError(
            f"{plan.reference} finds nothing in the {MAP_SHARE:.0%} of {len(plan.pictures)} pictures that its "
            "confidence is fitted on. Give --calibration pictures like those that cameras will send, or look for a "
            "wrong --colour, --scale, --mean or --std."
        )
    fit, certify = (_scored(part) for part in parts)
    rule = fit_score_rule(
        fit,
        certify,
        plan.promise,
        stratum=stratum_of(digest_of(artifact.read_bytes()), cloud.digest, plan.task),
        cloud_digest=cloud.digest,
    )
    confidence = confidence_of_scores(certify.scores, rule.rule)
    return Certified(rule, tuple(confidence.tolist()), tuple((~certify.agrees).tolist()))


def _scored(pairs: Sequence[Pair]) -> Scored:
    return Scored(
        np.array([each.score for each in pairs], np.float64), np.array([each.agrees for each in pairs], np.bool_)
    )
