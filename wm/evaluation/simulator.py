"""The simulator in the model's place: plans are rolled out in the world itself, so that the dynamics are true.

Shape legend: N plans, H model steps, F env steps of one, A F one model action, P patch tokens, C channels, S state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from wm.contracts import World
from wm.evaluation.planning import FAULTS, joined
from wm.loaded import LoadedModel
from wm.types import Observation

T = TypeVar("T")
_FRAMES_AT_ONCE = 32  # encoded together


def roll_out(
    world: World, model: LoadedModel, actions: Tensor, look: Callable[[], T], *, last_only: bool
) -> list[list[T] | None]:
    """What `look` sees after each model step of each plan, or after the last alone; None for a plan that breaks the world.

    Every plan begins where the world is, and there the world is left. Actions pass through no limits.

    Args:
        actions: normalised (N, H, A F).
    """
    begun = world.snapshot()
    found: list[list[T] | None] = []
    for plan in actions.cpu():
        seen: list[T] = []
        try:
            for number, model_step in enumerate(_by_model_step(model, plan), start=1):
                for action in model_step:
                    world.step(action)
                if number == len(plan) or not last_only:
                    seen.append(look())
            found.append(seen)
        except FAULTS:
            found.append(None)
        finally:
            world.restore(begun)
    return found


def look_at(world: World, model: LoadedModel) -> Observation:
    """What the model sees of the world now, (1, 1, ...)."""
    return model.observe(world.render(), world.proprio)


def encode_all(model: LoadedModel, seen: list[Observation]) -> Tensor:
    """Content (n, 1, P, C) of single observations, in pieces that bound memory."""
    pieces = [seen[first : first + _FRAMES_AT_ONCE] for first in range(0, len(seen), _FRAMES_AT_ONCE)]
    return torch.cat([model.dynamics.encode(joined(piece)) for piece in pieces])


class SimulatedLatents:
    """`Dynamics` whose rollouts are true: the world's frames, rendered and encoded.

    The world must stand where the plan begins: the context is not looked at.

    Args:
        last_only: only the last frame is rendered, for an objective that reads no other; rollouts are then (N, 1, ...).
    """

    def __init__(self, world: World, model: LoadedModel, *, last_only: bool) -> None:
        self.world, self.model, self.last_only = world, model, last_only
        self.action_dim = model.model.action_dim

    def encode(self, obs: Observation) -> Tensor:
        """As the model does."""
        return self.model.dynamics.encode(obs)

    def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
        """(N, H or 1, P, C); NaN for a plan that breaks the world."""
        rolled = roll_out(
            self.world, self.model, actions, lambda: look_at(self.world, self.model), last_only=self.last_only
        )
        steps = 1 if self.last_only else actions.shape[1]
        found = latent.new_full((len(actions), steps, *latent.shape[2:]), torch.nan)
        whole = [row for row, seen in enumerate(rolled) if seen is not None]
        if whole:
            frames = encode_all(self.model, [one for seen in rolled if seen is not None for one in seen])
            found[whole] = frames.view(len(whole), steps, *latent.shape[2:])
        return found


class SimulatedStates:
    """`Dynamics` of true states: rollouts are the world's state after the last model step, (N, 1, S). For `StateCost`."""

    def __init__(self, world: World, model: LoadedModel) -> None:
        self.world, self.model = world, model
        self.action_dim = model.model.action_dim

    def encode(self, obs: Observation) -> Tensor:
        """The state that the world is in, (B, 1, S), whatever is seen."""
        state = torch.from_numpy(np.asarray(self.world.state, np.float64))
        return state.expand(len(obs.visual), 1, -1)

    def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
        """NaN for a plan that breaks the world."""
        rolled = roll_out(self.world, self.model, actions, lambda: self.world.state.copy(), last_only=True)
        lost = np.full(latent.shape[-1], np.nan)
        return torch.from_numpy(np.stack([lost if seen is None else seen[-1] for seen in rolled])[:, None])


class StateCost:
    """The world's own distance of the last state to the goal's, in its units."""

    def __init__(self, world: World, goal: np.ndarray) -> None:
        self.world, self.goal = world, goal

    def __call__(self, latents: Tensor, goal: Tensor) -> Tensor:
        """States (N, H, S) -> (N,); the latent of the goal is not looked at."""
        states = latents[:, -1].double().numpy()
        known = np.isfinite(states).all(axis=1)
        found = np.full(len(states), np.nan)
        found[known] = [self.world.distance(state, self.goal) for state in states[known]]
        return torch.from_numpy(found.astype(np.float32))


def _by_model_step(model: LoadedModel, plan: Tensor) -> np.ndarray:
    """Raw env actions (H, F, A) of one plan (H, A F)."""
    env_actions = model.env_actions(plan)
    return env_actions.reshape(len(plan), -1, env_actions.shape[1])
