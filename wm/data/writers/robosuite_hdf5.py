"""robosuite's own demonstration layout, as its collection script gathers it, with robomimic's names for observations.

    data                    attributes env, env_info (JSON), env_args (JSON), total
    data/demo_N             attributes model_file (XML), num_samples, success
    data/demo_N/states      (T, X) float64: flat simulator states, before each action
    data/demo_N/actions     (T, A) float64
    data/demo_N/obs         agentview_image (T, H, W, 3), robot0_joint_pos, robot0_gripper_qpos, robot0_joint_vel, object
    mask/NAME               names of the demonstrations of a subset, where episodes say that they belong to one

Demonstrations are numbered from 1, as robosuite numbers them; those of another file keep their numbers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import h5py
import numpy as np

from wm.config.errors import UserError
from wm.data.atomic import atomic_file
from wm.data.sources.robomimic_hdf5 import DEMO_TAG, MASK_TAG, OWN_WORLD
from wm.data.sources.robosuite_objects import OBJECT_KEY, VERSION
from wm.data.writers.writer import FolderWriter
from wm.types import RecordedEpisode

NUM_JOINTS, NUM_FINGERS = 7, 2
NUM_PROPRIO = NUM_JOINTS + NUM_FINGERS + NUM_JOINTS
ARM_KEYS = ("robot0_joint_pos", "robot0_gripper_qpos", "robot0_joint_vel")
MAIN_CAMERA = "agentview"
ROBOSUITE, GYM = 1, 2  # robomimic's numbers for kinds of environments


class RobosuiteWriter(FolderWriter):
    """One file, demo.hdf5."""

    marker = "demo.hdf5"
    lacks = "robosuite's HDF5 has no place for: layout, goal"
    keeps_frames = True
    bytes_per_value = 2  # in the staged episodes, and in the file

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
        height, width = self.facts.frame_shape
        info = {"control_freq": self.facts.fps} if self.facts.env_info is None else dict(self.facts.env_info)
        version = info.pop(VERSION, None)
        env = str(info.get("env_name", self.facts.world))
        env_args = {
            "env_name": env,
            **({} if version is None else {VERSION: version}),
            "type": GYM if self.facts.env_info is None else ROBOSUITE,
            "env_kwargs": {**info, "camera_heights": height, "camera_widths": width},
            OWN_WORLD: dict(self.facts.settings),  # not of env_kwargs, which robomimic gives to robosuite's constructor
        }
        with atomic_file(self.folder / self.marker) as partial, h5py.File(partial, "w") as file:
            data = file.create_group("data")
            total = 0
            masks: dict[str, list[bytes]] = {}
            for index in range(len(episodes)):
                episode = episodes[index]
                total += len(episode.actions)
                name = f"demo_{int(episode.layout.get(DEMO_TAG, index + 1))}"
                self._write(data.create_group(name), episode)
                for tag, value in episode.layout.items():
                    if tag.startswith(MASK_TAG) and value:
                        masks.setdefault(tag.removeprefix(MASK_TAG), []).append(name.encode())
            for subset, members in masks.items():
                file.create_dataset(f"mask/{subset}", data=np.array(members))
            data.attrs["env"] = env
            data.attrs["env_info"] = json.dumps(info)
            data.attrs["env_args"] = json.dumps(env_args)
            data.attrs["total"] = total

    def _write(self, group: h5py.Group, episode: RecordedEpisode) -> None:
        group.attrs["num_samples"] = len(episode.actions)
        if episode.model_file is not None:
            group.attrs["model_file"] = episode.model_file
        if episode.flat_states is not None:
            group.create_dataset("states", data=episode.flat_states)
        success = episode.layout.get("success") if episode.success is None else episode.success
        if success is not None:
            group.attrs["success"] = bool(success)
        group.create_dataset("actions", data=episode.actions.astype(np.float64))
        seen = group.create_group("obs")
        for name, frames in ((self.facts.camera or MAIN_CAMERA, episode.frames), *episode.views.items()):
            seen.create_dataset(f"{name}_image", data=frames, compression="gzip", chunks=(1, *frames.shape[1:]))
        for key, values in self._vectors(episode).items():
            seen.create_dataset(key, data=values)

    def _vectors(self, episode: RecordedEpisode) -> dict[str, np.ndarray]:
        """obs key -> (T, n): robosuite's names where the vectors are a Panda's."""
        return arm_vectors(episode) if episode.proprio.shape[1] == NUM_PROPRIO else {}


def arm_vectors(episode: RecordedEpisode) -> dict[str, np.ndarray]:
    """robosuite's keys for proprio of 16 and, behind it in the state, the objects."""
    proprio, rest = episode.proprio, episode.states[:, NUM_PROPRIO:]
    arm, fingers = NUM_JOINTS, NUM_JOINTS + NUM_FINGERS
    pieces = (proprio[:, :arm], proprio[:, arm:fingers], proprio[:, fingers:])
    found: dict[str, np.ndarray] = {key: values for key, values in zip(ARM_KEYS, pieces, strict=True)}
    return {**found, OBJECT_KEY: rest} if rest.shape[1] else found
