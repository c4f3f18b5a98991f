"""Franka cube stacks recorded in Isaac Sim: one folder an episode, in either of two generations.

a step a frame: states.pth (N, T, 22)  actions.pth (N, T, 9)  metadata.pkl with `episode_lengths`, optional
    {:06d}/obses.pth (T, H, W, 3) uint8
a step a motion: {:06d}/obses.pth (T, H, W, 3) uint8 or float, 0..255  {:06d}/{:02d}.h5 of each step: action (8) or (6),
    eef_states (1, 1, 14), and what is not read: positions, info, observations

Frames are RGB or BGR, which only who recorded them knows (`colors`). A motion's action starts where the arm is in the frame
beside it. Recorders of early 2026 saved frame and arm after the motion instead, so that action[t] led to frame[t] and not
away from it; such a folder is refused.

Source: Jacob1we/dino_wm, datasets/franka_cube_stack_dset.py (facts: SCIENCE section 1, WORLDS section 6).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np

from wm.config.data import DinoWmSourceConfig
from wm.config.errors import UserError
from wm.data.sources.array_source import ArraySource, Recording, load_array, need_files, rows, whole_numbers
from wm.data.sources.pickle_file import load_pickle
from wm.data.sources.tensor_file import map_frames, read_frames

JOINTS = range(1, 8)
FRAME_STATE_NAMES = (
    *("ee_x", "ee_y", "ee_z", "ee_qw", "ee_qx", "ee_qy", "ee_qz", "gripper"),
    *(f"joint_pos_{joint}" for joint in JOINTS),
    *(f"joint_vel_{joint}" for joint in JOINTS),
)
FRAME_ACTION_NAMES = (*(f"joint_{joint}" for joint in JOINTS), "finger_1", "finger_2")
MOTION_STATE_NAMES = (
    *("ee_x", "ee_y", "ee_z", "ee_x_before", "ee_y_before", "ee_z_before"),
    *("ee_qx", "ee_qy", "ee_qz", "ee_qw", "ee_qx_before", "ee_qy_before", "ee_qz_before", "ee_qw_before"),
)
MOTION_ACTION_NAMES = {
    size: tuple(f"{axis}_{end}" for end in ("start", "end") for axis in axes)
    for size, axes in ((6, "xyz"), (8, "xyzg"))
}
NUM_PROPRIO = 3  # the end effector's place


class FrankaSource(ArraySource):
    """A folder of either generation; proprio is the end effector's place. Raises UserError for a bad folder."""

    fps = 10.0
    proprio_names: tuple[str, ...] = FRAME_STATE_NAMES[:NUM_PROPRIO]

    def __init__(self, config: DinoWmSourceConfig, name: str, folder: Path) -> None:
        need_files(folder, "franka", (), "")
        if (folder / "states.pth").is_file():
            recording = _read_frames_steps(config, folder)
            self.state_names = FRAME_STATE_NAMES
        else:
            recording = _read_motions(config, folder)
            self.state_names = MOTION_STATE_NAMES
        size = recording.actions[0].shape[1]
        self.action_names = {9: FRAME_ACTION_NAMES, **MOTION_ACTION_NAMES}[size]
        self._is_bgr = config.colors == "bgr"
        super().__init__(config, name, folder, recording)

    def read_frames(self, file: Path, indices: np.ndarray, length: int) -> np.ndarray:
        frames = read_frames(file, indices, length)
        return np.ascontiguousarray(frames[..., ::-1]) if self._is_bgr else frames


def _read_frames_steps(config: DinoWmSourceConfig, folder: Path) -> Recording:
    need_files(folder, "franka", ("states.pth", "actions.pth"), "000000/obses.pth")
    states = load_array(folder / "states.pth", size=len(FRAME_STATE_NAMES))
    actions = load_array(folder / "actions.pth", size=len(FRAME_ACTION_NAMES), like=states)
    count = min(config.episodes or len(states), len(states))
    frames = [folder / f"{index:06d}" / "obses.pth" for index in range(count)]
    file = folder / "metadata.pkl"
    faults: dict[int, str] = {}
    if file.is_file():
        found = load_pickle(file)
        if not isinstance(found, Mapping) or "episode_lengths" not in found:
            raise UserError(f"{file}: expected a dict with episode_lengths")
        given = cast(Mapping[str, Any], found)["episode_lengths"]
        lengths = whole_numbers(given, f"{file}: episode_lengths", *states.shape[:2])[:count]
    else:
        found = [_count(each, index, faults) for index, each in enumerate(frames)]
        lengths = whole_numbers(found, f"{folder}: frames", count, states.shape[1])
    state = rows(states, lengths, folder / "states.pth", faults)
    return Recording(
        actions=rows(actions, lengths, folder / "actions.pth", faults),
        states=state,
        proprio=state[..., :NUM_PROPRIO],
        lengths=lengths,
        files=frames,
        faults=faults,
    )


