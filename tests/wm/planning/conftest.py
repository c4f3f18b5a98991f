"""A linear world model whose best plan is known, and the golden numbers' own toy world, which is one too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from wm.config.plan import ObjectiveConfig
from wm.planning import LatentObjective
from wm.types import Observation

GOLDEN = Path(__file__).parents[2] / "golden" / "dino_wm"


@dataclass
class LinearDynamics:
    """s' = A s + B a; latents are (N, H, 1, D). Keeps every batch of actions it was asked about."""

    A: Tensor
    B: Tensor
    asked: list[Tensor] = field(default_factory=list)
    num_encoded: int = 0

    @property
    def action_dim(self) -> int:
        return self.B.shape[1]

    def encode(self, obs: Observation) -> Tensor:
        self.num_encoded += 1
        return obs.visual

    def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
        self.asked.append(actions.detach().clone())
        state = latent[:, -1, 0].expand(len(actions), -1)
        states = []
        for action in actions.unbind(dim=1):
            state = state @ self.A.T + action @ self.B.T
            states.append(state)
        return torch.stack(states, dim=1)[:, :, None]


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


@dataclass(frozen=True)
class Golden:
    """One case of tests/golden/dino_wm; `golden["out/mu"]` is a tensor."""

    arrays: dict[str, np.ndarray]

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key])

    def cfg(self, key: str) -> float:
        return self.arrays[f"cfg/{key}"].item()

    def state(self, when: str, problem: int) -> Tensor:
        """The toy world's state (1, 1, 1, 8) of one problem: [visual, flattened | proprio]."""
        parts = [self[f"in/{when}_visual"][problem].flatten(), self[f"in/{when}_proprio"][problem].flatten()]
        return torch.cat(parts).view(1, 1, 1, -1)

    def dynamics(self) -> LinearDynamics:
        return LinearDynamics(self["in/A"], self["in/B"])

    def objective(self) -> LatentObjective:
        return LatentObjective(ObjectiveConfig(alpha=self.cfg("alpha")), visual_dim=6)


@pytest.fixture
def golden() -> Callable[[str], Golden]:
    def load(case: str) -> Golden:
        with np.load(GOLDEN / f"{case}.npz") as arrays:
            return Golden({key: arrays[key] for key in arrays.files})

    return load


@pytest.fixture
def assert_golden() -> Callable[[Tensor, Tensor, float], None]:
    """max |a - b| <= tolerance * max(1, max |reference|), as the golden README defines it."""

    def check(value: Tensor, reference: Tensor, tolerance: float = 2e-6) -> None:
        assert value.shape == reference.shape
        assert float((value - reference).abs().max()) <= tolerance * max(1.0, float(reference.abs().max()))

    return check


@pytest.fixture
def replay() -> Callable[[list[Tensor]], Callable[[tuple[int, ...], torch.Generator], Tensor]]:
    """A NoiseSource that hands out recorded noise, one tensor a call."""

    def source(recorded: list[Tensor]) -> Callable[[tuple[int, ...], torch.Generator], Tensor]:
        rest = iter(recorded)

        def draw(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
            noise = next(rest)
            assert noise.shape == shape
            return noise

        return draw

    return source
