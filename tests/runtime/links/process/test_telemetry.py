"""The metrics: what is counted, and that labels stay few."""

from __future__ import annotations

from runtime.links.process.telemetry import MAX_MODELS, Telemetry


def observe(telemetry: Telemetry, model: str) -> None:
    telemetry.observe(
        part="router",
        route="predict",
        model=model,
        tier="edge",
        reason="confident",
        status=200,
        phases_ms={"infer": 2.0, "total": 5.0},
    )


def test_a_request_is_counted_with_its_phases_in_seconds() -> None:
    telemetry = Telemetry()
    observe(telemetry, "digits")
    sample = telemetry.registry.get_sample_value
    labels = {"part": "router", "tier": "edge", "model": "digits"}
    assert sample("foothill_phase_seconds_sum", {**labels, "phase": "infer"}) == 0.002
    assert sample("foothill_phase_seconds_count", {**labels, "phase": "total"}) == 1
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
