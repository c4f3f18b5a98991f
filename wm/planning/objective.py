"""How far imagined latents are from a goal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from wm.config.plan import ObjectiveConfig


def latent_cost(
    visual: Tensor,
    visual_goal: Tensor,
    proprio: Tensor | None,
    proprio_goal: Tensor | None,
    alpha: float,
    frames: Literal["last", "all"],
    base: float,
) -> Tensor:
    """Squared distance of imagined latents to the goal's.

    With d_t the mean squared error of frame t, over all its entries, visual plus alpha times proprio:
    `last` is d_H; `all` is (1 / H) sum_t w_t d_t with w_t = base^t / sum_j base^j. The weights already sum to one and
    the reference averages on top of them, so `all` is H times smaller than a weighted mean. Kept: it moves no optimum,
    though a gradient planner's lr then means H times less.

    Args:
        visual, visual_goal: (N, H, ...) and (N or 1, 1, ...).
        proprio, proprio_goal: the same for proprioception, with any axes of their own; None drops the term.
        alpha: weight of the proprio term.
        base: above 1, later frames count more.

    Returns:
        cost (N,) float32.

    Source: DINO-WM (arXiv 2411.04983; planning/objectives.py of its repository). Difference: there the observed frames
    take part in `all`; a constant and a common factor, so the same optimum.
    """
    if frames == "last":
        visual, proprio = visual[:, -1:], None if proprio is None else proprio[:, -1:]
    per_frame = _frame_error(visual, visual_goal)
    if proprio is not None and proprio_goal is not None:
        per_frame = per_frame + alpha * _frame_error(proprio, proprio_goal)
    if frames == "last":
        return per_frame[:, 0]
    weights = base ** torch.arange(per_frame.shape[1], device=per_frame.device, dtype=torch.float32)
    return (per_frame * weights / weights.sum()).mean(dim=1)


def _frame_error(latents: Tensor, goal: Tensor) -> Tensor:
    """Mean squared error per frame, (N, H). float32: in bfloat16 close candidates would tie."""
    return (latents.float() - goal.float()).square().flatten(2).mean(dim=2)


Split = Callable[[Tensor], tuple[Tensor, Tensor | None]]  # latents -> (visual part, proprio part or None)


def all_visual(latents: Tensor) -> tuple[Tensor, None]:
    """Nothing of the latent is proprio."""
    return latents, None


def channel_split(visual_dim: int) -> Split:
    """Channels up to `visual_dim` are visual, the rest proprio."""
    return lambda latents: (latents[..., :visual_dim], latents[..., visual_dim:])


class LatentObjective:
    """Squared distance between latents that hold a visual and, maybe, a proprio part.

    Args:
        config: alpha, frames and base of `latent_cost`.
        split: which part is which; without a proprio part alpha has no effect.

    Source: DINO-WM, as `latent_cost`. Difference: proprio is tiled over the patches; the reference compares the copy at
    patch 0, here the error is averaged over all patches. Both agree where the copies do, as in every encoded frame; the
    predictor's copies may drift apart, and the mean over them is what the training loss holds down.
    """

    def __init__(self, config: ObjectiveConfig, split: Split = all_visual) -> None:
        self.config = config
        self.split = split

    def __call__(self, latents: Tensor, goal: Tensor) -> Tensor:
        """latents (N, H, ..., C), goal (1 or N, 1, ..., C) -> cost (N,)."""
        visual, proprio = self.split(latents)
        visual_goal, proprio_goal = self.split(goal)
        alpha, frames, base = self.config.alpha, self.config.frames, self.config.base
        return latent_cost(visual, visual_goal, proprio, proprio_goal, alpha, frames, base)
