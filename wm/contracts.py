"""The protocols between rooms. Each has one contract suite in tests/contracts that every implementation inherits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from wm.types import ClipRef, Observation, Plan, WarmStart


@runtime_checkable
class Encoder(Protocol):
    """Frozen vision: pixels to patch tokens."""

    dim: int  # D
    grid: tuple[int, int]  # patches down, patches across; P = their product
    fingerprint: str  # of weights and preprocessing: two encoders with the same one give the same tokens

    def encode(self, frames: Tensor) -> Tensor:
        """uint8 (B, T, H, W, 3) -> float32 patch tokens (B, T, P, D), without gradient."""
        ...


@runtime_checkable
class ResizableEncoder(Encoder, Protocol):
    """An encoder that can be asked for tokens of smaller or larger pictures: what `train.resolution` needs."""

    def at_size(self, size: int) -> Encoder:
        """The same weights on pictures of `size` pixels a side, with the grid and the fingerprint that go with them.

        Raises UserError for a size that it cannot take.
        """
        ...


@runtime_checkable
class Episode(Protocol):
    """One recorded episode, read lazily. Arrays are raw (not normalised); None where the source has none."""

    id: str
    source: str
    length: int  # env steps with a frame
    fps: float
    tags: Mapping[str, float]  # the world's layout and other factors

    @property
    def actions(self) -> np.ndarray | None: ...  # (length, A)

    @property
    def proprio(self) -> np.ndarray | None: ...  # (length, Dp)

    @property
    def state(self) -> np.ndarray | None: ...  # (length, S)

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """uint8 (n, H, W, 3), RGB, decoded now."""
        ...


@runtime_checkable
class Source(Protocol):
    """A data set on disk. `lengths` and the small arrays are read at once, frames never are."""

    name: str
    fingerprint: str
    lengths: Sequence[int]
    action_names: tuple[str, ...]
    proprio_names: tuple[str, ...]
    state_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def episode(self, index: int) -> Episode: ...


@runtime_checkable
class World(Protocol):
    """A simulator. One instance is one world at one layout; nothing in it depends on global random state."""

    name: str
    action_names: tuple[str, ...]  # one entry per action dimension, raw units
    state_names: tuple[str, ...]
    proprio_names: tuple[str, ...]
    frame_size: int  # frames are (frame_size, frame_size, 3)
    action_low: np.ndarray  # (A,) raw: what a policy keeps to. `step` treats what lies beyond as the world's page says
    action_high: np.ndarray

    @property
    def layout(self) -> Mapping[str, float]:
        """What `set_layout` would need to make this world again."""
        ...

    @property
    def state(self) -> np.ndarray:
        """Raw state (S,) float64."""
        ...

    @property
    def proprio(self) -> np.ndarray:
        """Raw proprioception (Dp,) float64."""
        ...

    def set_layout(self, layout: Mapping[str, float]) -> None:
        """Move walls, doors and shapes. Raises ValueError naming an unknown or impossible entry."""
        ...

    def reset_to(self, state: np.ndarray) -> None:
        """Put the world in `state` (S,). Raises ValueError when it is impossible.

        Where the state vector leaves something out (contacts, velocities), what is left out is at rest; `restore` is exact.
        """
        ...

    def step(self, action: np.ndarray) -> np.ndarray:
        """Apply one raw env action (A,); returns the new state (S,). Raises ValueError on NaN or a wrong shape."""
        ...

    def render(self) -> np.ndarray:
        """The current frame, uint8 (frame_size, frame_size, 3), RGB."""
        ...

    def sample_layout(self, rng: np.random.Generator) -> Mapping[str, float]: ...

    def sample_problem(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Two states, start and goal, at the current layout."""
        ...

    def success(self, state: np.ndarray, goal: np.ndarray) -> bool: ...

    def distance(self, state: np.ndarray, goal: np.ndarray) -> float: ...

    def snapshot(self) -> Any:
        """Everything needed to go on from here exactly."""
        ...

    def restore(self, snapshot: Any) -> None: ...

    def close(self) -> None:
        """Free what the simulator and its renderer hold; the world is not used afterwards. A second call does nothing."""
        ...


@runtime_checkable
class Policy(Protocol):
    """What makes demonstrations: raw actions from a world's current state."""

    def reset(self, world: World, rng: np.random.Generator) -> None:
        """Start an episode: may put the world in a start state."""
        ...

    def act(self, world: World, rng: np.random.Generator) -> np.ndarray:
        """The next raw env action (A,)."""
        ...


@runtime_checkable
class Dynamics(Protocol):
    """What a planner sees of a world model. Never the simulator."""

    action_dim: int  # A F, one model action

    def encode(self, obs: Observation) -> Tensor:
        """Observation with B rows and T frames -> latent (B, T, ...) of the frames' content, without actions."""
        ...

    def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
        """Context latents (1 or N, T, ...) and normalised actions (N, H, A F) -> latents (N, H, ...) of the H frames that follow."""
        ...


@runtime_checkable
class AnytimeDynamics(Dynamics, Protocol):
    """Dynamics that can imagine more cheaply while a search is young."""

    def at_iteration(self, number: int) -> Dynamics:
        """The same model as a planner's iteration `number` (from 0) sees it; a plan's own cost is that of `self`."""
        ...


@runtime_checkable
class Objective(Protocol):
    """Cost of imagined latents against a goal latent."""

    def __call__(self, latents: Tensor, goal: Tensor) -> Tensor:
        """latents (N, H, ...), goal (1 or N, 1, ...) -> cost (N,), lower is better."""
        ...


@runtime_checkable
class Planner(Protocol):
    """Searches for actions that minimise an objective."""

    horizon: int  # model steps planned

    def plan(
        self,
        dynamics: Dynamics,
        objective: Objective,
        context: Tensor,
        goal: Tensor,
        start: WarmStart | None,
        generators: Sequence[torch.Generator],
    ) -> Plan:
        """Plan for B problems at once, from context latents (B, T, ...) to goal latents (B, 1, ...).

        Args:
            start: what is left of earlier plans, or None.
            generators: one a problem, its only source of randomness: a problem draws the same numbers in any company.
        """
        ...


@runtime_checkable
class Schedule(Protocol):
    """Pure (seed, epoch, step) -> the clips of a global batch."""

    steps_per_epoch: int

    def batch(self, epoch: int, step: int) -> Sequence[ClipRef]: ...


@runtime_checkable
class TokenStore(Protocol):
    """Patch tokens of every frame of a source, written once."""

    def read(self, episode: int, indices: np.ndarray) -> np.ndarray:
        """Tokens (n, P, D) float16 of some frames of an episode."""
        ...


@runtime_checkable
class Reporter(Protocol):
    """The training core's only way out; `notes` are sentences for the person who waits."""

    def report(
        self, step: int, metrics: Mapping[str, float], checkpoint: Path | None = None, notes: Sequence[str] = ()
    ) -> None: ...
