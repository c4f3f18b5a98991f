"""Small recorded data sets for the tests of sources: what was recorded, and the folder that our own writer made of it."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from wm.config.data import RobomimicSourceConfig
from wm.data.sources.robomimic_hdf5 import RobomimicHdf5Source
from wm.data.writers.robosuite_hdf5 import RobosuiteWriter
from wm.data.writers.staged import StagedEpisodes
from wm.data.writers.writer import DatasetFacts, Writer
from wm.envs.robosuite_control import OSC_ACTION_NAMES
from wm.envs.robosuite_tasks import PROPRIO_NAMES, TASKS
from wm.types import RecordedEpisode

LENGTHS = (26, 31, 24, 29)
CAN_STATE = TASKS["can"].state_names


@cache
def _scratch() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="wm-recorded-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def can_facts(size: int = 16) -> DatasetFacts:
    """Of robosuite's can, as `wm data make can` tells them."""
    controller = {"type": "BASIC", "body_parts": {"right": {"type": "OSC_POSE"}}}
    return DatasetFacts(
        world="can",
        settings={"kind": "can"},
        action_names=OSC_ACTION_NAMES,
        state_names=CAN_STATE,
        proprio_names=PROPRIO_NAMES,
        layout_names=(),
        episodes=len(LENGTHS),
        frame_size=size,
        fps=20,
        task="put the can away",
        workspace=7,
        env_info={"env_name": "PickPlaceCan", "control_freq": 20, "controller_configs": controller},
    )


def can_episodes(size: int = 16) -> list[RecordedEpisode]:
    """Numbers that differ everywhere; states begin with proprio, as in the worlds."""
    found: list[RecordedEpisode] = []
    for number, length in enumerate(LENGTHS):
        rng = np.random.default_rng(number)
        states = rng.normal(size=(length, 23)).astype(np.float32)
        blocks = rng.integers(0, 256, (length, 4, 4, 3), dtype=np.uint8)
        found.append(
            RecordedEpisode(
                frames=blocks.repeat(size // 4, axis=1).repeat(size // 4, axis=2),
                states=states,
                actions=rng.uniform(-1, 1, (length, 7)).astype(np.float32),
                layout={},
                proprio=states[:, :16].copy(),
                met=np.arange(length) > 20 + 5 * (number % 2),
                views={"robot0_eye_in_hand": np.full((length, size, size, 3), 10 * number + 5, np.uint8)},
                flat_states=rng.normal(size=(length, 71)),
                model_file="<mujoco/>",
            )
        )
    return found


def write(folder: Path, writer: Writer, episodes: list[RecordedEpisode]) -> Path:
    """By way of the staging, as `wm data make` does it."""
    staged = StagedEpisodes(folder, len(episodes), writer.keeps_frames)
    for index, episode in enumerate(episodes):
        writer.write_frames(index, episode)
        staged.save(index, episode, {})
    writer.finish(staged)
    staged.remove()
    return folder


@cache
def can_folder() -> Path:
    """A robosuite file of our own; nobody may write there."""
    folder = _scratch() / "can"
    folder.mkdir()
    return write(folder, RobosuiteWriter(folder, can_facts()), can_episodes())


def can_source(**config: Any) -> RobomimicHdf5Source:
    return RobomimicHdf5Source(RobomimicSourceConfig(path="can", **config), "can", can_folder())


def robomimic_file(path: Path, numbers: tuple[int, ...] = (0, 1, 2, 10), **change: Any) -> Path:
    """A file as robomimic's dataset_states_to_obs.py leaves it: Lift, two cameras, masks, more keys than anyone needs.

    Args:
        change: `env_args`, or `drop` (paths below every demonstration).
    """
    env_args = {
        "env_name": "Lift",
        "type": 1,
        "env_kwargs": {"control_freq": 30, "controller_configs": {"type": "OSC_POSE"}},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs["about"] = "a test"
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(change.get("env_args", env_args))
        data.attrs["total"] = 0
        for number in numbers:
            rng, length = np.random.default_rng(number), 22 + number
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = length
            demo["states"] = rng.normal(size=(length, 32))
            demo["actions"] = rng.uniform(-1, 1, (length, 7))
            demo["rewards"], demo["dones"] = np.zeros(length), np.zeros(length, np.int64)
            for group in ("obs", "next_obs"):
                sizes = {"object": 10, "robot0_eef_pos": 3, "robot0_gripper_qpos": 2, "robot0_joint_pos": 7}
                for key, size in {**sizes, "robot0_joint_vel": 7}.items():
                    demo[f"{group}/{key}"] = rng.normal(size=(length, size))
                for camera in ("agentview", "robot0_eye_in_hand"):
                    demo[f"{group}/{camera}_image"] = rng.integers(0, 256, (length, 12, 12, 3), dtype=np.uint8)
            for each in change.get("drop", ()):
                del demo[each]
        names = [f"demo_{number}".encode() for number in numbers]
        file["mask/train"], file["mask/valid"] = np.array(names[1:][::-1]), np.array(names[:1])
    return path
