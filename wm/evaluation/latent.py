"""How well a world model predicts: latent error by horizon, beside the error of copying the last frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from wm.models.latent_model import LatentModel
from wm.types import Batch


@torch.no_grad()
def rollout_errors(model: LatentModel, batch: Batch, horizons: Sequence[int]) -> dict[str, float]:
    """Latent error from H context frames, over clips of H + max(horizons) frames; visual channels only.

    For each h: `z_visual_err_rollout_h{h}` = mean || z^_h - z_h ||^2, `copy_ratio_h{h}` = that over mean || z_0 - z_h ||^2, with
    z_0 the last context frame. A ratio of 1 or more: the model has learnt nothing. Scale-free, so it may cross variants.
    """
    metrics: dict[str, float] = {}
    for horizon, (error, copy) in zip(horizons, squared_errors(model, batch, horizons), strict=True):
        metrics[f"z_visual_err_rollout_h{horizon}"] = error
        metrics[f"copy_ratio_h{horizon}"] = copy_ratio(error, copy)
    return metrics


def copy_ratio(error: float, copy: float) -> float:
    """error / copy, where a scene that stands still has no copy error to divide by."""
    return error / max(copy, 1e-12)


@torch.no_grad()
def squared_errors(model: LatentModel, batch: Batch, horizons: Sequence[int]) -> list[tuple[float, float]]:
    """For each horizon, mean squared error of (the rollout, the last context frame) against the encoded frame."""
    history = model.history_len
    needed = history + max(horizons)
    if batch.num_frames < needed:
        raise ValueError(f"clips of {needed} frames needed, got {batch.num_frames}")
    content, imagined = imagine(model, batch, max(horizons))
    visual = model.visual(content)
    last = visual[:, history - 1]
    errors: list[tuple[float, float]] = []
    for horizon in horizons:
        target = visual[:, history - 1 + horizon]
        error = (model.visual(imagined)[:, horizon - 1] - target).square().mean()
        errors.append((float(error), float((last - target).square().mean())))
    return errors


@torch.no_grad()
def imagine(
    model: LatentModel, batch: Batch, horizon: int
) -> tuple[Float[Tensor, "B T P C"], Float[Tensor, "B H P C"]]:
    """(encoded content of every frame, rolled-out content of the `horizon` frames after the first H)."""
    history = model.history_len
    content = model.encode_content(batch.obs)
    actions = batch.actions[:, : history + horizon - 1]
    return content, model.rollout(content[:, :history], actions, batch.has_actions)
