"""The pose of can and nut is behind what the hand sees in files of robosuite 1.5, and before it in those of 1.4."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.wm.data.samples import user_error
from wm.config.data import RobomimicSourceConfig
from wm.data.sources.robomimic_hdf5 import RobomimicHdf5Source
from wm.data.sources.robosuite_objects import POSE

STEPS = 6


def can_file(
    path: Path, first: int, version: str | None = None, states: bool = False, env: str = "PickPlaceCan"
) -> Any:
    """As robomimic's dataset_states_to_obs.py leaves one; returns the poses (STEPS, 7)."""
    rng = np.random.default_rng(0)
    pose, seen = rng.normal(size=(STEPS, 7)), rng.normal(size=(STEPS, 7))
    told = {} if version is None else {"env_version": version}
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": env, "type": 1, "env_kwargs": {"robots": ["Panda"]}, **told})
        demo = data.create_group("demo_0")
        demo.attrs["num_samples"] = STEPS
        demo["actions"] = rng.uniform(-1, 1, (STEPS, 7))
        if states:
            pieces = [
                rng.normal(size=(STEPS, 38)),
                pose[:, :3] + 1e-5,
                pose[:, [6, 3, 4, 5]],
                rng.normal(size=(STEPS, 26)),
            ]
            demo["states"] = np.concatenate(pieces, axis=1)
        demo["obs/object"] = np.concatenate([pose, seen] if first == 0 else [seen, pose], axis=1)
        for key, size in (("robot0_joint_pos", 7), ("robot0_gripper_qpos", 2), ("robot0_joint_vel", 7)):
            demo[f"obs/{key}"] = rng.normal(size=(STEPS, size))
        demo["obs/agentview_image"] = np.zeros((STEPS, 8, 8, 3), np.uint8)
    return pose


def source(path: Path, **config: Any) -> RobomimicHdf5Source:
    return RobomimicHdf5Source(RobomimicSourceConfig(path="can", **config), "can", path)


@pytest.mark.parametrize(
    ("first", "told"),
    [
        (0, {"version": "1.4.1"}),
        (7, {"version": "1.5.1"}),
        (0, {"states": True}),
        (7, {"states": True}),
        (0, {"states": True, "version": "1.5.2"}),  # converted by somebody in between: the numbers say it
        (7, {"states": True, "version": "1.5.1", "env": "NutAssemblySquare"}),
    ],
)
def test_the_state_holds_the_pose(tmp_path: Path, first: int, told: dict[str, Any]) -> None:
    pose = can_file(tmp_path / "demo.hdf5", first, **told)
    found = source(tmp_path / "demo.hdf5")
    item = "nut" if "env" in told else "can"
    assert found.state_names[16:] == tuple(f"{item}_{part}" for part in POSE)
    state = found.episode(0).state
    assert state is not None
    np.testing.assert_array_equal(state[:, 16:], pose.astype(np.float32))


def test_where_nothing_tells_a_person_must(tmp_path: Path) -> None:
    pose = can_file(tmp_path / "demo.hdf5", 7)
    message = user_error(lambda: source(tmp_path / "demo.hdf5"))
    assert "demo_0: nothing says whether obs/object begins with the pose" in message
    found = source(tmp_path / "demo.hdf5", state_keys=("object[7:14]",))
    assert found.state_names == tuple(f"object_{number}" for number in range(8, 15))
    np.testing.assert_array_equal(found.episode(0).state, pose.astype(np.float32))


def test_other_tasks_begin_with_the_poses(tmp_path: Path) -> None:
    pose = can_file(tmp_path / "demo.hdf5", 0, version="1.5.2", env="Lift")
    np.testing.assert_array_equal(source(tmp_path / "demo.hdf5").episode(0).state[:, 16:], pose.astype(np.float32))  # type: ignore[index]
