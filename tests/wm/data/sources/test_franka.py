"""Franka cube stacks of both generations: colours as said, and an action that starts where its frame is."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from tests.wm.data.damage import Fault, cut, edit, poisoned, remove, write
from tests.wm.data.layouts import STEPS, open_layout, write_franka_motions, write_franka_steps
from tests.wm.data.samples import user_error
from wm.config.data import DinoWmSourceConfig
from wm.data.dataset import open_source


@pytest.mark.parametrize("lengths", ["said", "of the frames"])
def test_a_step_a_frame(tmp_path: Path, lengths: str) -> None:
    arrays = write_franka_steps(tmp_path)
    if lengths == "of the frames":
        (tmp_path / "metadata.pkl").unlink()
    source = open_layout("franka", tmp_path)
    assert list(source.lengths) == [STEPS, STEPS - 4]
    assert source.action_names == (*(f"joint_{joint}" for joint in range(1, 8)), "finger_1", "finger_2")
    assert (len(source.state_names), source.state_names[7]) == (22, "gripper")
    for index, length in enumerate(source.lengths):
        episode = source.episode(index)
        np.testing.assert_array_equal(episode.state, arrays["states"][index, :length])
        np.testing.assert_array_equal(episode.proprio, arrays["states"][index, :length, :3])
        np.testing.assert_array_equal(episode.actions, arrays["actions"][index, :length])
        np.testing.assert_array_equal(episode.frames(np.arange(length)), arrays["frames"][index, :length])


@pytest.mark.parametrize("size", [6, 8])
def test_a_step_a_motion(tmp_path: Path, size: int) -> None:
    expected = write_franka_motions(tmp_path, size)
    source = open_layout("franka", tmp_path)
    assert list(source.lengths) == [STEPS, STEPS - 2]
    axes = "xyz" if size == 6 else "xyzg"
    assert source.action_names == tuple(f"{axis}_{end}" for end in ("start", "end") for axis in axes)
    assert source.proprio_names == ("ee_x", "ee_y", "ee_z") == source.state_names[:3]
    for index, arrays in enumerate(expected):
        episode = source.episode(index)
        np.testing.assert_array_equal(episode.state, arrays["states"].astype(np.float32))
        np.testing.assert_array_equal(episode.proprio, arrays["states"][:, :3].astype(np.float32))
        np.testing.assert_array_equal(episode.actions, arrays["actions"].astype(np.float32))
        np.testing.assert_array_equal(episode.frames(np.arange(episode.length)), arrays["frames"])
    assert len(open_layout("franka", tmp_path, episodes=1)) == 1


@pytest.mark.parametrize("size", [6, 8])
def test_actions_start_and_end_where_the_arm_is(tmp_path: Path, size: int) -> None:
    """The alignment that a clip is cut by; frames saved after the motion are refused."""
    write_franka_motions(tmp_path / "before", size)
    source = open_layout("franka", tmp_path / "before")
    episode = source.episode(0)
    assert episode.actions is not None
    assert episode.proprio is not None
    places = [[source.action_names.index(f"{axis}_{end}") for axis in "xyz"] for end in ("start", "end")]
    np.testing.assert_array_equal(episode.actions[:, places[0]], episode.proprio)
    np.testing.assert_array_equal(episode.actions[:-1, places[1]], episode.proprio[1:])
    write_franka_motions(tmp_path / "after", size, after=True)
    message = user_error(lambda: open_layout("franka", tmp_path / "after"))
    assert "after each motion" in message
    assert str(tmp_path / "after") in message


@pytest.mark.parametrize("make", [write_franka_steps, write_franka_motions])
def test_colours_are_as_said(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path)
    frames = torch.zeros(STEPS, 8, 8, 3, dtype=torch.uint8)
    frames[..., 0] = 200  # blue, for who wrote BGR
    torch.save(frames, tmp_path / "000000" / "obses.pth")
    rgb, bgr = (open_layout("franka", tmp_path, colors=order) for order in ("rgb", "bgr"))
    assert rgb.episode(0).frames([2])[0, 0, 0].tolist() == [200, 0, 0]
    assert bgr.episode(0).frames([2])[0, 0, 0].tolist() == [0, 0, 200]
    assert rgb.fingerprint != bgr.fingerprint


def change(name: str, key: str, values: np.ndarray | None) -> Fault:
    def apply(folder: Path) -> Path:
        with h5py.File(folder / name, "r+") as file:
            del file[key]
            if values is not None:
                file[key] = values
        return folder / name

    return apply


STEP = "000001/03.h5"
MOTION_FAULTS: dict[str, Fault] = {
    "no step": remove(STEP),
    "no frames": remove("000001/obses.pth"),
    "a step cut short": cut(STEP, 0.5),
    "not HDF5": write(STEP, b"hdf5?"),
    "nan action": change(STEP, "action", np.full(8, np.nan)),
    "nan arm": change(STEP, "eef_states", np.full((1, 1, 14), np.nan)),
    "seven actions": change(STEP, "action", np.zeros(7)),
    "an arm of 13 numbers": change(STEP, "eef_states", np.zeros((1, 1, 13))),
    "no action": change(STEP, "action", None),
    "words": change(STEP, "action", np.array([b"left"] * 8)),
}


@pytest.mark.parametrize("fault", list(MOTION_FAULTS))
def test_a_bad_motion_gets_one_line_naming_the_file(tmp_path: Path, fault: str) -> None:
    write_franka_motions(tmp_path)
    file = MOTION_FAULTS[fault](tmp_path)
    assert str(file) in user_error(lambda: open_layout("franka", tmp_path))


@pytest.mark.parametrize("fault", list(MOTION_FAULTS))
def test_a_bad_motion_is_a_fault_of_its_episode(tmp_path: Path, fault: str) -> None:
    write_franka_motions(tmp_path)
    file = MOTION_FAULTS[fault](tmp_path)
    config = DinoWmSourceConfig(path=str(tmp_path), layout="franka", colors="rgb")
    source = open_source(config, "franka", tmp_path, max_faulty=0.5)
    assert list(source.faults) == [1]
    assert str(file) in source.faults[1]
    assert source.episode(0).length == STEPS


@pytest.mark.parametrize("fault", ["no frames", "cut frames"])
def test_frames_that_cannot_be_counted_are_a_fault(tmp_path: Path, fault: str) -> None:
    write_franka_steps(tmp_path)
    (tmp_path / "metadata.pkl").unlink()
    file = STEP_FAULTS[fault](tmp_path)
    config = DinoWmSourceConfig(path=str(tmp_path), layout="franka", colors="rgb")
    (reason,) = open_source(config, "franka", tmp_path, max_faulty=0.5).faults.values()
    assert str(file) in reason


def test_two_generations_in_one_folder(tmp_path: Path) -> None:
    write_franka_motions(tmp_path)
    for step in range(STEPS - 2):
        change(f"000001/{step:02d}.h5", "action", np.zeros(6))(tmp_path)
    assert "000001: actions of 6 numbers, others have 8" in user_error(lambda: open_layout("franka", tmp_path))


STEP_FAULTS: dict[str, Fault] = {
    "no frames": remove("000001/obses.pth"),
    "cut frames": cut("000000/obses.pth", 0.5),
    "nan action": edit("actions", poisoned(1, float("nan"))),
    "other states": edit("states", lambda s: s[..., :14]),
    "other actions": edit("actions", lambda a: a[..., :8]),
    "no lengths": write("metadata.pkl", pickle.dumps({"lengths": [1]})),
    "a list": write("metadata.pkl", pickle.dumps([STEPS, STEPS])),
    "a length too long": write("metadata.pkl", pickle.dumps({"episode_lengths": [STEPS, STEPS + 1]})),
}


@pytest.mark.parametrize("fault", list(STEP_FAULTS))
def test_a_bad_folder_gets_one_line_naming_the_file(tmp_path: Path, fault: str) -> None:
    write_franka_steps(tmp_path)
    file = STEP_FAULTS[fault](tmp_path)
    assert str(file) in user_error(lambda: open_layout("franka", tmp_path).episode(0).frames([0]))
