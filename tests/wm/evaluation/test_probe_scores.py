"""Scores are what they say for all episodes, and what they would be for others."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import r2_score

from wm.evaluation.probe_scores import MeanScore, ProbeScores, R2Score, resampled


def episodes(seed: int = 0, error: float = 0.3) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    truth = [rng.normal(size=(size, 2)) + rng.normal(size=2) + 100 for size in (4, 7, 5)]
    return [rows + error * rng.normal(size=rows.shape) for rows in truth], truth


def test_r2_is_scikit_learns() -> None:
    predicted, truth = episodes()
    score = R2Score.of(predicted, truth)
    expected = r2_score(np.concatenate(truth), np.concatenate(predicted), multioutput="raw_values")
    np.testing.assert_allclose(score.by_target, expected)
    errors = np.concatenate([(predicted[i] - truth[i]) ** 2 for i in (0, 0, 2)]).mean(axis=0)
    twice = (1 - errors / np.concatenate(truth).var(axis=0)).mean()
    assert score.under(np.array([[2.0, 0.0, 1.0]])) == pytest.approx([twice])


def test_r2_of_a_target_that_some_rows_lack() -> None:
    predicted, truth = episodes()
    truth[1][:, 1] = np.nan
    score = R2Score.of(predicted, truth)
    kept = (np.concatenate([each[i][:, 1] for i in (0, 2)]) for each in (truth, predicted))
    assert score.by_target[1] == pytest.approx(r2_score(*kept))
    only_it = score.under(np.array([[0.0, 1.0, 0.0]]))
    error = ((predicted[1] - truth[1])[:, 0] ** 2).mean()
    assert only_it == pytest.approx([1 - error / np.concatenate(truth)[:, 0].var()])


def test_a_mean_skips_what_says_nothing() -> None:
    score = MeanScore(np.array([0.2, np.nan, 0.8]))
    np.testing.assert_allclose(score.under(np.array([[1.0, 1, 1], [3, 0, 1], [0, 1, 0]])), [0.5, 0.35, np.nan])


def scores(values: dict[str, list[float]]) -> ProbeScores:
    return ProbeScores(
        {name: {"goal_rank": MeanScore(np.array(each))} for name, each in values.items()},
        {name: {"goal_rank_chance": 0.5} for name in values},
        {},
    )


def test_flat_metrics_and_their_means() -> None:
    found = scores({"wall": [0.2, 0.4], "rope": [0.9, 0.9]}).metrics
    expected = {"goal_rank": 0.6, "wall/goal_rank": 0.3, "rope/goal_rank": 0.9}
    expected |= {f"{where}goal_rank_chance": 0.5 for where in ("", "wall/", "rope/")}
    assert found == pytest.approx({f"probe/{name}": value for name, value in expected.items()})


def test_differences_are_paired_by_episode() -> None:
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=30).tolist() for name in ("wall", "rope")}
    one, other = scores({name: [v + 0.1 for v in each] for name, each in values.items()}), scores(values)
    paired = resampled(one, "goal_rank", ["wall", "rope"], other, 500, seed=0)
    np.testing.assert_allclose(paired, 0.1, atol=1e-12)  # what makes episodes differ is the same for both
    alone = resampled(one, "goal_rank", ["wall", "rope"], None, 2000, seed=0)
    expected = np.sqrt(sum(np.var(each) / 30 for each in values.values())) / 2
    assert float(alone.std()) == pytest.approx(float(expected), rel=0.1)
