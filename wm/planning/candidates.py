"""What the model thinks of candidate plans."""

from __future__ import annotations

import torch
from torch import Tensor

from wm.config.errors import UserError
from wm.contracts import Dynamics, Objective


def candidate_costs(
    dynamics: Dynamics,
    objective: Objective,
    context: Tensor,
    goal: Tensor,
    actions: Tensor,
    chunk_size: int | None = None,
) -> Tensor:
    """Cost of every candidate of every problem; one that the model cannot judge (NaN) costs +inf, so that no search follows it.

    Args:
        context: latent (B, T, ...).
        goal: latent (B, 1, ...).
        actions: normalised (B, N, H, A F).
        chunk_size: most candidates rolled out at once, which bounds memory and changes no cost; None: all B N.

    Returns:
        cost (B, N) float32.

    Raises:
        UserError: a problem has no candidate of finite cost.
    """
    cost = _costs(dynamics, objective, context, goal, actions, chunk_size)
    if not cost.isfinite().any(dim=1).all():
        lost = int((~cost.isfinite().any(dim=1)).sum())
        raise UserError(
            f"the model returned NaN for every candidate plan ({actions.shape[1]} of {actions.shape[1]}"
            f"{f', in {lost} of {len(cost)} problems' if len(cost) > 1 else ''}): "
            "check that its training loss stayed finite and that actions and observations are normalised"
        )
    return cost


def plan_cost(
    dynamics: Dynamics,
    objective: Objective,
    context: Tensor,
    goal: Tensor,
    actions: Tensor,
    chunk_size: int | None = None,
) -> Tensor:
    """Cost (B,) of one plan a problem, (B, H, A F); +inf where the model returns NaN."""
    return _costs(dynamics, objective, context, goal, actions[:, None], chunk_size)[:, 0]


def _costs(
    dynamics: Dynamics, objective: Objective, context: Tensor, goal: Tensor, actions: Tensor, chunk_size: int | None
) -> Tensor:
    problems, samples = actions.shape[:2]
    flat = actions.flatten(0, 1)
    costs = []
    for chunk in torch.arange(len(flat), device=flat.device).split(chunk_size or len(flat)):
        # One problem's context is rolled out as it is, not copied for every sample.
        of = slice(None) if problems == 1 else chunk // samples
        costs.append(objective(dynamics.rollout(context[of], flat[chunk]), goal[of]))
    cost = torch.cat(costs).float().view(problems, samples)
    return torch.nan_to_num(cost, nan=torch.inf, posinf=torch.inf)
