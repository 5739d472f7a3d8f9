from __future__ import annotations

from collections import Counter
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import portability
from contracts.engine_choice import Build, Decision, Facts, Fallback, Load, choose, nearest_cache
from contracts.engines import EngineRecord, Machine, TimingCacheRecord, machine_of
from contracts.portability import RULES, Rule, obstacles
from tests.contracts import nvidia_runtime
from tests.contracts.engine_pairs import BOARDS, Pair, manifest, pairs, wanted_by

PAIRS = 10_000
ROOM = Facts(free_bytes=8 << 30, needed_bytes=1 << 30)


class Score(msgspec.Struct):
    """How decisions over many pairs came out against the runtime."""

    wrong: int = 0
    needless: int = 0
    kinds: Counter[str] = msgspec.field(default_factory=Counter)


def decide(pair: Pair) -> Decision:
    return choose(pair.wanted, pair.records, pair.caches, pair.machine, pair.facts)


def score(seed: int, count: int) -> Score:
    """`wrong`: an engine was to be loaded that does not load, or does not answer right. `needless`: one would have."""
    told = Score()
    for pair in pairs(seed, count):
        decision = decide(pair)
        if isinstance(decision, Load):
            told.kinds[decision.why] += 1
            told.wrong += nvidia_runtime.load(decision.record, pair.machine, pair.wanted) != "right"
        else:
            told.kinds[type(decision).__name__] += 1
            told.needless += any(
                nvidia_runtime.load(one, pair.machine, pair.wanted) == "right"
                for one in pair.records
                if one.engine not in pair.facts.refused
            )
    return told


def test_ten_thousand_pairs_load_no_wrong_engine_and_build_none_needlessly() -> None:
    told = score(seed=20261122, count=PAIRS)
    assert (told.wrong, told.needless) == (0, 0)
    assert sum(told.kinds.values()) == PAIRS
    for kind in ("exact", "compatible", "Build", "Fallback"):
        assert told.kinds[kind] > PAIRS // 20, told.kinds


