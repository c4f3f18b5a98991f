"""Episodes recorded from a world and a policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from wm.contracts import Policy, World
from wm.types import RecordedEpisode


@runtime_checkable
class BatchRenderer(Protocol):
    """A world that draws many states of its current layout at once, faster than one by one."""

    def render_states(self, states: np.ndarray) -> np.ndarray:
        """States (n, S) -> uint8 (n, H, W, 3)."""
        ...


@runtime_checkable
class SimulatorStates(Protocol):
    """A world whose state vector leaves out what its simulator needs to be restored, as robosuite's demonstrations keep it."""

    @property
    def flat_state(self) -> np.ndarray:
        """The simulator's own state (X,), float64."""
        ...

    @property
    def model_file(self) -> str:
        """The simulator's model, XML."""
        ...

    @property
    def env_info(self) -> Mapping[str, Any]:
        """What makes the simulator again, as JSON can hold it."""
        ...


@runtime_checkable
class SeveralCameras(Protocol):
    """A world with cameras beside the one that `render` looks through."""

    camera_names: tuple[str, ...]

    def render_camera(self, name: str) -> np.ndarray:
        """The current state through one of them, uint8 (H, W, 3)."""
        ...


@runtime_checkable
class Task(Protocol):
    """A world that knows when its task is done, whatever the goal."""

    def task_success(self, state: np.ndarray) -> bool: ...


@runtime_checkable
class Particles(Protocol):
    """A world made of particles."""

    @property
    def particles(self) -> np.ndarray:
        """Where they are, (P, 3)."""
        ...


def make_episodes(
    world: World, policy: Policy, num_episodes: int, num_steps: int, seed: int, start_episode: int = 0
) -> Iterator[RecordedEpisode]:
    """Record episodes `start_episode` .. `num_episodes - 1` of the set that `seed` names.

    Args:
        world: left in the last episode's layout and last state.
        num_episodes: size of the whole set, not of the rest.
        num_steps: T, frames per episode.
        seed: of the set, at least 0.
        start_episode: the first episode to record, when the ones before it exist already.
    """
    for episode in range(start_episode, num_episodes):
        yield record_episode(world, policy, num_steps, seed, episode)


def record_episode(
    world: World, policy: Policy, num_steps: int, seed: int, draw: int, all_cameras: bool = False
) -> RecordedEpisode:
    """Record one episode of the set that `seed` names.

    It draws everything (layout, start, actions) from `default_rng([seed, draw])`, so it is the same alone, resumed or in
    parallel. Start state and actions are rounded to float32 before they are used, so that a replay of what is stored gives what
    is stored; where the simulator's own states are recorded, they do that, and the start is as it was drawn.

    Args:
        num_steps: T, frames.
        all_cameras: also record what the world's further cameras see.
    """
    rng = np.random.default_rng([seed, draw])
    world.set_layout(world.sample_layout(rng))
    policy.reset(world, rng)
    told = world if isinstance(world, SimulatorStates) else None
    if told is None:
        world.reset_to(world.state.astype(np.float32).astype(np.float64))

    batch_renderer = world if isinstance(world, BatchRenderer) else None
    particle_world = world if isinstance(world, Particles) else None
    cameras = world if all_cameras and isinstance(world, SeveralCameras) else None
    states: list[np.ndarray] = []
    proprio: list[np.ndarray] = []
    actions: list[np.ndarray] = []
    frames: list[np.ndarray] = []
    flat_states: list[np.ndarray] = []
    particles: list[np.ndarray] = []
    views: dict[str, list[np.ndarray]] = {name: [] for name in (cameras.camera_names if cameras else ())}
    for step in range(num_steps):
        states.append(world.state)
        proprio.append(world.proprio)
        if batch_renderer is None:
            frames.append(world.render())
        if told is not None:
            flat_states.append(told.flat_state)
        if particle_world is not None:
            particles.append(particle_world.particles)
        if cameras is not None:
            for name, seen in views.items():
                seen.append(cameras.render_camera(name))
        actions.append(policy.act(world, rng).astype(np.float32))
        if step + 1 < num_steps:
            world.step(actions[-1].astype(np.float64))
    goal = getattr(policy, "goal", None)
    return RecordedEpisode(
        frames=np.stack(frames) if batch_renderer is None else batch_renderer.render_states(np.stack(states)),
        states=np.stack(states).astype(np.float32),
        actions=np.stack(actions),
        layout=dict(world.layout),
        proprio=np.stack(proprio).astype(np.float32),
        goal=None if goal is None else np.array(goal, np.float64),
        met=_met(world, states, goal),
        views={name: np.stack(seen) for name, seen in views.items()},
        flat_states=np.stack(flat_states).astype(np.float64) if flat_states else None,
        model_file=None if told is None else told.model_file,
        particles=np.stack(particles).astype(np.float32) if particles else None,
    )


def _met(world: World, states: list[np.ndarray], goal: np.ndarray | None) -> np.ndarray | None:
    if isinstance(world, Task):
        return np.array([world.task_success(state) for state in states])
    return None if goal is None else np.array([world.success(state, goal) for state in states])
