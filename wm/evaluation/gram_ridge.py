"""Ridge regression on few rows of many columns, its penalty chosen by leaving out whole groups of rows."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

PENALTIES = tuple(float(each) for each in 10.0 ** np.arange(-7, 3))  # over a Gram matrix whose diagonal is 1 on average
_FOLDS = 4


class GramRidge:
    """targets ~ rows W + b, in the dual: N x N instead of K x K, where K is thousands.

    W = X' (X X' / (K s^2) + penalty I)^-1 (Y - mean) with centred rows X and their one standard deviation s, so that a shrunken
    latent is not penalised more. Each target has the penalty with the least squared error on groups left out, four folds: rows
    of one episode are much alike, and leaving out single rows would choose too small a penalty.

    Targets that are NaN in a row are fitted on the other rows.
    """

    def __init__(
        self, rows: Float[np.ndarray, "N K"], targets: Float[np.ndarray, "N S"], groups: Int[np.ndarray, " N"]
    ) -> None:
        """Raises ValueError when a target has fewer than two groups of rows."""
        self._mean = rows.mean(axis=0, dtype=np.float64)
        centred = rows - self._mean
        self._scale = max(float(centred.std()), 1e-12) * np.sqrt(rows.shape[1])
        centred /= self._scale
        gram = centred @ centred.T
        self._weights = np.zeros((rows.shape[1], targets.shape[1]))
        self._offset = np.zeros(targets.shape[1])
        there = np.isfinite(targets)
        for mask in np.unique(there, axis=1).T:  # targets that are known in the same rows are fitted together
            columns = np.flatnonzero((there == mask[:, None]).all(axis=0))
            self._fit(centred[mask], gram[np.ix_(mask, mask)], targets[np.ix_(mask, columns)], groups[mask], columns)

    def predict(self, rows: Float[np.ndarray, "n K"]) -> Float[np.ndarray, "n S"]:
        """Of other rows."""
        return (rows - self._mean) / self._scale @ self._weights + self._offset

    def _fit(self, rows: np.ndarray, gram: np.ndarray, targets: np.ndarray, groups: np.ndarray, at: np.ndarray) -> None:
        names, group = np.unique(groups, return_inverse=True)
        if len(names) < 2:
            raise ValueError(f"a penalty is chosen by leaving out groups, and there are {len(names)}")
        fold = group % min(_FOLDS, len(names))
        errors = np.zeros((len(PENALTIES), targets.shape[1]))
        for number in range(fold.max() + 1):
            inside, left = fold != number, fold == number
            duals, mean = _duals(gram[np.ix_(inside, inside)], targets[inside])
            middle = gram[:, inside].mean(axis=1)  # centring for the fold
            across = gram[np.ix_(left, inside)] - middle[left, None] - middle[inside] + middle[inside].mean()
            for row, dual in enumerate(duals):
                errors[row] += ((across @ dual + mean - targets[left]) ** 2).sum(axis=0)
        duals, mean = _duals(gram, targets)
        chosen = duals[errors.argmin(axis=0), :, np.arange(targets.shape[1])].T
        middle = rows.mean(axis=0)
        self._weights[:, at] = (rows - middle).T @ chosen
        self._offset[at] = mean - middle @ self._weights[:, at]


def _duals(gram: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dual coefficients (penalties, N, S) and the targets' means."""
    middle, mean = gram.mean(axis=0), targets.mean(axis=0)
    values, vectors = np.linalg.eigh(gram - middle - middle[:, None] + middle.mean())
    turned = vectors.T @ (targets - mean)
    values = np.maximum(values, 0.0)
    return np.stack([vectors @ (turned / (values + penalty)[:, None]) for penalty in PENALTIES]), mean
