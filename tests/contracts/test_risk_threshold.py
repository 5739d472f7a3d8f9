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
@pytest.mark.parametrize("strictest", [1.0, 0.9])
def test_the_promise_fails_in_at_most_delta_of_all_calibrations(population: Population, strictest: float) -> None:
    epsilon, delta, fits = 0.03, 0.1, 500
    rng = np.random.default_rng(11)
    broken = 0
    for _ in range(fits):
        fitted = threshold.fit(*population.draw(400, rng), epsilon=epsilon, delta=delta, strictest=strictest)
        broken += population.risk(fitted.threshold) > epsilon
    # One-sided: the count is refused only if a true share of delta would give so many in 1 of 1,000 runs.
    assert 1 - binomial.cdf(broken - 1, fits, delta) > 0.001, f"{broken} of {fits} fits break their promise"


def test_the_bound_is_not_slack_where_the_risk_grows_smoothly() -> None:
    """A rule that never breaks would pass the test above, and escalate too much."""
    population = Population(differing=0.08, steepness=6.0, atoms=4000, seed=5)
    rng = np.random.default_rng(12)
    fits = [threshold.fit(*population.draw(400, rng), epsilon=0.03, delta=0.1) for _ in range(500)]
    broken = sum(population.risk(fitted.threshold) > 0.03 for fitted in fits)
    level = binomial.cdf(binomial.critical_count(400, 0.03, 0.1), 400, 0.03)
    assert binomial.cdf(broken, 500, level) > 0.001, f"{broken} of 500 fits break a promise that {level:.1%} may break"


def test_the_smallest_epsilon_of_a_refused_budget_holds_too() -> None:
    """At the threshold that the budget leaves, fixed beforehand: broken in at most delta of all calibrations."""
    population, delta, fits = Population(differing=0.08, steepness=6.0, atoms=400, seed=7), 0.1, 500
    rng = np.random.default_rng(14)
    budgeted = threshold.strictest_within(population.draw(400, rng)[0], 0.05)
    broken = refused = 0
    for _ in range(fits):
        fitted = threshold.fit(*population.draw(400, rng), epsilon=0.03, delta=delta, strictest=budgeted)
        refused += not fitted.feasible
        broken += not fitted.feasible and population.risk(budgeted) > fitted.smallest_epsilon
    assert refused > 400
    assert 1 - binomial.cdf(broken - 1, fits, delta) > 0.001, f"{broken} of {fits} bounds are broken"
    assert broken > 0


def test_with_many_samples_little_more_is_escalated_than_the_truth_asks() -> None:
    """Within 2 % of what the most powerful test at each threshold escalates, which no rule with the promise beats."""
    population, n, epsilon = Population(differing=0.08, steepness=6.0, atoms=4000, seed=6), 5000, 0.03
    rng = np.random.default_rng(13)
    fits = [threshold.fit(*population.draw(n, rng), epsilon=epsilon, delta=0.05) for _ in range(40)]
    escalated = np.mean([population.escalation(fitted.threshold) for fitted in fits])
    allowed = binomial.critical_count(n, epsilon, 0.05)
    kept = [binomial.cdf(allowed, n, population.risk(level)) for level in population.confidence]
    assert escalated <= 1.02 * float(population.weight @ (1 - np.array(kept)))
    assert escalated <= 1.2 * population.oracle_escalation(epsilon)


def drawn(n: int, seed: int, digits: int, differing: float, power: float, nan: float) -> Sample:
    """Confidences that tie (few `digits`), crowd at an end (`power`) or are no numbers, right and wrong ones."""
    rng = np.random.default_rng(seed)
    confidence = np.round(rng.random(n) ** power, digits)
    confidence[rng.random(n) < nan] = np.nan
    return confidence, rng.random(n) < differing


