"""The dual is the ridge that scikit-learn solves, and its penalty is honest about whole episodes."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from wm.evaluation import gram_ridge
from wm.evaluation.gram_ridge import GramRidge


def rows(count: int = 40, size: int = 90, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, size)) + 3


def test_it_is_ridge_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram_ridge, "PENALTIES", (0.1,))
    latents, targets = rows(), rows(size=2, seed=1)
    found = GramRidge(latents, targets, np.arange(40) % 5).predict(rows(7, seed=2))
    scale = (latents - latents.mean(axis=0)).std() * np.sqrt(90)
    expected = Ridge(alpha=0.1).fit(latents / scale, targets).predict(rows(7, seed=2) / scale)
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    shrunk = GramRidge(latents * 1e-3, targets, np.arange(40) % 5).predict(rows(7, seed=2) * 1e-3)
    np.testing.assert_allclose(shrunk, expected, rtol=1e-6)


def test_an_unknown_target_is_fitted_on_the_rows_that_have_it() -> None:
    latents, targets, groups = rows(), rows(size=2, seed=1), np.arange(40) % 5
    some = np.arange(40) < 25
    with_gaps = np.where(np.stack([np.ones(40, bool), some], axis=1), targets, np.nan)
    found = GramRidge(latents, with_gaps, groups).predict(rows(7, seed=2))
    np.testing.assert_allclose(found[:, 0], GramRidge(latents, targets, groups).predict(rows(7, seed=2))[:, 0])
    alone = GramRidge(latents[some], targets[some], groups[some])
    scale = (latents - latents.mean(axis=0)).std() / (latents[some] - latents[some].mean(axis=0)).std()
    assert scale == pytest.approx(1, abs=0.03)
    np.testing.assert_allclose(found[:, 1], alone.predict(rows(7, seed=2))[:, 1], atol=0.05)


def test_penalties_are_chosen_on_episodes_left_out() -> None:
    """Rows of an episode are alike and have one target, which says nothing of other episodes: the mean is the best guess."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), 10)
    latents = rng.normal(size=(12, 60))[groups] + 0.1 * rng.normal(size=(120, 60))
    target = rng.normal(size=(12, 1))[groups]
    new = rng.normal(size=(50, 60))
    by_episode = GramRidge(latents, target, groups).predict(new)
    by_row = GramRidge(latents, target, np.arange(120)).predict(new)
    assert by_episode.std() < 0.2 * by_row.std()


def test_one_group_is_refused() -> None:
    with pytest.raises(ValueError, match="leaving out groups"):
        GramRidge(rows(), rows(size=1), np.zeros(40, int))
