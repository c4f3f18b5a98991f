"""Small folders in each of DINO-WM's layouts: by our writers where we have one, by hand in the published form elsewhere."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from wm.config.data import DinoWmSourceConfig
from wm.contracts import Source
from wm.data.dataset import open_source
from wm.data.writers.deformable import DeformableWriter
from wm.data.writers.point_maze import PointMazeWriter
from wm.data.writers.pusht_noise import PushTWriter
from wm.data.writers.wall_single import WallWriter
from wm.data.writers.writer import DatasetFacts, Writer, save_video
from wm.types import RecordedEpisode

EPISODES, STEPS, SIZE, BLOCK = 4, 24, 64, 16
WRITERS: dict[str, tuple[Callable[[Path, DatasetFacts], Writer], int, int, tuple[int, ...]]] = {
    "wall_single": (WallWriter, 2, 2, (0, 1)),  # actions, state entries, which of them are proprio
    "point_maze": (PointMazeWriter, 2, 4, (0, 1, 2, 3)),
    "pusht_noise": (PushTWriter, 2, 7, (0, 1, 5, 6)),
    "deformable": (DeformableWriter, 4, 9, ()),
}


def frames_of(rng: np.random.Generator, steps: int = STEPS) -> np.ndarray:
    """Blocks of one colour: a lossy codec keeps their middles."""
    colours = rng.integers(0, 256, (steps, SIZE // BLOCK, SIZE // BLOCK, 3), dtype=np.uint8)
    return colours.repeat(BLOCK, axis=1).repeat(BLOCK, axis=2)


def close_pictures(found: np.ndarray, expected: np.ndarray) -> None:
    """As far as a lossy codec goes: the blocks' middles, since chroma is halved."""
    assert found.shape == expected.shape
    assert np.abs(found[:, 6::16, 6::16].astype(int) - expected[:, 6::16, 6::16]).max() < 40
    assert np.abs(found.astype(int) - expected).mean() < 12


def write_layout(layout: str, folder: Path, episodes: int = EPISODES, **more: Any) -> list[RecordedEpisode]:
    """What `wm data make` would leave of made-up episodes, which are returned.

    Args:
        more: further facts.
    """
    _, actions, states, proprio = WRITERS[layout]
    recorded: list[RecordedEpisode] = []
    for index in range(episodes):
        rng = np.random.default_rng(index)
        state = rng.normal(size=(STEPS, states)).astype(np.float32)
        recorded.append(
            RecordedEpisode(
                frames=frames_of(rng),
                states=state,
                actions=rng.normal(size=(STEPS, actions)).astype(np.float32),
                layout={"wall_x": 30.0 + index, "door_y": 20.0, "shape": float(index % 7)},
                proprio=state[:, list(proprio)] if proprio else np.zeros((STEPS, 1), np.float32),
            )
        )
    write_episodes(layout, folder, recorded, **more)
    return recorded


def write_episodes(layout: str, folder: Path, recorded: Sequence[RecordedEpisode], **more: Any) -> None:
    """Episodes by the layout's writer."""
    first = recorded[0]
    facts = DatasetFacts(
        world=layout,
        settings={},
        action_names=("a",) * first.actions.shape[1],
        state_names=("s",) * first.states.shape[1],
        proprio_names=("p",) * first.proprio.shape[1],
        layout_names=tuple(first.layout),
        episodes=len(recorded),
        frame_size=first.frames.shape[1],
        fps=10,
        task="",
        **more,
    )
    writer = WRITERS[layout][0](folder, facts)
    writer.check()
    for index, episode in enumerate(recorded):
        writer.write_frames(index, episode)
    writer.finish([replace(each, frames=each.frames[:0]) for each in recorded])


def write_robomimic(folder: Path, older: bool = False) -> dict[str, np.ndarray]:
    """A converted folder of two episodes, one of them shorter; returns its arrays. Padding is NaN, which nobody may read."""
    rng = np.random.default_rng(0)
    sizes = (
        {"states": 23, "velocities": 2, "abs_actions": 7} if older else {"states": 23, "proprios": 16, "rel_actions": 7}
    )
    arrays = {key: rng.normal(size=(2, STEPS, size)).astype(np.float32) for key, size in sizes.items()}
    if not older:
        arrays["states"][..., :16] = arrays["proprios"]
    lengths = [STEPS, STEPS - 4]
    arrays["frames"] = np.stack([frames_of(rng) for _ in lengths])
    for key in sizes:
        arrays[key][1, lengths[1] :] = np.nan
        folder.mkdir(exist_ok=True)
        torch.save(torch.from_numpy(arrays[key]), folder / f"{key}.pth")
    for index, length in enumerate(lengths):
        place = folder if older else folder / "obses"
        save_video(place / f"episode_{index:05d}.mp4", arrays["frames"][index, :length], 30)
    if not older:
        (folder / "seq_lengths.pkl").write_bytes(pickle.dumps(torch.tensor(lengths)))
    return arrays


def write_franka_steps(folder: Path) -> dict[str, np.ndarray]:
    """The generation of a step a frame: two episodes, one of them shorter."""
    rng = np.random.default_rng(0)
    arrays = {
        key: rng.normal(size=(2, STEPS, size)).astype(np.float32) for key, size in (("states", 22), ("actions", 9))
    }
    arrays["frames"] = np.stack([frames_of(rng) for _ in range(2)])
    lengths = [STEPS, STEPS - 4]
    for index, length in enumerate(lengths):
        (folder / f"{index:06d}").mkdir(parents=True)
        torch.save(torch.from_numpy(arrays["frames"][index, :length]), folder / f"{index:06d}" / "obses.pth")
    for key in ("states", "actions"):
        torch.save(torch.from_numpy(arrays[key]), folder / f"{key}.pth")
    (folder / "metadata.pkl").write_bytes(pickle.dumps({"episode_lengths": lengths, "action_dim": 9}))
    return arrays


def write_franka_motions(folder: Path, size: int = 8, after: bool = False) -> list[dict[str, np.ndarray]]:
    """The generation of a step a motion: two episodes of different lengths.

    Args:
        after: as the faulty recorder did: the arm is where the action ends.
    """
    half, episodes = size // 2, []
    for index, steps in enumerate((STEPS, STEPS - 2)):
        rng = np.random.default_rng(index)
        arm, actions = rng.normal(size=(steps, 14)), rng.normal(size=(steps, size))
        actions[:, :3], actions[:-1, half : half + 3] = arm[:, :3], arm[1:, :3]
        if after:
            arm[:, :3] = actions[:, half : half + 3]
        frames = frames_of(rng, steps)
        place = folder / f"{index:06d}"
        place.mkdir(parents=True)
        torch.save(torch.from_numpy(frames).float(), place / "obses.pth")
        for step in range(steps):
            with h5py.File(place / f"{step:02d}.h5", "w") as file:
                file["action"] = actions[step]
                file["eef_states"] = arm[step].reshape(1, 1, 14)
        episodes.append({"frames": frames, "actions": actions, "states": arm})
    return episodes


def open_layout(layout: str, folder: Path, **config: Any) -> Source:
    """As a config's source."""
    if layout == "franka":
        config = {"colors": "rgb", **config}
    return open_source(DinoWmSourceConfig(path="x", layout=layout, **config), layout, folder)  # type: ignore[arg-type]