samples = st.builds(
    drawn,
    n=st.integers(0, 400),
    seed=st.integers(0, 2**32 - 1),
    digits=st.sampled_from([1, 2, 17]),
    differing=st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]),
    power=st.sampled_from([0.01, 1.0, 100.0]),
    nan=st.sampled_from([0.0, 0.2, 1.0]),
)
epsilons, deltas = st.floats(0.005, 0.6), st.floats(0.01, 0.3)
strictests = st.one_of(st.just(1.0), st.floats(0.0, 1.0))


@given(samples, epsilons, deltas, strictests)
def test_a_fit_says_what_its_threshold_does(sample: Sample, epsilon: float, delta: float, strictest: float) -> None:
    confidence, differs = sample
    fitted = threshold.fit(confidence, differs, epsilon=epsilon, delta=delta, strictest=strictest)
    kept = confidence >= fitted.threshold
    assert fitted.n == len(confidence)
    assert fitted.kept_wrong == np.count_nonzero(kept & differs)
    assert fitted.escalation == pytest.approx(1.0 if not len(kept) else 1.0 - kept.mean())
    if fitted.feasible:
        assert binomial.upper_bound(fitted.kept_wrong, fitted.n, delta) <= epsilon + 1e-9
        assert fitted.smallest_epsilon == epsilon
        assert 0.0 < fitted.threshold <= max(strictest, threshold.LOOSEST)
    else:
        assert not kept.any()
        assert fitted.smallest_epsilon > epsilon - 1e-9


@given(samples, epsilons, deltas)
def test_a_lower_threshold_would_keep_too_much(sample: Sample, epsilon: float, delta: float) -> None:
    confidence, differs = sample
    fitted = threshold.fit(confidence, differs, epsilon=epsilon, delta=delta)
    left_out = confidence[(confidence < fitted.threshold) & (confidence >= threshold.LOOSEST) & differs]
    if fitted.feasible and len(left_out):
        wrong = int(np.count_nonzero(confidence[differs] >= left_out.max()))
        assert binomial.upper_bound(wrong, len(confidence), delta) > epsilon - 1e-9


@given(samples, epsilons, epsilons, deltas, deltas)
def test_a_weaker_promise_never_needs_a_higher_threshold(
    sample: Sample, epsilon: float, other_epsilon: float, delta: float, other_delta: float
) -> None:
    strong = threshold.fit(*sample, epsilon=min(epsilon, other_epsilon), delta=min(delta, other_delta))
    weak = threshold.fit(*sample, epsilon=max(epsilon, other_epsilon), delta=max(delta, other_delta))
    assert weak.threshold <= strong.threshold
    assert weak.escalation <= strong.escalation


@given(samples, epsilons, deltas, st.data())
def test_an_answer_that_comes_to_agree_never_raises_the_threshold(
    sample: Sample, epsilon: float, delta: float, data: st.DataObject
) -> None:
    confidence, differs = sample
    assume(differs.any())
    fewer = differs.copy()
    fewer[data.draw(st.sampled_from(np.flatnonzero(differs).tolist()))] = False
    before = threshold.fit(confidence, differs, epsilon=epsilon, delta=delta)
    after = threshold.fit(confidence, fewer, epsilon=epsilon, delta=delta)
    assert after.escalation <= before.escalation


@given(samples, epsilons, deltas, st.floats(0.05, 20.0))
def test_only_the_order_of_confidences_counts(sample: Sample, epsilon: float, delta: float, power: float) -> None:
    confidence, differs = sample
    confidence = np.round(confidence, 2)
    plain = threshold.fit(confidence, differs, epsilon=epsilon, delta=delta)
    bent = 0.5 + confidence**power / 2
    assume(len(np.unique(bent[~np.isnan(bent)])) == len(np.unique(confidence[~np.isnan(confidence)])))
    mapped = threshold.fit(bent, differs, epsilon=epsilon, delta=delta)
    above_zero = ~(confidence <= 0)
    kept, kept_mapped = confidence >= plain.threshold, bent >= mapped.threshold
    assert (kept[above_zero] == kept_mapped[above_zero]).all()


