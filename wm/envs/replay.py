"""Episodes drawn again from a simulator's own states: exact, where replaying actions drifts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from wm.types import RecordedEpisode


@runtime_checkable
class Replayable(Protocol):
    """A world that can be put in its simulator's stored states, and seen by any camera of its model."""

    @property
    def state(self) -> np.ndarray: ...

    @property
    def proprio(self) -> np.ndarray: ...

    def reset_to_flat(self, flat: np.ndarray, model_file: str | None = None) -> None:
        """Raises ValueError when model or state do not fit the task."""
        ...

    def render_camera(self, name: str) -> np.ndarray:
        """uint8 (H, W, 3). Raises ValueError naming the cameras when the model has no such one."""
        ...

    def task_success(self, state: np.ndarray) -> bool: ...


def replay_episode(
    world: Replayable,
    flat_states: np.ndarray,
    actions: np.ndarray,
    model_file: str | None,
    cameras: Sequence[str],
    tags: Mapping[str, float],
) -> RecordedEpisode:
    """The episode whose simulator states are known, drawn state by state.

    Args:
        flat_states: (T, X) float64.
        actions: (T, A) float32.
        cameras: the first is the main one.
        tags: go into the episode's layout.

    Raises:
        ValueError: the states are of another task or model.
    """
    seen: dict[str, list[np.ndarray]] = {camera: [] for camera in cameras}
    states: list[np.ndarray] = []
    proprio: list[np.ndarray] = []
    for flat in flat_states:
        world.reset_to_flat(flat, model_file)
        states.append(world.state)
        proprio.append(world.proprio)
        for camera, frames in seen.items():
            frames.append(world.render_camera(camera))
    return RecordedEpisode(
        frames=np.stack(seen[cameras[0]]),
        states=np.stack(states).astype(np.float32),
        actions=actions,
        layout=dict(tags),
        proprio=np.stack(proprio).astype(np.float32),
        met=np.array([world.task_success(state) for state in states]),
        views={camera: np.stack(seen[camera]) for camera in cameras[1:]},
        flat_states=flat_states,
        model_file=model_file,
    )
