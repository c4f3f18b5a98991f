"""Intervals against closed forms, scipy and simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from wm.evaluation.statistics import (
    Interval,
    clustered_ratio,
    evidence_label,
    holm,
    mean_interval,
    paired_difference,
    paired_t,
    paired_t_p_value,
    seeds_needed,
    two_way_bootstrap,
    wilson,
)


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(counts):
    successes, trials = counts
    expected = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    interval = wilson(successes, trials)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_refuses_what_is_no_proportion():
    for successes, trials in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="proportion"):
            wilson(successes, trials)


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=8).filter(lambda x: len(set(x)) > 1))
def test_paired_t_is_scipys(whole):
    differences = np.array(whole) / 1000
    expected = stats.ttest_1samp(differences, 0.0)
    interval, ends = paired_t(differences), expected.confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((ends.low, ends.high))
    assert paired_t_p_value(differences) == pytest.approx(expected.pvalue)


def test_two_seeds_by_hand():
    # df = 1: t = tan(.95 pi / 2) = 12.7062; sd of {0.1, 0.3} / sqrt(2) = 0.1.
    interval = paired_t([0.1, 0.3])
    assert (interval.low, interval.high) == pytest.approx((0.2 - 1.27062, 0.2 + 1.27062), abs=1e-5)
    assert interval.method == "Student t over 2 seeds"
    # p = 1 - 2 arctan(t) / pi at t = 2.
    assert paired_t_p_value([0.1, 0.3]) == pytest.approx(1 - 2 * np.arctan(2) / np.pi)


def test_constant_differences_have_p_of_zero_or_one():
    assert paired_t_p_value([0.0, 0.0]) == 1.0
    assert paired_t_p_value([0.2, 0.2, 0.2]) == 0.0


def test_bootstrap_of_a_constant_seed_effect_is_the_seed_bootstrap():
    # Problems all alike: the only spread is which of two seeds is drawn, a mean of 0, 1/2 or 1.
    interval = two_way_bootstrap([[0.0] * 5, [1.0] * 5])
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_bootstrap_variance_is_that_of_crossed_resampling():
    # Pure problem effect: the variance of the resampled mean is that of N problems drawn anew, sd^2 / N.
    problems = np.arange(100) / 100
    interval = two_way_bootstrap(np.stack([problems, problems]), num_resamples=20_000)
    assert interval.width == pytest.approx(2 * 1.96 * problems.std() / 10, rel=0.04)


def test_bootstrap_is_repeatable_and_follows_its_seed():
    values = np.random.default_rng(0).random((3, 10))
    assert two_way_bootstrap(values, seed=1) == two_way_bootstrap(values, seed=1)
    assert two_way_bootstrap(values, seed=1) != two_way_bootstrap(values, seed=2)


def test_mean_interval_is_the_wider_one():
    few_seeds = np.array([[1, 0] * 25, [1, 1] * 25, [0, 0] * 25], dtype=float)
    assert mean_interval(few_seeds).method == "Student t over 3 seeds"
    alike = np.tile([1.0, 0.0, 0.0, 1.0], (3, 1))
    interval = mean_interval(alike)
    assert interval.method == "two-way bootstrap over 3 seeds x 4 problems"
    assert interval.low < 0.5 < interval.high


def test_mean_interval_of_one_seed():
    assert mean_interval([[1, 1, 0, 1]]) == wilson(3, 4)
    assert mean_interval([[0.7]]) is None
    assert mean_interval([[0.1, 0.3]]).method == "Student t over 2 problems"


def test_a_perfect_score_is_not_certainty():
    assert mean_interval(np.ones((3, 20))) == wilson(20, 20)
    assert mean_interval(np.zeros((2, 20))) == wilson(0, 20)


def test_proportions_stay_proportions_and_ratios_do_not():
    assert mean_interval([[1, 1, 1, 0], [0, 0, 0, 1]]).low == 0.0
    # One number per seed is a summary, even where it happens to be 1: no clipping, no Wilson.
    assert mean_interval([[1.0], [0.0]]).high > 1.0


def test_one_row_of_results_is_refused():
    for values in ([1, 0, 1], [[]], [[0.0, float("nan")]]):
        with pytest.raises(ValueError, match="results need"):
            mean_interval(values)


@pytest.mark.parametrize(("num_seeds", "num_problems"), [(2, 10), (3, 50)])
def test_simulated_coverage_is_at_least_nominal(num_seeds, num_problems):
    # Seeds and problems both vary in logit; the true difference is zero. t alone covers 82 % of means at 2 x 10.
    rng, rounds = np.random.default_rng(0), 300
    truth = float((1 / (1 + np.exp(-(0.3 + np.random.default_rng(1).normal(0, 1.25**0.5, 200_000))))).mean())

    def draw(problems):
        logits = 0.3 + rng.normal(0, 0.5, (num_seeds, 1)) + problems
        return (rng.random((num_seeds, num_problems)) < 1 / (1 + np.exp(-logits))).astype(float)

    means = differences = claims = 0
    for _ in range(rounds):
        problems = rng.normal(0, 1, num_problems)
        a, b = draw(problems), draw(problems)
        means += mean_interval(a, num_resamples=300).contains(truth)
        result = paired_difference(a, b, num_resamples=300)
        differences += result.interval.contains(0.0)
        claims += result.p_value < 0.05
    assert means / rounds >= 0.94
    assert differences / rounds >= 0.94
    assert claims / rounds <= 0.06


def test_paired_difference_removes_what_seeds_and_problems_share():
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 10, (4, 1)) + rng.normal(0, 10, (1, 30))
    result = paired_difference(shared + 1.0 + rng.normal(0, 0.1, (4, 30)), shared)
    assert result.value == pytest.approx(1.0, abs=0.05)
    assert result.interval.width < 0.3
    assert result.p_value < 0.001


def test_equal_differences_of_two_seeds_prove_nothing():
    # Both seeds gain one problem in ten: t alone would give p = 0 and an interval of width zero.
    a, b = np.zeros((2, 10)), np.zeros((2, 10))
    a[0, 3] = a[1, 7] = 1
    result = paired_difference(a, b)
    assert result.value == pytest.approx(0.1)
    assert result.p_value > 0.05
    assert result.interval.width > 0.1


def test_difference_of_one_seed_is_newcombes():
    # Solved by both 12, only by the first 9, only by the second 2, by neither 21.
    first = np.array([[1] * 12 + [1] * 9 + [0] * 2 + [0] * 21])
    second = np.array([[1] * 12 + [0] * 9 + [1] * 2 + [0] * 21])
    result = paired_difference(first, second)
    assert result.value == pytest.approx(7 / 44)
    p, q, n = 21 / 44, 14 / 44, 44
    ends = [stats.binomtest(k, n).proportion_ci(method="wilson") for k in (21, 14)]
    phi = (12 * 21 - 9 * 2) / np.sqrt(21 * 23 * 14 * 30)
    low, high = p - ends[0].low, ends[1].high - q
    assert result.interval.low == pytest.approx(p - q - np.sqrt(low**2 - 2 * phi * low * high + high**2))
    assert result.p_value == pytest.approx(stats.binomtest(9, 11).pvalue)


def test_difference_of_two_single_numbers_has_no_interval():
    result = paired_difference([[0.7]], [[0.6]])
    assert (result.interval, result.p_value) == (None, None)


def test_pairs_need_one_shape():
    with pytest.raises(ValueError, match="one shape"):
        paired_difference(np.zeros((2, 5)), np.zeros((2, 6)))


def test_holm_by_hand():
    # Sorted .01 .02 .03 .04 x 4 3 2 1 = .04 .06 .06 .04, then monotone.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_plain_and_bonferroni(p_values):
    for plain, adjusted in zip(p_values, holm(p_values), strict=True):
        assert plain <= adjusted <= min(1.0, plain * len(p_values)) + 1e-12


def test_evidence_is_named():
    assert evidence_label(2) == "indicative"
    assert evidence_label(3) == "supports only large effects"
    assert evidence_label(4) is None


def test_seeds_needed_without_problems_is_the_power_formula():
    differences = np.array([[0.1], [0.3], [-0.1], [0.2]])
    mean, spread = 0.125, float(np.std([0.1, 0.3, -0.1, 0.2], ddof=1))
    count = seeds_needed(differences)

    def reach(n):
        return (stats.t.ppf(0.975, n - 1) + stats.t.ppf(0.8, n - 1)) * spread / np.sqrt(n)

    assert reach(count) <= mean < reach(count - 1)


def test_seeds_needed_knows_when_seeds_do_not_help():
    # Seeds agree to a hair; problems disagree wildly about a tiny mean: only more problems would settle it.
    problems = np.array([1.0, -1.0, 1.0, -1.0, 0.1])
    assert seeds_needed(np.stack([problems, problems, problems + 1e-3])) is None
    assert seeds_needed(np.zeros((3, 5))) is None
    assert seeds_needed(np.ones((1, 5))) is None


def test_clipping_keeps_the_method():
    clipped = Interval(-0.2, 1.3, 0.9, "t").clipped(0, 1)
    assert clipped == Interval(0, 1, 0.9, "t")


def test_a_ratio_of_sums_resamples_whole_clusters():
    """Two clusters drawn twice: the ratio is 1, 3/2 or 2, with shares 1/4, 1/2, 1/4."""
    interval = clustered_ratio([1, 1, 4], [1, 1, 2], ["a", "a", "b"])
    assert (interval.low, interval.high) == (1, 2)
    assert interval.method == "bootstrap over 2 episodes"
    split = clustered_ratio([0.5, 0.5, 1, 4], [0.5, 0.5, 1, 2], ["a", "a", "a", "b"])
    assert (split.low, split.high) == (1, 2)  # more items of one cluster narrow nothing
    assert clustered_ratio([1, 2], [1, 1], ["a", "a"]) is None
    assert clustered_ratio([1, 2], [0, 0], ["a", "b"]) is None
    same = clustered_ratio([2, 4, 6], [1, 2, 3], ["a", "b", "c"])
    assert (same.low, same.high) == (2, 2)
    with pytest.raises(ValueError, match="finite pairs"):
        clustered_ratio([1, np.nan], [1, 1], ["a", "b"])


def test_a_clustered_interval_covers_the_truth_with_few_clusters():
    rng, hits, names = np.random.default_rng(0), 0, [str(number // 5) for number in range(40)]
    for seed in range(300):
        values = np.repeat(rng.normal(size=8), 5) + 0.3 * rng.normal(size=40)
        hits += clustered_ratio(values, np.ones(40), names, num_resamples=500, seed=seed).contains(0.0)
    assert 0.9 <= hits / 300 <= 0.99
