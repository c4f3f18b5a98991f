"""A linear world model whose best plan is known, and the golden numbers' own toy world, which is one too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tests.golden.case import GOLDEN, Golden, assert_golden, load_case
from tests.golden.planners import LinearDynamics
from wm.config.plan import ObjectiveConfig
from wm.planning import LatentObjective


@dataclass
class LinearProblem:
    """A start, a goal out of reach, and the actions (H, A F) that end nearest to it."""

    dynamics: LinearDynamics
    objective: LatentObjective
    context: Tensor
    goal: Tensor
    best_actions: Tensor
    best_cost: float


@pytest.fixture
def linear_problem() -> Callable[..., LinearProblem]:
    """(seed, horizon, action_dim) -> problem. Eight states and fewer actions: the least-squares plan is unique."""

    def make(seed: int = 0, horizon: int = 3, action_dim: int = 1) -> LinearProblem:
        generator = torch.Generator().manual_seed(seed)
        basis = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
        A, B = 0.9 * basis, torch.randn(8, action_dim, generator=generator)
        start, goal = torch.randn(2, 8, generator=generator)
        power = [torch.linalg.matrix_power(A, k) for k in range(horizon + 1)]
        reach = torch.cat([power[horizon - 1 - t] @ B for t in range(horizon)], dim=1)
        missing = goal - power[horizon] @ start
        best = torch.linalg.lstsq(reach, missing[:, None]).solution[:, 0]
        best_cost = float((reach @ best - missing).square().mean())
        return LinearProblem(
            LinearDynamics(A, B),
            LatentObjective(ObjectiveConfig()),
            start.view(1, 1, 1, 8),
            goal.view(1, 1, 1, 8),
            best.view(horizon, action_dim),
            best_cost,
        )

    return make


@pytest.fixture
def golden() -> Callable[[str], Golden]:
    return lambda name: load_case(GOLDEN / "dino_wm" / f"{name}.npz")


@pytest.fixture(name="assert_golden")
def _assert_golden() -> Callable[[Tensor, Tensor, float], None]:
    """max |a - b| <= tolerance * max(1, max |reference|), as the golden README defines it."""
    return assert_golden
