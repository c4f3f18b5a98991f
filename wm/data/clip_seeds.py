"""A seed for each clip of a training run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_STREAM = 0x5F0  # no other generator of a run has this in its key


def clip_seeds(seed: int, step: int, places: Sequence[int]) -> np.ndarray:
    """(places,) int64 in [0, 2^63): pure functions of the run's seed, the global step and the clip's place in the global batch.

    So what is drawn for a clip does not depend on how the batch is cut over workers and micro-batches.
    """
    keys = (np.random.SeedSequence([seed, _STREAM, step, place]).generate_state(1, np.uint64)[0] for place in places)
    return np.array([int(key) >> 1 for key in keys], np.int64)
