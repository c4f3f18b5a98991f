"""The nouns that travel between rooms.

Shape legend: B batch, T frames, P patch tokens, D channels, A action size, F frameskip, S state size, H horizon, N samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor


class ClipRef(NamedTuple):
    """Where a clip is: all that the index, the schedule and a resume speak of."""

    source: str
    episode: int
    start: int
    frameskip: int
    num_frames: int

    @property
    def frame_indices(self) -> np.ndarray:
        """Env-step indices of the clip's frames, (T,)."""
        return self.start + self.frameskip * np.arange(self.num_frames)


@dataclass(frozen=True)
class RecordedEpisode:
    """One episode; `states[t]` and `frames[t]` were observed before `actions[t]` was applied.

    Args:
        frames: uint8 (T, H, W, 3), RGB.
        states: float32 (T, S), raw units. Without any, S is 0; so is A without actions, Dp without proprio.
        actions: float32 (T, A), raw units. The last one has no recorded consequence.
        layout: what the world was set to.
        proprio: float32 (T, Dp), raw units.
        goal: (S,) float64, what the policy tried to reach, or None where it tried nothing.
        met: bool (T,), whether the task counted as done in each state; None without a goal and without a task.
        views: further cameras by name, uint8 (T, H, W, 3), synchronous with `frames`.
        flat_states: float64 (T, X), the simulator's own, where the world tells it.
        model_file: the simulator's model as XML, where the world tells it.
        particles: float32 (T, P, 3), where the world is made of particles; (T, P, 4) with their inverse masses.
        task: what is to be done, in words, where each episode says it.
    """

    frames: np.ndarray
    states: np.ndarray
    actions: np.ndarray
    layout: Mapping[str, float]
    proprio: np.ndarray
    goal: np.ndarray | None = None
    met: np.ndarray | None = None
    views: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    flat_states: np.ndarray | None = None
    model_file: str | None = None
    particles: np.ndarray | None = None
    task: str | None = None

    @property
    def success(self) -> bool | None:
        """Whether the task was done at some step."""
        return None if self.met is None else bool(self.met.any())

    @property
    def final_success(self) -> bool | None:
        """Whether it was done in the last state."""
        return None if self.met is None else bool(self.met[-1])


@dataclass(frozen=True)
class Observation:
    """What a model sees: pixels or tokens, and proprioception when the source has it.

    Args:
        visual: uint8 pixels (B, T, H, W, 3) or patch tokens (B, T, P, D) float32; float16 on their way from the store to `Batch.to`.
        proprio: normalised proprioception (B, T, Dp), or None.
        has_proprio: (B,) bool, False for clips without it; None: all have it.
    """

    visual: Tensor
    proprio: Tensor | None = None
    has_proprio: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Observation:
        """The same observation with every tensor changed."""
        rest = (None if each is None else change(each) for each in (self.proprio, self.has_proprio))
        return Observation(change(self.visual), *rest)

    @property
    def is_pixels(self) -> bool:
        return self.visual.dtype == torch.uint8

    def slice(self, frames: slice) -> Observation:
        """The same observation at some of its frames."""
        proprio = None if self.proprio is None else self.proprio[:, frames]
        return Observation(self.visual[:, frames], proprio, self.has_proprio)


def adapter_columns(action_dim: int, adapters: Mapping[str, int]) -> dict[str, slice]:
    """Which columns of `Batch.actions` are whose, beyond the first `action_dim`: a 1 that marks a row as one's own, then its actions.

    Args:
        adapters: A F of each other action vector, by name.
    """
    columns: dict[str, slice] = {}
    first = action_dim
    for name in sorted(adapters):
        columns[name] = slice(first, first + 1 + adapters[name])
        first = columns[name].stop
    return columns


@dataclass(frozen=True)
class Batch:
    """One training batch; every array is normalised already.

    Args:
        obs: T frames.
        actions: (B, T, A F), the F env actions that follow each frame; zeros where absent. Where sources have other action
            vectors, (B, T, K): the columns of `adapter_columns` follow, and a row fills its own.
        has_actions: (B,) bool, False for clips without labels.
        state: normalised state (B, T, S), or None when no clip of the batch has one.
        has_state: (B,) bool.
        weights: (B,) weight of each clip in every loss.
        images: uint8 (B, T, H, W, 3) beside the tokens, where an image decoder is trained.
        seeds: (B,) int64 of each clip's own random numbers, whatever worker and piece it falls into; None where none are drawn.
    """

    obs: Observation
    actions: Tensor
    has_actions: Tensor
    state: Tensor | None
    has_state: Tensor
    weights: Tensor
    images: Tensor | None = None
    seeds: Tensor | None = None

    @property
    def num_clips(self) -> int:
        return self.actions.shape[0]

    @property
    def num_frames(self) -> int:
        return self.actions.shape[1]

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch with every tensor changed; each has the clips on its first axis."""
        return replace(
            self,
            obs=self.obs.map(change),
            actions=change(self.actions),
            has_actions=change(self.has_actions),
            state=None if self.state is None else change(self.state),
            has_state=change(self.has_state),
            weights=change(self.weights),
            images=None if self.images is None else change(self.images),
            seeds=None if self.seeds is None else change(self.seeds),
        )

    def chunks(self, size: int) -> list[Batch]:
        """The batch in pieces of at most `size` clips."""
        starts = range(0, self.num_clips, size)
        return [self.map(lambda values, first=first: values[first : first + size]) for first in starts]

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device; float16 tokens become float32 there."""
        moved = self.map(lambda values: values.to(device))
        if moved.obs.visual.dtype != torch.float16:
            return moved
        return replace(moved, obs=replace(moved.obs, visual=_as_float32(moved.obs.visual)))


