"""robomimic's demonstrations, converted for DINO-WM: the newer folder, or the older one.

newer: states.pth (N, T, 16 + object), proprios.pth (N, T, 16), rel_actions.pth (N, T, A), seq_lengths.pkl,
    obses/episode_{:05d}.mp4; the state begins with the proprio: arm 7, fingers 2, arm velocities 7; then the object
older: states.pth (N, T, S), velocities.pth (N, T, V), optional; the actions named rel_actions.pth, actions.pth or
    abs_actions.pth; seq_lengths.pkl, or as many steps as the video has frames; episode_*.mp4 beside them or in obses/

names.json, where `wm data convert` wrote it, names the columns of any data set and its frame rate; then proprios.pth may have any
size, and the state need not begin with it.

Actions stay as they are: the converters wrote the same numbers under every name. The {action,state,proprio}_{mean,std}.pth
beside them cover held-out episodes too and are not read.

Source: MinghaoFu/dino_wm, datasets/robomimic_dset.py (facts: SCIENCE section 1, WORLDS section 5).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from wm.config.data import DinoWmSourceConfig
from wm.config.errors import UserError
from wm.data.sources.array_source import (
    ArraySource,
    Recording,
    load_array,
    need_files,
    numbered,
    read_video,
    rows,
    whole_numbers,
)
from wm.data.sources.pickle_file import load_pickle
from wm.data.sources.video_file import VideoFile

ARM_NAMES = (  # as the worlds have them
    *(f"joint_pos_{joint}" for joint in range(1, 8)),
    "gripper_qpos_1",
    "gripper_qpos_2",
    *(f"joint_vel_{joint}" for joint in range(1, 8)),
)
OBJECT_NAMES = tuple(f"object_{part}" for part in ("x", "y", "z", "qx", "qy", "qz", "qw"))
POSE_ACTION_NAMES = ("dx", "dy", "dz", "drx", "dry", "drz", "gripper")
NAMES = "names.json"
FPS = 20.0  # of the simulator; the videos say 30
ACTIONS = ("rel_actions.pth", "actions.pth", "abs_actions.pth")  # the first that is there


class RobomimicSource(ArraySource):
    """A converted folder. Raises UserError for a bad one.

    In the older folders proprio is the state, as in the reference, and nothing says what its numbers are.
    """

    def __init__(self, config: DinoWmSourceConfig, name: str, folder: Path) -> None:
        self.fps = FPS
        need_files(folder, "robomimic", ("states.pth",), "rel_actions.pth, seq_lengths.pkl, obses/episode_00000.mp4")
        found = load_array(folder / "states.pth")
        count = min(config.episodes or len(found), len(found))
        videos = _videos(folder, count)
        lengths, faults = _lengths(folder, found, videos)
        states = rows(found, lengths, folder / "states.pth", faults)
        actions = _actions(folder, found, lengths, faults)
        size = actions.shape[2]
        self.action_names = POSE_ACTION_NAMES if size == len(POSE_ACTION_NAMES) else numbered("action", size)
        file = folder / "proprios.pth"
        if (folder / NAMES).is_file():
            proprio = rows(load_array(file, like=found), lengths, file, faults) if file.is_file() else states
            sizes = {"action": size, "proprio": proprio.shape[2], "state": states.shape[2]}
            self.fps, names = _read_names(folder / NAMES, sizes)
            self.action_names, self.proprio_names, self.state_names = (names[key] for key in sizes)
        elif file.is_file():
            proprio = rows(load_array(file, size=len(ARM_NAMES), like=found), lengths, file, faults)
            if states.shape[2] <= len(ARM_NAMES) or not _begins_with(states, proprio, lengths):
                raise UserError(f"{file}: states.pth does not begin with these numbers and end with an object's")
            self.proprio_names = ARM_NAMES
            rest = states.shape[2] - len(ARM_NAMES)
            self.state_names = (*ARM_NAMES, *OBJECT_NAMES[:rest], *numbered("object", rest)[len(OBJECT_NAMES) :])
        else:
            file = folder / "velocities.pth"
            if config.with_velocity and file.is_file():
                states = np.concatenate([states, rows(load_array(file, like=found), lengths, file, faults)], axis=2)
            proprio = states
            self.state_names = self.proprio_names = numbered("state", states.shape[2])
        super().__init__(config, name, folder, Recording(actions, states, proprio, lengths, videos, faults=faults))

    def read_frames(self, file: Path, indices: np.ndarray, length: int) -> np.ndarray:
        return read_video(file, indices, length)


def _actions(folder: Path, states: Tensor, lengths: list[int], faults: dict[int, str]) -> np.ndarray:
    file = next((folder / name for name in ACTIONS if (folder / name).is_file()), None)
    if file is None:
        raise UserError(f"{folder}: no actions: none of {', '.join(ACTIONS)} is there")
    return rows(load_array(file, like=states), lengths, file, faults)


def _read_names(file: Path, sizes: Mapping[str, int]) -> tuple[float, dict[str, tuple[str, ...]]]:
    """Frame rate, and names of as many columns as there are; proprio that has none is the state."""
    expected = f"expected fps and names of {', '.join(f'{size} {key} columns' for key, size in sizes.items())}"
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
        names = {key: tuple(map(str, found.get(key, found["state"]))) for key in sizes}
        fps = float(found["fps"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{file}: {expected} ({str(error)[:80]})") from error
    wrong = next((key for key, size in sizes.items() if len(names[key]) != size), None)
    if wrong is not None or not 0 < fps < float("inf"):
        what = f"fps {fps:g}" if wrong is None else f"{len(names[wrong])} names of {wrong}"
        raise UserError(f"{file}: {expected}, found {what}")
    return fps, names


def _begins_with(states: np.ndarray, proprio: np.ndarray, lengths: list[int]) -> bool:
    pairs = zip(states, proprio, lengths, strict=True)
    return all(
        np.array_equal(state[:length, : arm.shape[1]], arm[:length], equal_nan=True) for state, arm, length in pairs
    )


def _videos(folder: Path, count: int) -> list[Path]:
    """Of the first episodes, by their number; one that is missing is named as the others are."""
    inside = folder / "obses"
    place = inside if inside.is_dir() else folder
    found = {int(file.stem[8:]): file for file in place.glob("episode_*.mp4") if file.stem[8:].isdecimal()}
    return [found.get(index, place / f"episode_{index:05d}.mp4") for index in range(count)]


def _lengths(folder: Path, states: Tensor, videos: list[Path]) -> tuple[list[int], dict[int, str]]:
    """Of each episode, and which cannot tell it because its video cannot be read."""
    file = folder / "seq_lengths.pkl"
    if file.is_file():
        return whole_numbers(load_pickle(file), str(file), *states.shape[:2])[: len(videos)], {}
    lengths: list[int] = []
    faults: dict[int, str] = {}
    for index, video in enumerate(videos):
        try:
            lengths.append(len(VideoFile(video)))
        except UserError as error:
            lengths.append(1)
            faults[index] = str(error)
        if lengths[-1] > states.shape[1]:
            raise UserError(f"{video}: {lengths[-1]} frames, but states.pth has {states.shape[1]} steps")
    return lengths, faults
