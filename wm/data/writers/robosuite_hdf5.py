"""robosuite's own demonstration layout, as its collection script gathers it, with robomimic's names for observations.

    data                    attributes env, env_info (JSON), env_args (JSON), total
    data/demo_N             attributes model_file (XML), num_samples, success
    data/demo_N/states      (T, X) float64: flat simulator states, before each action
    data/demo_N/actions     (T, A) float64
    data/demo_N/obs         agentview_image (T, H, W, 3), robot0_joint_pos, robot0_gripper_qpos, robot0_joint_vel, object

Demonstrations are numbered from 1, as robosuite numbers them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from wm.config.errors import UserError
from wm.data.atomic import atomic_file
from wm.data.writers.writer import DatasetFacts
from wm.types import RecordedEpisode

NUM_JOINTS, NUM_FINGERS = 7, 2
ROBOSUITE = 1  # robomimic's number for its kind of environment


class RobosuiteWriter:
    """One file, demo.hdf5."""

    marker = "demo.hdf5"
    lacks = "robosuite's HDF5 has no place for: layout, goal"
    keeps_frames = True
    bytes_per_value = 2  # in the staged episodes, and in the file

    def __init__(self, folder: Path, facts: DatasetFacts) -> None:
        self.folder = folder
        self.facts = facts

    def check(self) -> None:
        """Raises UserError for a world that does not tell its simulator's states."""
        if self.facts.env_info is None:
            raise UserError(
                f"--format robosuite: holds a simulator's own states, and world '{self.facts.world}' tells none"
            )

    def write_frames(self, index: int, episode: RecordedEpisode) -> None:
        """Nothing yet: all is in one file."""

    def finish(self, episodes: Sequence[RecordedEpisode]) -> None:
        """The file."""
        side, info = self.facts.frame_size, dict(self.facts.env_info or {})
        env = str(info.get("env_name", self.facts.world))
        pictures = {"camera_heights": side, "camera_widths": side, "wm_world": dict(self.facts.settings)}
        env_args = {"env_name": env, "type": ROBOSUITE, "env_kwargs": {**info, **pictures}}
        with atomic_file(self.folder / self.marker) as partial, h5py.File(partial, "w") as file:
            data = file.create_group("data")
            total = 0
            for index in range(len(episodes)):
                episode = episodes[index]
                total += len(episode.actions)
                self._write(data.create_group(f"demo_{index + 1}"), episode)
            data.attrs["env"] = env
            data.attrs["env_info"] = json.dumps(info)
            data.attrs["env_args"] = json.dumps(env_args)
            data.attrs["total"] = total

    def _write(self, group: h5py.Group, episode: RecordedEpisode) -> None:
        assert episode.flat_states is not None
        assert episode.model_file is not None
        group.attrs["model_file"] = episode.model_file
        group.attrs["num_samples"] = len(episode.actions)
        if episode.success is not None:
            group.attrs["success"] = episode.success
        group.create_dataset("states", data=episode.flat_states)
        group.create_dataset("actions", data=episode.actions.astype(np.float64))
        seen = group.create_group("obs")
        for name, frames in (("agentview", episode.frames), *episode.views.items()):
            seen.create_dataset(f"{name}_image", data=frames, compression="gzip", chunks=(1, *frames.shape[1:]))
        arm, fingers = NUM_JOINTS, NUM_JOINTS + NUM_FINGERS
        if episode.proprio.shape[1] == fingers + NUM_JOINTS:
            seen.create_dataset("robot0_joint_pos", data=episode.proprio[:, :arm])
            seen.create_dataset("robot0_gripper_qpos", data=episode.proprio[:, arm:fingers])
            seen.create_dataset("robot0_joint_vel", data=episode.proprio[:, fingers:])
            seen.create_dataset("object", data=episode.states[:, episode.proprio.shape[1] :])
