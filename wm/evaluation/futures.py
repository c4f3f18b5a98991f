"""Several futures of one clip, from models that sample them.

Shape legend: S futures, B clips, H imagined frames, P patches, V visual channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wm.evaluation.latent import copy_ratio, imagine
from wm.evaluation.quality import CLIPS_AT_ONCE
from wm.models.latent_model import LatentModel
from wm.types import Batch


@torch.no_grad()
def imagined_futures(
    model: LatentModel, batch: Batch, horizon: int, num_futures: int
) -> tuple[Float[Tensor, "B T P V"], Float[Tensor, "S B H P V"]]:
    """(visual latents of every frame, of the `horizon` frames after the first ones in each future).

    Futures differ by their noise alone. Raises ValueError for a model that samples nothing.
    """
    if model.sampling_steps is None:
        raise ValueError("a model of one pass has one future")
    content, futures = model.encode_content(batch.obs), []
    for number in range(num_futures):
        with model.in_future(number):
            futures.append(model.visual(imagine(model, batch, horizon)[1]))
    return model.visual(content), torch.stack(futures)


def futures_quality(
    model: LatentModel,
    batch: Batch,
    horizons: Sequence[int],
    num_futures: int,
    progress: Callable[[int], None] = lambda clips: None,
) -> dict[str, float]:
    """How the spread over futures compares with their error, by horizon, as `wm.evaluation.metric_names` defines it.

    Args:
        batch: clips of context + max(horizons) frames.
        num_futures: S, at least 2.
        progress: is told how many clips are done.
    """
    now, done = model.history_len - 1, 0
    device = next(model.parameters()).device
    sums = torch.zeros(3, len(horizons), dtype=torch.float64)  # of squares: error of the mean, spread, copy
    for piece in batch.chunks(CLIPS_AT_ONCE):
        truth, futures = imagined_futures(model, piece.to(device), max(horizons), num_futures)
        for column, h in enumerate(horizons):
            target, sampled = truth[:, now + h], futures[:, :, h - 1]
            squares = (
                (sampled.mean(dim=0) - target).square(),
                sampled.var(dim=0),
                (truth[:, now] - target).square(),
            )
            sums[:, column] += torch.stack([of.mean().double().cpu() for of in squares]) * piece.num_clips
        done += piece.num_clips
        progress(done)
    metrics: dict[str, float] = {}
    for h, (error, spread, copy) in zip(horizons, (sums / batch.num_clips).T.tolist(), strict=True):
        metrics[f"copy_ratio_mean_h{h}"] = copy_ratio(error, copy)
        metrics[f"spread_ratio_h{h}"] = copy_ratio(spread, copy)
        metrics[f"spread_skill_h{h}"] = math.sqrt(copy_ratio(spread * (1 + 1 / num_futures), error))
    return metrics


def spread_map(futures: Float[Tensor, "S H P V"], most: float) -> Float[np.ndarray, "H s s 3"]:
    """Standard deviation over futures of each patch, mean over channels, as grey: `most` and above are white.

    Raises ValueError where the patches are no square.
    """
    side = math.isqrt(futures.shape[2])
    if side**2 != futures.shape[2]:
        raise ValueError(f"{futures.shape[2]} patches are no square")
    spread = futures.var(dim=0).mean(dim=-1).sqrt() / max(most, 1e-12)
    return spread.clamp(max=1).view(-1, side, side, 1).expand(-1, -1, -1, 3).float().cpu().numpy()
