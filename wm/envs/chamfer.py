"""The chamfer distance between two sets of points, as DINO-WM measures its rope and granular worlds."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def chamfer_distance(first: Float[np.ndarray, "n 3"], second: Float[np.ndarray, "m 3"]) -> float:
    """mean_a min_b |a - b| + mean_b min_a |a - b|: Euclidean, not squared, not halved; which point is which does not count.

    Args:
        first, second: points, any unit; the distance has the same.

    Source: gaoyuezhou/dino_wm 0a9492f, env/deformable_env (facts: WORLDS.md, section 4).
    """
    apart = np.linalg.norm(first[:, None, :] - second[None, :, :], axis=-1)
    return float(apart.min(axis=1).mean() + apart.min(axis=0).mean())
