"""The seed threshold keeps its promise on populations whose true risk is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from contracts.risk import binomial, threshold

Sample = tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]


class Population:
    """Confidences and the chance to differ from the cloud at each: everything about it is known.

    `steepness` is how fast the chance to differ falls with confidence; 0 means confidence says nothing.
    """

    def __init__(self, *, differing: float, steepness: float, atoms: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.confidence = np.sort(rng.uniform(0.1, 1.0, atoms) ** 0.3)
        weight = rng.exponential(1.0, atoms)
        self.weight = weight / weight.sum()
        shape = np.exp(-steepness * (self.confidence - self.confidence.min()))
        self.differs = np.minimum(1.0, shape * differing / float(shape @ self.weight))

    def draw(self, n: int, rng: np.random.Generator) -> Sample:
        atoms = rng.choice(len(self.weight), n, p=self.weight)
        return self.confidence[atoms], rng.random(n) < self.differs[atoms]

    def risk(self, level: float) -> float:
        """The true P(confidence >= level and edge differs)."""
        return float((self.weight * self.differs)[self.confidence >= level].sum())

    def escalation(self, level: float) -> float:
        return float(self.weight[self.confidence < level].sum())

    def oracle_escalation(self, epsilon: float) -> float:
        """What the best threshold escalates when the truth is known."""
        return min(self.escalation(level) for level in [*self.confidence, 2.0] if self.risk(level) <= epsilon)


POPULATIONS = [
    Population(differing=0.08, steepness=6.0, atoms=400, seed=1),
    Population(differing=0.08, steepness=6.0, atoms=7, seed=2),
    Population(differing=0.032, steepness=0.0, atoms=400, seed=3),
    Population(differing=0.5, steepness=1.0, atoms=400, seed=4),
]


@pytest.mark.parametrize("population", POPULATIONS)
def test_the_promise_fails_in_at_most_delta_of_all_calibrations(population: Population) -> None:
    epsilon, delta, fits = 0.03, 0.1, 500
    rng = np.random.default_rng(11)
    broken = 0
    for _ in range(fits):
        fitted = threshold.fit(*population.draw(400, rng), epsilon=epsilon, delta=delta)
        broken += population.risk(fitted.threshold) > epsilon
    # One-sided: the count is refused only if a true share of delta would give so many in 1 of 1,000 runs.
    assert 1 - binomial.cdf(broken - 1, fits, delta) > 0.001, f"{broken} of {fits} fits break their promise"


def test_the_bound_is_not_slack_where_the_risk_grows_smoothly() -> None:
    """A rule that never breaks would pass the test above, and escalate too much."""
    population = Population(differing=0.08, steepness=6.0, atoms=4000, seed=5)
    rng = np.random.default_rng(12)
    fits = [threshold.fit(*population.draw(400, rng), epsilon=0.03, delta=0.1) for _ in range(500)]
    assert np.mean([population.risk(fitted.threshold) > 0.03 for fitted in fits]) > 0.02


def test_with_many_samples_little_more_is_escalated_than_the_truth_asks() -> None:
    population = Population(differing=0.08, steepness=6.0, atoms=4000, seed=6)
    rng = np.random.default_rng(13)
    fits = [threshold.fit(*population.draw(5000, rng), epsilon=0.03, delta=0.05) for _ in range(40)]
    escalated = np.mean([population.escalation(fitted.threshold) for fitted in fits])
    assert escalated <= 1.2 * population.oracle_escalation(0.03)


samples = st.integers(0, 400).flatmap(
    lambda n: st.tuples(
        st.lists(st.floats(0.0, 1.0), min_size=n, max_size=n), st.lists(st.booleans(), min_size=n, max_size=n)
    )
)


@given(samples, st.floats(0.005, 0.6), st.floats(0.01, 0.3))
def test_a_fit_says_what_its_threshold_does(
    sample: tuple[list[float], list[bool]], epsilon: float, delta: float
) -> None:
    confidence, differs = np.array(sample[0], np.float64), np.array(sample[1], np.bool_)
    fitted = threshold.fit(confidence, differs, epsilon=epsilon, delta=delta)
    kept = confidence >= fitted.threshold
    assert fitted.n == len(confidence)
    assert fitted.kept_wrong == np.count_nonzero(kept & differs)
    assert fitted.escalation == pytest.approx(1.0 if not len(kept) else 1.0 - kept.mean())
    if fitted.feasible:
        assert binomial.upper_bound(fitted.kept_wrong, fitted.n, delta) <= epsilon + 1e-9
        assert fitted.smallest_epsilon == epsilon
    else:
        assert not kept.any()
        assert fitted.smallest_epsilon > epsilon - 1e-9


@given(samples, st.floats(0.01, 0.3))
def test_the_smallest_epsilon_of_an_infeasible_fit_is_feasible(
    sample: tuple[list[float], list[bool]], delta: float
) -> None:
    confidence, differs = np.array(sample[0], np.float64), np.array(sample[1], np.bool_)
    refused = threshold.fit(confidence, differs, epsilon=0.004, delta=delta)
    assume(not refused.feasible and refused.smallest_epsilon < 0.99)
    least = refused.smallest_epsilon
    assert threshold.fit(confidence, differs, epsilon=least * 1.001, delta=delta).feasible
    assert not threshold.fit(confidence, differs, epsilon=least * 0.999, delta=delta).feasible


def test_too_few_samples_escalate_everything() -> None:
    """59 samples without a single difference certify 5 % at 95 %; 58 do not."""
    sure, right = np.full(59, 0.9), np.zeros(59, np.bool_)
    assert threshold.fit(sure, right, epsilon=0.05, delta=0.05).threshold <= 0.9
    refused = threshold.fit(sure[:58], right[:58], epsilon=0.05, delta=0.05)
    assert not refused.feasible
    assert refused.threshold > 1.0
    assert refused.escalation == 1.0


def test_a_confidence_that_is_no_number_is_never_kept() -> None:
    fitted = threshold.fit(np.full(200, np.nan), np.ones(200, np.bool_), epsilon=0.03, delta=0.05)
    assert fitted.kept_wrong == 0
    assert fitted.escalation == 1.0
