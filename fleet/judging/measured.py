"""What the compiler has measured of a version, as a tally."""

from __future__ import annotations

from contracts.manifest import Measurements
from fleet.judging.aims import Tally


def measured_tally(measurements: Measurements | None, files: frozenset[str]) -> Tally | None:
    """Samples, and disagreements among them, of the worst of the artifacts `files` that carry a confidence rule."""
    if measurements is None:
        return None
    tallies = [
        Tally(measured.samples, round(measured.samples * (1.0 - measured.agreement)))
        for file, measured in measurements.artifacts.items()
        if file in files and measured.agreement is not None and measured.samples > 0
    ]
    return max(tallies, key=lambda tally: tally.k / tally.n, default=None)
