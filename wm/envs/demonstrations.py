"""Episodes recorded from a world and a policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from wm.contracts import Policy, World


@dataclass(frozen=True)
class RecordedEpisode:
    """One episode; `states[t]` and `frames[t]` were observed before `actions[t]` was applied.

    Args:
        frames: uint8 (T, H, W, 3), RGB.
        states: float32 (T, S), raw units.
        actions: float32 (T, A), raw units. The last one has no recorded consequence.
        layout: what the world was set to.
    """

    frames: np.ndarray
    states: np.ndarray
    actions: np.ndarray
    layout: Mapping[str, float]


@runtime_checkable
class BatchRenderer(Protocol):
    """A world that draws many states of its current layout at once, faster than one by one."""

    def render_states(self, states: np.ndarray) -> np.ndarray:
        """States (n, S) -> uint8 (n, H, W, 3)."""
        ...


def make_episodes(
    world: World, policy: Policy, num_episodes: int, num_steps: int, seed: int, start_episode: int = 0
) -> Iterator[RecordedEpisode]:
    """Record episodes `start_episode` .. `num_episodes - 1` of the set that `seed` names.

    Episode i draws everything (layout, start, actions) from `default_rng([seed, i])`, so it is the same alone,
    resumed or in parallel. Start state and actions are rounded to float32 before they are used, so that a replay of
    what is stored gives what is stored.

    Args:
        world: left in the last episode's layout and last state.
        num_episodes: size of the whole set, not of the rest.
        num_steps: T, frames per episode.
        seed: of the set, at least 0.
        start_episode: the first episode to record, when the ones before it exist already.
    """
    for episode in range(start_episode, num_episodes):
        yield _record(world, policy, num_steps, np.random.default_rng([seed, episode]))


def _record(world: World, policy: Policy, num_steps: int, rng: np.random.Generator) -> RecordedEpisode:
    world.set_layout(world.sample_layout(rng))
    policy.reset(world, rng)
    world.reset_to(world.state.astype(np.float32).astype(np.float64))

    batch_renderer = world if isinstance(world, BatchRenderer) else None
    states: list[np.ndarray] = []
    actions: list[np.ndarray] = []
    frames: list[np.ndarray] = []
    for step in range(num_steps):
        states.append(world.state)
        if batch_renderer is None:
            frames.append(world.render())
        actions.append(policy.act(world, rng).astype(np.float32))
        if step + 1 < num_steps:
            world.step(actions[-1].astype(np.float64))
    return RecordedEpisode(
        frames=np.stack(frames) if batch_renderer is None else batch_renderer.render_states(np.stack(states)),
        states=np.stack(states).astype(np.float32),
        actions=np.stack(actions),
        layout=dict(world.layout),
    )
