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
    """Cost of every candidate; one that the model cannot judge (NaN) costs +inf, so that no search follows it.

    Args:
        context: latent (1, T, ...).
        goal: latent (1, 1, ...).
        actions: normalised (N, H, A F).
        chunk_size: most candidates rolled out at once, which bounds memory and changes no cost; None: all N.

    Returns:
        cost (N,) float32.

    Raises:
        UserError: no candidate has a finite cost.
    """
    chunks = actions.split(chunk_size or len(actions))
    costs = [objective(dynamics.rollout(context, chunk), goal) for chunk in chunks]
    cost = torch.nan_to_num(torch.cat(costs).float(), nan=torch.inf, posinf=torch.inf)
    if not cost.isfinite().any():
        raise UserError(
            f"the model returned NaN for every candidate plan ({len(actions)} of {len(actions)}): "
            "check that its training loss stayed finite and that actions and observations are normalised"
        )
    return cost


def plan_cost(dynamics: Dynamics, objective: Objective, context: Tensor, goal: Tensor, actions: Tensor) -> float:
    """Cost of one plan (H, A F); +inf where the model returns NaN."""
    cost = objective(dynamics.rollout(context, actions[None]), goal).float()
    return float(torch.nan_to_num(cost, nan=torch.inf, posinf=torch.inf))
