"""Slices, split, normalisation and image preprocessing against the reference's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from tests.golden.case import Golden, assert_golden
from wm.data.clip_index import ClipIndex, split_episodes
from wm.data.clip_reader import ClipReader
from wm.data.normalization import DataStatistics, vector_statistics
from wm.encoders.preprocess import preprocess
from wm.types import ClipRef, Statistics


@dataclass
class RecordedEpisode:
    """The one episode that the slicing case carries."""

    recorded: Mapping[str, np.ndarray]
    id: str = "recorded/0"
    source: str = "recorded"
    fps: float = 10.0
    tags: Mapping[str, float] = field(default_factory=dict)

    @property
    def length(self) -> int:
        return len(self.actions)

    @property
    def actions(self) -> np.ndarray:
        return self.recorded["in/traj0_action"]

    @property
    def proprio(self) -> np.ndarray:
        return self.recorded["in/traj0_proprio"]

    @property
    def state(self) -> np.ndarray:
        return self.recorded["in/traj0_state"]

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return self.recorded["in/traj0_visual"][np.asarray(indices)]


@dataclass
class RecordedSource:
    """Nothing but that episode, whatever number is asked for."""

    only: RecordedEpisode

    def episode(self, index: int) -> RecordedEpisode:
        return self.only


def check_dataset_slicing(case: Golden) -> None:
    frames, frameskip = case.size("num_hist") + case.size("num_pred"), case.size("frameskip")

    def slices(lengths: Sequence[int]) -> np.ndarray:
        index = ClipIndex([("", row, int(length)) for row, length in enumerate(lengths)], frames, frameskip)
        refs = [index[i] for i in range(len(index))]
        return np.array([(ref.episode, ref.start, ref.start + ref.num_frames * ref.frameskip) for ref in refs])

    a = case.arrays
    np.testing.assert_array_equal(slices(a["in/lengths"]), a["out/slices_unshuffled"])
    np.testing.assert_array_equal(slices(a["in/edge_lengths"]), a["out/edge_slices_unshuffled"])

    lengths = a["in/split_lengths"]
    train, held_out = split_episodes(len(lengths), 1 - case.cfg("train_fraction"), case.size("split_seed"))
    np.testing.assert_array_equal(train, a["out/split_train"])
    np.testing.assert_array_equal(held_out, a["out/split_val"])
    # The reference shuffles once and for all; our order is the schedule's. The slices are the same ones.
    for half, key in ((train, "out/train_slices"), (held_out, "out/val_slices")):
        np.testing.assert_array_equal(slices(lengths[half]), np.array(sorted(map(tuple, a[key]))))
    _check_example(case, frames, frameskip)


def _check_example(case: Golden, frames: int, frameskip: int) -> None:
    """One clip, cut from the recorded episode: frames, and the actions that follow each."""
    episode = RecordedEpisode(case.arrays)
    plain = {
        key: Statistics(np.zeros(size, np.float32), np.ones(size, np.float32))
        for key, size in (
            ("action", episode.actions.shape[1]),
            ("proprio", episode.proprio.shape[1]),
            ("state", episode.state.shape[1]),
        )
    }
    source: Any = RecordedSource(episode)
    reader = ClipReader({"recorded": source}, {}, DataStatistics(**plain))
    start = int(case.arrays["out/example_slice"][1])
    clip = reader.read([ClipRef("recorded", 0, start, frameskip, frames)])
    for ours, theirs in (("visual", "visual"), ("proprio", "proprio"), ("actions", "action"), ("state", "state")):
        np.testing.assert_array_equal(clip[ours][0], case.arrays[f"out/example_{theirs}"])
    assert clip["actions"].shape[-1] == int(case.arrays["out/action_dim"])


def check_preprocessor(case: Golden) -> None:
    check_normalization(case)
    check_images(case)


def check_normalization(case: Golden) -> None:
    a = case.arrays
    for key in ("action", "proprio", "state"):
        statistics = Statistics(a[f"in/{key}_mean"], a[f"in/{key}_std"])
        assert_golden(torch.from_numpy(statistics.normalize(a[f"in/{key}"])), case[f"out/{key}_norm"])
    actions = Statistics(a["in/action_mean"], a["in/action_std"])
    assert_golden(torch.from_numpy(actions.denormalize(a["in/action_normalised"])), case["out/action_denorm"])
    proprio = Statistics(a["in/proprio_mean"], a["in/proprio_std"]).normalize(a["in/proprio"])
    assert_golden(torch.from_numpy(proprio)[: len(a["out/planner_proprio"])], case["out/planner_proprio"])

    rows = [steps[:length] for steps, length in zip(a["in/stats_data"], a["in/stats_lengths"], strict=True)]
    statistics = vector_statistics(rows)
    assert_golden(torch.from_numpy(statistics.mean), case["out/stats_mean"])
    assert_golden(torch.from_numpy(statistics.std), case["out/stats_std"])
    deformable = vector_statistics(rows, added_to_std=1e-6)
    assert_golden(torch.from_numpy(deformable.std), case["out/stats_std_deformable"])


def check_images(case: Golden) -> None:
    """Every recorded pixel and moment to 1e-6: ours is torch's own antialiased resize too."""
    sizes = {224: case.size("img_size"), 196: case.size("encoder_img_size")}
    for shape in ("square", "rect"):
        frames = case[f"in/image_{shape}"]
        for name, size in sizes.items():
            images = preprocess(frames, sizes[224], size)
            assert images.shape == (len(frames), 3, size, size)
            grid = case[f"in/grid_{name}"]
            prefix = f"out/{shape}_{name}"
            _assert_pixels(images[:, :, grid][..., grid], case[f"{prefix}_grid"])
            line = images[:, :, 100] if name == 224 else images[..., 50]
            _assert_pixels(line, case[f"{prefix}_row100" if name == 224 else f"{prefix}_col50"])
            _assert_pixels(images.double().mean(dim=(2, 3)).float(), case[f"{prefix}_mean"])
            _assert_pixels(images.double().std(dim=(2, 3), correction=0).float(), case[f"{prefix}_std"])
    square = case["in/image_square"]
    side = square.shape[1]
    _assert_pixels(preprocess(square, side, side)[None], case["out/planner_visual"])


def _assert_pixels(value: torch.Tensor, reference: torch.Tensor) -> None:
    assert value.shape == reference.shape
    assert float((value - reference).abs().max()) <= 1e-6
