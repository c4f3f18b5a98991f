"""Linear probes: how much of the true state can be read off a latent."""

from __future__ import annotations

import warnings

import numpy as np

_STILL = 0.01
ALPHAS = tuple(float(a) for a in 10.0 ** np.arange(-3, 4))


class StateProbe:
    """Ridge regression from latents to the state, its penalty chosen by leave-one-out on the fitting rows.

    Latents are standardised by one scale, so that a shrunken latent is not penalised more.
    """

    def __init__(self, latents: np.ndarray, states: np.ndarray) -> None:
        """latents (N, K), states (N, S)."""
        from sklearn.linear_model import RidgeCV  # two seconds, which only a process that validates should wait

        rows = latents.astype(np.float64)
        self._mean = rows.mean(axis=0)
        self._scale = max(float((rows - self._mean).std()), 1e-12)
        self._variance = states.astype(np.float64).var(axis=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ill-conditioned at the smallest penalties: they are then not chosen
            self._ridge = RidgeCV(alphas=ALPHAS).fit(self._standardize(rows), states.astype(np.float64))

    def r2(self, latents: np.ndarray, states: np.ndarray) -> np.ndarray:
        """(S,) coefficient of determination on other rows; 1 is perfect, 0 the mean, below 0 worse than the mean.

        NaN for an entry that has less than 1 % of its variance where the probe was fitted: there is no spread to explain.
        """
        predicted = self._ridge.predict(self._standardize(latents.astype(np.float64))).reshape(states.shape)
        residual = ((states - predicted) ** 2).sum(axis=0)
        total = ((states - states.mean(axis=0)) ** 2).sum(axis=0)
        varies = total > _STILL * len(states) * self._variance
        return np.where(varies, 1 - residual / np.maximum(total, 1e-12), np.nan)

    def _standardize(self, rows: np.ndarray) -> np.ndarray:
        return (rows - self._mean) / self._scale