def _count(file: Path, episode: int, faults: dict[int, str]) -> int:
    """Frames in a file; 1 where it cannot be read, which is a fault of the episode."""
    try:
        return len(map_frames(file))
    except UserError as error:
        faults[episode] = str(error)
        return 1


def _read_motions(config: DinoWmSourceConfig, folder: Path) -> Recording:
    episodes = sorted(each for each in folder.iterdir() if each.is_dir() and each.name.isdecimal())[: config.episodes]
    if not episodes:
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:6]) or "nothing"
        raise UserError(f"{folder}: not in the franka layout: no states.pth and no folder 000000 (found {found})")
    frames = [each / "obses.pth" for each in episodes]
    read: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    faults: dict[int, str] = {}
    for index, episode in enumerate(episodes):
        try:
            read[index] = _read_motion_episode(episode)
        except UserError as error:
            faults[index] = str(error)
    if not read:
        raise UserError(faults[0])
    size = Counter(action.shape[1] for action, _ in read.values()).most_common(1)[0][0]
    for index in [index for index, (action, _) in read.items() if action.shape[1] != size]:
        found = read.pop(index)[0].shape[1]
        faults[index] = f"{episodes[index]}: actions of {found} numbers, others have {size}"
    _check_alignment(folder, *zip(*read.values(), strict=True))
    blank = (np.full((1, size), np.nan, np.float32), np.full((1, len(MOTION_STATE_NAMES)), np.nan, np.float32))
    actions, states = zip(*(read.get(index, blank) for index in range(len(episodes))), strict=True)
    lengths = [len(each) for each in states]
    return Recording(actions, states, [each[:, :NUM_PROPRIO] for each in states], lengths, frames, faults=faults)


def _read_motion_episode(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Actions and states of every step. Raises UserError as `_read_step`, and where steps differ, or there are none."""
    steps = [_read_step(folder / f"{step:02d}.h5") for step in range(len(map_frames(folder / "obses.pth")))]
    sizes = sorted({len(action) for action, _ in steps})
    if len(sizes) != 1:
        raise UserError(
            f"{folder}: " + (f"actions of {' and '.join(map(str, sizes))} numbers" if sizes else "no steps")
        )
    return np.stack([action for action, _ in steps]), np.stack([state for _, state in steps])


def _read_step(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Action and state of one motion. Raises UserError: missing, damaged, of another size, or not finite."""
    if not file.is_file():
        raise UserError(f"{file}: missing, but {file.parent / 'obses.pth'} has a frame for it")
    try:
        with h5py.File(file) as step:
            found = [np.asarray(cast(Any, step[key]), np.float32).reshape(-1) for key in ("action", "eef_states")]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: unreadable ({str(error).splitlines()[0][:120]})") from error
    for key, values, sizes in zip(("action", "eef_states"), found, (tuple(MOTION_ACTION_NAMES), (14,)), strict=True):
        if len(values) not in sizes:
            raise UserError(f"{file}: {key}: expected {' or '.join(map(str, sizes))} numbers, found {len(values)}")
        if not np.isfinite(values).all():
            raise UserError(f"{file}: {key} holds NaN or infinity")
    return found[0], found[1]


def _check_alignment(folder: Path, actions: Sequence[np.ndarray], states: Sequence[np.ndarray]) -> None:
    """Raises UserError when the arm beside an action is, on the whole, where the action ends, not where it starts."""
    action, place = np.concatenate(actions), np.concatenate(states)[:, :NUM_PROPRIO]
    half = action.shape[1] // 2
    to_start, to_end = (np.linalg.norm(place - action[:, at : at + NUM_PROPRIO], axis=1).mean() for at in (0, half))
    if to_end < to_start:
        raise UserError(
            f"{folder}: frames were saved after each motion: the arm is {to_end:.3f} m from where its action ends and "
            f"{to_start:.3f} m from where it starts, so that every clip would be one step off; record it anew"
        )
