"""The linear world with a model whose truth is known: it reads the dot's place off the picture and rolls out s' = A s + B a."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.wm.data import samples
from wm.config.plan import CemConfig, PlanConfig
from wm.config.worlds import LinearWorldConfig
from wm.data.normalization import DataStatistics
from wm.envs.linear import VIEW_BOUND, LinearWorld
from wm.loaded import LoadedModel
from wm.types import Observation, Problem, Statistics

FRAMESKIP, HORIZON = 2, 3
WORLD = LinearWorldConfig(frame_size=48)
PLANNER = CemConfig(horizon=HORIZON, num_samples=64, num_elites=8, num_iterations=5)
PLAN = PlanConfig(world=WORLD, planner=PLANNER, max_iterations=3)
ACTION = Statistics(*(np.full(2, value, np.float32) for value in (0.1, 0.6, -1.0, 1.0)))


class ToyDynamics:
    """Content is the state (1, 2). `gain` multiplies the actions: 1 is the truth."""

    action_dim = 2 * FRAMESKIP

    def __init__(self, gain: float) -> None:
        world = LinearWorld(WORLD)
        self.transition = torch.from_numpy(world.transition).float()
        self.control = gain * torch.from_numpy(world.control).float()

    def encode(self, obs: Observation) -> Tensor:
        ink = 1 - obs.visual[..., 1].double() / 255  # (B, T, H, W), 1 in the dot's middle
        places = torch.linspace(-VIEW_BOUND, VIEW_BOUND, ink.shape[-1], dtype=torch.float64)
        weight = ink.sum(dim=(-2, -1))
        across, down = (ink.sum(dim=axis) @ places / weight for axis in (-2, -1))
        return torch.stack([across, down], dim=-1)[:, :, None].float()

    def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
        raw = actions * torch.from_numpy(np.tile(ACTION.std, FRAMESKIP)) + torch.from_numpy(
            np.tile(ACTION.mean, FRAMESKIP)
        )
        state, states = latent[:, -1, 0].expand(len(actions), -1), []
        for model_action in raw.unbind(dim=1):
            for action in model_action.unflatten(-1, (FRAMESKIP, -1)).unbind(dim=1):
                state = state @ self.transition.T + action @ self.control.T
            states.append(state)
        return torch.stack(states, dim=1)[:, :, None]


class ToyModel(LoadedModel):
    """Args: see `toy_model`."""

    @property
    def dynamics(self) -> Any:
        return self.facts["dynamics"]


def toy_model(gain: float = 1.0, visual: Callable[[Tensor], Tensor] = lambda content: content) -> ToyModel:
    """`gain`: of the model's actions; `visual`: what the objective sees of the content."""
    config = samples.config(data__clip__frameskip=FRAMESKIP)
    network: Any = SimpleNamespace(
        action_dim=ToyDynamics.action_dim,
        visual=visual,
        proprio=lambda content: None,
        parameters=lambda: iter([torch.zeros(1)]),
        keeps_proprio=False,
        sampled_in=lambda num_steps: nullcontext(),
        rollout_bytes=lambda horizon, graph=False: 1000,
        history_len=1,
        tokens_per_frame=1,
    )
    statistics = DataStatistics(ACTION, None, None)
    return ToyModel(config, samples.encoder(), network, statistics, {"dynamics": ToyDynamics(gain)})


def toy_problems(count: int) -> list[Problem]:
    """Random actions in range lead from the start to the goal."""
    world, rng, found = LinearWorld(WORLD), np.random.default_rng(3), []
    while len(found) < count:
        start = rng.uniform(-0.6, 0.6, 2)
        world.reset_to(start)
        before = world.render()
        actions = rng.uniform(-1, 1, (HORIZON * FRAMESKIP, 2))
        states = [world.step(action) for action in actions]
        goal = states[-1]
        if world.distance(start, goal) > 0.3 and np.abs(states).max() < 0.9:
            found.append(
                Problem(f"toy/{len(found)}", {}, start, goal, before, world.render(), HORIZON, None, None, actions)
            )
    return found
