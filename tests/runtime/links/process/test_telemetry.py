"""The metrics: what is counted, and that labels stay few."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from runtime.links.process.telemetry import MAX_MODELS, MAX_REGIONS, Labels, Telemetry

LABELS = Labels("router", "predict", "digits", "edge", "confident", 200, "eu-central")
PLACED = {"part": "router", "tier": "edge", "model": "digits", "region": "eu-central"}


def observe(telemetry: Telemetry, model: str, region: str = "eu-central") -> None:
    telemetry.observe(
        part="router",
        route="predict",
        model=model,
        tier="edge",
        reason="confident",
        status=200,
        phases_ms={"infer": 2.0, "total": 5.0},
        region=region,
    )


def test_a_request_is_counted_with_its_phases_in_seconds() -> None:
    telemetry = Telemetry()
    observe(telemetry, "digits")
    sample = telemetry.registry.get_sample_value
    labels = {"part": "router", "tier": "edge", "model": "digits"}
    assert sample("foothill_phase_seconds_sum", {**PLACED, "phase": "infer"}) == 0.002
    assert sample("foothill_phase_seconds_count", {**PLACED, "phase": "total"}) == 1
    counted = {**labels, "route": "predict", "reason": "confident", "status": "200"}
    assert sample("foothill_requests_total", counted) == 1


def test_made_up_models_share_one_label() -> None:
    telemetry = Telemetry()
    for number in range(3 * MAX_MODELS):
        observe(telemetry, f"m{number}")
    text = telemetry.metrics_response().body
    assert isinstance(text, bytes)
    names = {line.split('model="')[1].split('"')[0] for line in text.decode().splitlines() if 'model="' in line}
    assert len(names) == MAX_MODELS + 1
    assert "other" in names


def test_regions_stay_few_and_requests_of_all_regions_are_counted_together() -> None:
    telemetry = Telemetry()
    for number in range(3 * MAX_REGIONS):
        observe(telemetry, "digits", f"r{number}")
    observe(telemetry, "digits", "")
    text = telemetry.metrics_response().body
    assert isinstance(text, bytes)
    names = {line.split('region="')[1].split('"')[0] for line in text.decode().splitlines() if 'region="' in line}
    assert len(names) == MAX_REGIONS + 2
    assert {"other", ""} < names
    labels = {"part": "router", "tier": "edge", "model": "digits"}
    counted = {**labels, "route": "predict", "reason": "confident", "status": "200"}
    assert telemetry.registry.get_sample_value("foothill_requests_total", counted) == 3 * MAX_REGIONS + 1


def test_the_in_flight_gauge_returns_to_zero() -> None:
    telemetry = Telemetry()
    with telemetry.in_flight("router"):
        assert telemetry.registry.get_sample_value("foothill_in_flight", {"part": "router"}) == 1
    assert telemetry.registry.get_sample_value("foothill_in_flight", {"part": "router"}) == 0


def test_bytes_to_the_cloud_are_counted_by_purpose() -> None:
    telemetry = Telemetry()
    telemetry.cloud_bytes("audit", sent=10, received=3)
    telemetry.cloud_bytes("audit", sent=1, received=0)
    sample = telemetry.registry.get_sample_value
    assert sample("foothill_cloud_bytes_total", {"direction": "sent", "purpose": "audit"}) == 11
    assert sample("foothill_cloud_bytes_total", {"direction": "received", "purpose": "audit"}) == 3


def read_numbers(written: Sequence[str]) -> Sequence[Sequence[float]]:
    return [[float(each) for each in written]]


@given(st.lists(st.one_of(st.floats(0, 40_000), st.sampled_from([0.5, 1.0, 20.0, 30_000.0])), max_size=300))
def test_times_fall_into_buckets_with_their_upper_bounds(times_ms: list[float]) -> None:
    telemetry = Telemetry()
    telemetry.observe_all(LABELS, ("infer",), [(ms,) for ms in times_ms])
    labels = {**PLACED, "phase": "infer"}
    for bound in ("0.0005", "0.001", "0.02", "30.0", "+Inf"):
        expected = sum(ms <= 1000.0 * float(bound) for ms in times_ms)
        counted = telemetry.registry.get_sample_value("foothill_phase_seconds_bucket", {**labels, "le": bound})
        assert (counted or 0) == expected


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=600), st.integers(0, 599))
def test_a_tally_counts_what_is_read_late_and_drops_only_what_cannot_be_read(times_ms: list[float], at: int) -> None:
    telemetry = Telemetry()
    note = telemetry.tally(LABELS, ("total", "infer"), read_numbers)
    written = [f"{ms:.3f}" for ms in times_ms]
    odd = at < len(written)
    if odd:
        written[at] = "soon"
    for text in written:
        note(((1.0,), text))
    sample = telemetry.registry.get_sample_value
    labels = {"part": "router", "tier": "edge", "model": "digits"}
    counted = {**labels, "route": "predict", "reason": "confident", "status": "200"}
    whole = len(written) - odd
    assert (sample("foothill_requests_total", counted) or 0) == whole
    assert (sample("foothill_phase_seconds_count", {**PLACED, "phase": "infer"}) or 0) == whole
    assert (sample("foothill_phase_seconds_count", {**PLACED, "phase": "total"}) or 0) == whole
