"""Orders and thresholds by hand, and beside scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from wm.evaluation.ranking import Agreement, latent_judge, share_cheaper, spearman


def test_rank_correlation_is_scipys() -> None:
    rng = np.random.default_rng(0)
    for size in (3, 10, 50):
        costs, distances = rng.integers(0, 6, size).astype(float), rng.normal(size=size)
        assert spearman(costs, distances) == pytest.approx(spearmanr(costs, distances).statistic)


def test_rank_correlation_at_its_ends() -> None:
    assert spearman([1, 4, 9], [1, 2, 3]) == pytest.approx(1)  # ranks, not values
    assert spearman([3, 2, 1], [1, 2, 3]) == pytest.approx(-1)
    assert spearman([5, 5, 5], [1, 2, 3]) == 0  # a cost that says nothing orders nothing
    assert np.isnan(spearman([1, 2, 3], [5, 5, 5]))  # no order to be found
    assert np.isnan(spearman([1, 2], [1, 2]))
    assert spearman([1, 2, float("nan")], [1, 2, 3]) == pytest.approx(1)  # what cannot be judged comes last
    assert spearman([1, 2, float("inf")], [1, 2, 3]) == pytest.approx(1)
    with pytest.raises(ValueError, match="2 costs and 3 distances"):
        spearman([1, 2], [1, 2, 3])


def test_share_of_cheaper_plans() -> None:
    assert share_cheaper([2, 3, 4, 5], 1) == 0
    assert share_cheaper([2, 3, 4, 5], 3.5) == 0.5
    assert share_cheaper([1, 2, 3, 2], 2) == pytest.approx((1 + 0.5 * 2) / 4)
    assert share_cheaper([7.0] * 9, 7.0) == 0.5  # a constant cost guesses


def test_the_threshold_lies_midway_and_is_scored_by_the_others() -> None:
    costs = [[0.0, 1.0, 4.0], [0.0, 2.0, 6.0]]
    met = [[True, True, False], [True, True, False]]
    judge = latent_judge(costs, met)
    assert judge is not None
    assert judge.threshold == 3.0  # between 2 (met) and 4 (not)
    # The first problem by the second's threshold, 4: its 4 counts as met. The second by the first's, 2.5: all right.
    assert judge.accuracy == pytest.approx((4 / 4 + 1 / 2) / 2)
    assert (judge.num_frames, judge.num_met) == (6, 4)
    assert judge.met([9.0, 3.0])
    assert not judge.met([3.1, float("inf"), float("nan")])


def test_where_nothing_can_be_judged() -> None:
    assert latent_judge([[0.0, 1.0]], [[True, False]]) is None  # one problem has no others
    assert latent_judge([[0.0, 1.0], [0.0, 1.0]], [[False, False], [True, False]]) is None
    assert latent_judge([], []) is None
    constant = latent_judge([[5.0] * 4, [5.0] * 4], [[True, False, False, False]] * 2)
    assert constant is not None
    assert constant.accuracy == 0.5


def test_equal_costs_are_judged_alike() -> None:
    judge = latent_judge([[1.0, 1.0, 2.0]] * 2, [[True, False, False]] * 2)
    assert judge is not None
    assert judge.threshold == 1.5
    assert judge.accuracy == pytest.approx((1 + 0.5) / 2)


def test_two_by_two() -> None:
    found = Agreement.of([True, True, True, False, False, False], [True, False, False, True, False, False])
    assert found == Agreement(both=1, imagined_only=2, real_only=1, neither=2)
    with pytest.raises(ValueError, match="shorter"):
        Agreement.of([True], [])