@given(samples, st.floats(0.01, 0.3), strictests)
def test_the_smallest_epsilon_of_an_infeasible_fit_is_feasible(sample: Sample, delta: float, strictest: float) -> None:
    refused = threshold.fit(*sample, epsilon=0.004, delta=delta, strictest=strictest)
    assume(not refused.feasible and refused.smallest_epsilon < 0.99)
    least = refused.smallest_epsilon
    assert threshold.fit(*sample, epsilon=least * 1.001, delta=delta, strictest=strictest).feasible
    assert not threshold.fit(*sample, epsilon=least * 0.999, delta=delta, strictest=strictest).feasible


@given(samples, st.floats(0.0, 1.0))
def test_a_budget_leaves_the_strictest_threshold_that_keeps_within_it(sample: Sample, share: float) -> None:
    confidence = np.nan_to_num(sample[0], nan=0.0)
    strictest = threshold.strictest_within(sample[0], share)
    assert threshold.LOOSEST <= strictest <= 1.0
    assume(len(confidence))
    if strictest > threshold.LOOSEST:
        assert np.mean(confidence < strictest) <= share + 1e-9
    if strictest < 1.0:
        assert np.mean(confidence < np.nextafter(strictest, 2.0)) > share - 1e-9


def test_a_budget_that_would_break_is_infeasible() -> None:
    confidence = np.linspace(0.001, 1.0, 1000)
    differs = confidence < 0.2
    needed = threshold.fit(confidence, differs, epsilon=0.03, delta=0.05)
    assert needed.feasible
    assert 0.17 < needed.escalation < 0.2
    budgeted = threshold.strictest_within(confidence, 0.1)
    refused = threshold.fit(confidence, differs, epsilon=0.03, delta=0.05, strictest=budgeted)
    assert not refused.feasible
    assert refused.threshold > 1.0
    assert refused.smallest_epsilon == pytest.approx(binomial.upper_bound(99, 1000, 0.05), abs=0.002)
    held = threshold.fit(confidence, differs, epsilon=0.13, delta=0.05, strictest=budgeted)
    assert held.feasible
    assert held.escalation <= 0.1


def test_too_few_samples_escalate_everything() -> None:
    """59 samples without a single difference certify 5 % at 95 %; 58 do not, and none certify nothing."""
    sure, right = np.full(59, 0.9), np.zeros(59, np.bool_)
    assert threshold.fit(sure, right, epsilon=0.05, delta=0.05).threshold <= 0.9
    for n in (58, 0):
        refused = threshold.fit(sure[:n], right[:n], epsilon=0.05, delta=0.05)
        assert not refused.feasible
        assert refused.threshold > 1.0
        assert refused.escalation == 1.0
    assert refused.smallest_epsilon == 1.0


@pytest.mark.parametrize("differing", [True, False])
def test_a_confidence_that_is_no_number_is_never_kept(differing: bool) -> None:
    """Nor is 0, which a node reports in its place, even where every sample agrees."""
    confidence = np.concatenate([np.full(200, np.nan), np.zeros(200)])
    fitted = threshold.fit(confidence, np.full(400, differing), epsilon=0.03, delta=0.05)
    assert fitted.threshold > 0.0
    assert fitted.kept_wrong == 0
    assert fitted.escalation == 1.0


def test_confidences_that_crowd_below_one_are_told_apart() -> None:
    """A student that is sure of everything: what tells right from wrong lies in the last digits."""
    confidence = 1.0 - np.geomspace(1e-15, 1e-6, 1000)
    differs = confidence < 1 - 1e-9
    fitted = threshold.fit(confidence, differs, epsilon=0.03, delta=0.05)
    assert fitted.kept_wrong == binomial.critical_count(1000, 0.03, 0.05)


def test_two_confidences_with_no_number_between_them_are_told_apart() -> None:
    refused, kept = np.full(100, 0.5), np.full(900, np.nextafter(0.5, 1.0))
    fitted = threshold.fit(np.concatenate([refused, kept]), np.arange(1000) < 100, epsilon=0.03, delta=0.05)
    assert (fitted.threshold, fitted.kept_wrong) == (kept[0], 0)
