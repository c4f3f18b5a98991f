"""DINO-WM's `pusht_noise` layout: the folder with train/ and val/, or one of the two alone.

    states.pth (N, T, 5)  velocities.pth (N, T, 2)  rel_actions.pth or abs_actions.pth (N, T, 2), pixels
    seq_lengths.pkl  shapes.pkl, optional  obses/episode_{:03d}.mp4

Actions are divided by 100. Where only absolute ones are there, the relative ones are their distance from the agent, which is
what the world's relative actions mean (the reference would train on the absolute places). Without shapes.pkl every block is
a T.

Source: gaoyuezhou/dino_wm, datasets/pusht_dset.py (facts: SCIENCE section 1, WORLDS section 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from wm.config.data import DinoWmSourceConfig
from wm.config.errors import UserError, nearest
from wm.data.sources.array_source import ArraySource, Recording, load_array, need_files, read_video, rows, whole_numbers
from wm.data.sources.pickle_file import load_pickle

ACTION_SCALE = 100.0  # pixels of a unit action
SHAPES = ("T", "L", "Z", "square", "I", "small_tee", "+")  # the original's names, in the order of the world's `shape`
STATE_NAMES = ("agent_x", "agent_y", "block_x", "block_y", "angle", "agent_vx", "agent_vy")
PROPRIO = (0, 1, 5, 6)  # of the state; the first two where it has no velocities
PARTS = ("train", "val")


class PushTNoiseSource(ArraySource):
    """A folder in the `pusht_noise` layout. Raises UserError for a bad folder.

    Of a folder with both parts, val's episodes come last (`data.held_out_last` holds out just those), and the config's
    `episodes` caps each part, as the reference's `n_rollout` does.
    """

    fps = 10.0
    action_names: tuple[str, ...] = ("dx", "dy")

    def __init__(self, config: DinoWmSourceConfig, name: str, folder: Path) -> None:
        there = [part for part in PARTS if (folder / part).is_dir()]
        if len(there) == 1:
            absent = next(part for part in PARTS if part not in there)
            raise UserError(f"{folder}: {absent}/ is missing beside {there[0]}/; {folder / there[0]} can be read alone")
        parts = [_read(config, folder / part) for part in there] or [_read(config, folder)]
        self.num_val = len(parts[-1].lengths) if there else 0
        sizes = {part.states[0].shape[1] for part in parts}
        if len(sizes) > 1:
            raise UserError(f"{folder}: velocities.pth is in one of train/ and val/ only")
        size = sizes.pop()
        self.state_names: tuple[str, ...] = STATE_NAMES[:size]
        self.proprio_names: tuple[str, ...] = tuple(STATE_NAMES[index] for index in PROPRIO if index < size)
        super().__init__(config, name, folder, _joined(parts))

    def read_frames(self, file: Path, indices: np.ndarray, length: int) -> np.ndarray:
        return read_video(file, indices, length)


def _read(config: DinoWmSourceConfig, folder: Path) -> Recording:
    lengths_file, velocities = folder / "seq_lengths.pkl", folder / "velocities.pth"
    need_files(
        folder, "pusht_noise", ("states.pth", lengths_file.name), "rel_actions.pth, obses/episode_000.mp4", "pusht"
    )
    states = load_array(folder / "states.pth", size=5)
    lengths = whole_numbers(load_pickle(lengths_file), str(lengths_file), *states.shape[:2])[: config.episodes]
    faults: dict[int, str] = {}
    vectors = [rows(states, lengths, folder / "states.pth", faults)]
    if config.with_velocity and velocities.is_file():
        vectors.append(rows(load_array(velocities, size=2, like=states), lengths, velocities, faults))
    state = np.concatenate(vectors, axis=2)
    file = folder / "rel_actions.pth"
    is_relative = file.is_file()
    if not is_relative:
        file = folder / "abs_actions.pth"
        if not file.is_file():
            raise UserError(f"{folder}: neither rel_actions.pth nor abs_actions.pth is there")
    actions = rows(load_array(file, size=2, like=states), lengths, file, faults)
    return Recording(
        actions=(actions if is_relative else actions - state[..., :2]) / np.float32(ACTION_SCALE),
        states=state,
        proprio=state[..., [index for index in PROPRIO if index < state.shape[2]]],
        lengths=lengths,
        files=[folder / "obses" / f"episode_{index:03d}.mp4" for index in range(len(lengths))],
        tags=[{"shape": float(number)} for number in _shapes(folder / "shapes.pkl", len(states))[: len(lengths)]],
        faults=faults,
    )


def _shapes(file: Path, num_episodes: int) -> list[int]:
    """The number of each episode's shape. Raises UserError for a name that no shape has."""
    if not file.is_file():
        return [0] * num_episodes
    found = load_pickle(file)
    if not isinstance(found, list | tuple | np.ndarray) or len(cast(Sequence[Any], found)) != num_episodes:
        raise UserError(f"{file}: expected a list of {num_episodes} names of shapes, one an episode")
    names = [str(each) for each in cast(Sequence[Any], found)]
    unknown = next((each for each in names if each not in SHAPES), None)
    if unknown is not None:
        raise UserError(f"{file}: no shape is called '{unknown[:40]}'.{nearest(unknown, SHAPES)}")
    return [SHAPES.index(each) for each in names]


def _joined(parts: Sequence[Recording]) -> Recording:
    """The episodes of all parts; those of one may be longer than another's."""
    fields = ("actions", "states", "proprio", "lengths", "files", "tags")
    starts = np.cumsum([0, *(len(part.lengths) for part in parts)])
    faults = {
        int(start) + index: why
        for start, part in zip(starts, parts, strict=False)
        for index, why in part.faults.items()
    }
    return Recording(**{key: [each for part in parts for each in getattr(part, key)] for key in fields}, faults=faults)