def _as_float32(tokens: Tensor) -> Tensor:
    """Into memory from numpy, on a CPU: it asks the system for huge pages, and new small ones take longer than the conversion."""
    if tokens.device.type != "cpu":
        return tokens.float()
    values = torch.as_tensor(np.empty(tuple(tokens.shape), np.float32))
    return values.copy_(tokens)


@dataclass(frozen=True)
class LossTerms:
    """A loss and its named parts.

    Args:
        weighted: each term times its weight, by name; their sum is differentiated.
        parts: unweighted value of each term and of what is only watched, detached, by name.
        label: for a term that counts only the rows with a label, which one; what is not named counts every row.
    """

    weighted: Mapping[str, Tensor]
    parts: Mapping[str, Tensor]
    label: Mapping[str, Literal["state", "actions"]] = field(default_factory=dict[str, Literal["state", "actions"]])

    @property
    def total(self) -> Tensor:
        """The scalar to differentiate."""
        return torch.stack(list(self.weighted.values())).sum()


@dataclass(frozen=True)
class Problem:
    """One planning problem: a start, a goal, and what is known of the way between.

    Args:
        id: stable name, the same for every checkpoint and planner.
        layout: what the world must be set to (wall_x, door_y, ...).
        state_0, state_g: raw world states (S,) at the start and at the goal.
        frame_0, frame_g: uint8 (H, W, 3).
        proprio_0, proprio_g: raw proprioception (Dp,), or None.
        goal_horizon: model steps between start and goal when the goal was recorded.
        gt_actions: raw env actions (goal_horizon F, A) that lead to the goal, or None.
    """

    id: str
    layout: Mapping[str, float]
    state_0: np.ndarray
    state_g: np.ndarray
    frame_0: np.ndarray
    frame_g: np.ndarray
    goal_horizon: int
    proprio_0: np.ndarray | None = None
    proprio_g: np.ndarray | None = None
    gt_actions: np.ndarray | None = None


@dataclass(frozen=True)
class Plan:
    """What a planner returns for B problems.

    Args:
        actions: normalised model actions (B, H, A F).
        cost: objective of `actions`, (B,), lower is better; NaN where the model was not asked.
        trace: the numbers worth a curve (`cost`, `best_cost`, `std`), each (B, iterations).
        candidates: other good plans, (B, K, H, A F), for the next search, or None.
    """

    actions: Tensor
    cost: Tensor
    trace: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    candidates: Tensor | None = None


@dataclass(frozen=True)
class WarmStart:
    """What is left of earlier plans.

    Args:
        actions: normalised (B, h, A F), h at most the horizon: the guess.
        candidates: other good plans (B, K, h, A F), or None.
    """

    actions: Tensor
    candidates: Tensor | None = None

    @staticmethod
    def after(plan: Plan, steps: int) -> WarmStart | None:
        """What remains of a plan when its first model steps are executed; None when nothing does."""
        if plan.actions.shape[1] <= steps:
            return None
        candidates = None if plan.candidates is None else plan.candidates[:, :, steps:]
        return WarmStart(plan.actions[:, steps:], candidates)


@dataclass(frozen=True)
class Statistics:
    """Mean, standard deviation and range of one vector over a data set, each (size,) float32; a range may be unknown."""

    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None

    @property
    def size(self) -> int:
        return int(self.mean.shape[0])

    def normalize(self, values: np.ndarray) -> np.ndarray:
        """(x - mean) / std over the last axis; an axis of F stacked vectors is tiled."""
        repeat = values.shape[-1] // self.size
        return (values - np.tile(self.mean, repeat)) / np.tile(self.std, repeat)

    def denormalize(self, values: np.ndarray) -> np.ndarray:
        """x * std + mean, the inverse of `normalize`."""
        repeat = values.shape[-1] // self.size
        return values * np.tile(self.std, repeat) + np.tile(self.mean, repeat)