@pytest.mark.parametrize(("kind", "index"), [(kind, at) for kind, rules in RULES.items() for at in range(len(rules))])
def test_without_any_one_rule_a_wrong_engine_is_loaded(kind: str, index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tuple(rule for at, rule in enumerate(RULES[kind]) if at != index)
    monkeypatch.setitem(portability.RULES, kind, left)
    assert score(seed=1, count=2_500).wrong > 0


def test_one_rule_too_many_builds_needlessly(monkeypatch: pytest.MonkeyPatch) -> None:
    strict = Rule("another power mode", lambda record, machine: record.machine.power_mode == machine.power_mode)
    monkeypatch.setitem(portability.RULES, "tensorrt", (*RULES["tensorrt"], strict))
    assert score(seed=1, count=2_500).needless > 0


@given(st.integers(0, 1 << 40))
def test_the_order_of_the_records_does_not_matter(seed: int) -> None:
    (pair,) = pairs(seed, 1)
    shuffled = list(pair.records)
    Random(seed).shuffle(shuffled)
    assert decide(pair) == decide(pair._replace(records=tuple(shuffled)))


@given(st.integers(0, 1 << 40))
def test_an_engine_of_this_machine_and_bundle_is_loaded_whatever_else_is_at_hand(seed: int) -> None:
    (pair,) = pairs(seed, 1)
    device = (pair.machine.gpu, pair.machine.sm, pair.machine.sm_count, pair.machine.version or None)
    if None in device or pair.machine.kind != "tensorrt":
        return
    own = EngineRecord(pair.wanted.onnx, "sha256:own", 1, "o", "int8", pair.machine, pair.wanted.profile)
    decision = decide(pair._replace(records=(*pair.records, own)))
    assert isinstance(decision, Load)
    assert decision.why == "exact"
    assert decision.differs == ()


NANO, SAME_NANO_OTHER_MODE = BOARDS[0], BOARDS[1]
WANTED = wanted_by(manifest(b"a", 8, 4))


def record(machine: Machine, **changes: object) -> EngineRecord:
    base = EngineRecord(WANTED.onnx, "sha256:e", 1, "o", "int8", machine, WANTED.profile)
    return msgspec.structs.replace(base, **changes)


def test_another_power_mode_and_jetpack_patch_are_loaded_and_named() -> None:
    decision = choose(WANTED, [record(machine_of(NANO))], [], machine_of(SAME_NANO_OTHER_MODE), ROOM)
    assert decision == Load(record(machine_of(NANO)), "compatible", ("jetpack", "power_mode"))


def test_a_multiprocessor_that_is_switched_off_makes_another_device() -> None:
    full, few = machine_of(BOARDS[5]), machine_of(BOARDS[6])
    decision = choose(WANTED, [record(full)], [], few, ROOM)
    assert isinstance(decision, Build)
    assert "another GPU" in decision.why


@pytest.mark.parametrize(
    ("facts", "passing", "says"),
    [
        (Facts(1 << 29, 1 << 30), True, "512 MiB are free"),
        (Facts(8 << 30, 1 << 30, temperature_c=81.0), True, "81 °C"),
        (Facts(8 << 30, 1 << 30, no_builder="engines = off"), False, "engines = off"),
        (Facts(8 << 30, 1 << 30, failed_builds=frozenset({WANTED.key})), False, "failed here before"),
    ],
)
def test_onnx_runtime_serves_where_nothing_can_be_built(facts: Facts, passing: bool, says: str) -> None:
    decision = choose(WANTED, [], [], machine_of(NANO), facts)
    assert isinstance(decision, Fallback)
    assert (decision.passing, decision.runtime) == (passing, "onnxruntime")
    assert says in decision.why


@pytest.mark.parametrize("unknown", ["gpu", "sm", "sm_count", "version"])
def test_nothing_is_built_for_a_gpu_that_nobody_can_name(unknown: str) -> None:
    machine = machine_of(NANO)
    blind = msgspec.structs.replace(machine, **{unknown: "" if unknown == "version" else None})
    assert isinstance(choose(WANTED, [], [], machine, ROOM), Build)
    assert isinstance(choose(WANTED, [record(blind)], [], blind, ROOM), Fallback)


def test_a_build_says_what_the_nearest_engine_lacks() -> None:
    other = record(machine_of(BOARDS[2]))
    decision = choose(WANTED, [other], [], machine_of(NANO), ROOM)
    assert isinstance(decision, Build)
    assert "another TensorRT" in decision.why
    assert obstacles(other, WANTED, machine_of(NANO))


def test_an_engine_that_failed_here_is_not_loaded_again() -> None:
    facts = msgspec.structs.replace(ROOM, refused=frozenset({"sha256:e"}))
    decision = choose(WANTED, [record(machine_of(NANO))], [], machine_of(NANO), facts)
    assert isinstance(decision, Build)
    assert "failed here" in decision.why


def test_the_nearest_timings_are_those_of_this_device_in_this_power_mode() -> None:
    here = machine_of(NANO)
    other_mode = msgspec.structs.replace(here, power_mode="25W")
    caches = [
        TimingCacheRecord("sha256:mode", 1, other_mode, at_s=9.0),
        TimingCacheRecord("sha256:old", 1, here, at_s=1.0),
        TimingCacheRecord("sha256:new", 1, here, at_s=2.0),
        TimingCacheRecord("sha256:version", 1, msgspec.structs.replace(here, version="10.3.0.26"), at_s=10.0),
        TimingCacheRecord("sha256:device", 1, msgspec.structs.replace(here, sm_count=4), at_s=10.0),
    ]
    found = nearest_cache(caches, here)
    assert found is not None
    assert found.cache == "sha256:new"
    found = nearest_cache([caches[0], *caches[3:]], here)
    assert found is not None
    assert found.cache == "sha256:mode"
    assert nearest_cache(caches[3:], here) is None
