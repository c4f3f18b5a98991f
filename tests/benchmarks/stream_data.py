"""Data and runs for the benchmarks of the stream: PushT videos, stored tokens, features, and a run on each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from ray_jobs.runtime.stream import ClipSource
from wm.config.experiment import ExperimentConfig
from wm.data.token_files import StoredTokens
from wm.data.writers.writer import save_tensor
from wm.encoders import torchvision_shim
from wm.training_run import RunInputs

CLIP_FRAMES, FRAMESKIP = 4, 5
GRID, DIM = (14, 14), 384  # DINOv2 ViT-S/14 at 196 px
PREDICTOR = {"depth": 2, "heads": 6, "head_dim": 64, "mlp_dim": 384, "dropout": 0.0}  # 2.1 M parameters on those tokens


def open_run(root: Path, source: dict[str, Any], **settings: Any) -> RunInputs:
    """A run of history 3 on one source, its encoder's tokens of the size above where they are stored.

    Args:
        settings: of `train`, but `data`, `model` and `seed`, which are their own branches.
    """
    branches = {name: settings.pop(name) for name in ("data", "model", "encoder", "seed") if name in settings}
    config = ExperimentConfig.model_validate(
        {
            "encoder": {"kind": "tiny"},
            **branches,
            "data": {"sources": {"data": source}, "clip": {"frameskip": FRAMESKIP}, **branches.get("data", {})},
            "model": {"proprio": {"kind": "none"}, "predictor": PREDICTOR, **branches.get("model", {})},
            "plan": {"objective": {"alpha": 0.0}},
            "train": {"batch_size": 32, "epochs": 1, "steps_per_epoch": 100_000, "device": "cpu", **settings},
            "storage": {"root": str(root)},
        }
    )
    stored = StoredTokens(DIM, GRID, "benchmark") if config.data.tokens == "store" else None
    return RunInputs(config, root, None if "encoder" in branches else stored)


def clip_source(inputs: RunInputs) -> ClipSource:
    """What the only rank of a run streams."""
    return ClipSource(inputs.config.model_dump_json(), str(inputs.root), tuple(inputs.fingerprints.items()), 0, 1)


def pusht_videos(folder: Path, episodes: int, steps: int) -> None:
    """As `wm data make pusht` writes them, 224 px."""
    from ray_jobs.make_data import make_data

    make_data("pusht", folder, episodes=episodes, steps=steps, actors=0)


def with_keyframes(path: Path, every: int) -> None:
    """Encodes a video again, in place, with a keyframe every so many frames (or at most, x264's default being 250)."""
    frames: list[np.ndarray] = []
    av.logging.set_level(av.logging.PANIC)  # lerobot turns on what x264 has to say
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
        frames += [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    partial = path.with_name("partial.mp4")
    with av.open(str(partial), mode="w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "15", "g": str(every)})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    partial.replace(path)


def many_episodes(source: Path, folder: Path, times: int) -> None:
    """The same PushT data set with its training episodes so many times over; the videos are links."""
    from wm.data.writers.writer import save_pickle

    for part in ("train", "val"):
        copies = times if part == "train" else 1
        videos = sorted((source / part / "obses").glob("*.mp4"))
        (folder / part / "obses").mkdir(parents=True)
        for number in range(copies * len(videos)):
            os.link(videos[number % len(videos)], folder / part / "obses" / f"episode_{number:03d}.mp4")
        for name in ("states", "velocities", "rel_actions", "abs_actions"):
            values = torch.load(source / part / f"{name}.pth", weights_only=True)
            save_tensor(folder / part / f"{name}.pth", values.repeat(copies, 1, 1))
        length = values.shape[1]
        save_pickle(folder / part / "seq_lengths.pkl", [length] * copies * len(videos))


class RandomTokens(StoredTokens):
    """Encodes any frame as noise, quickly."""

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        return torch.randn(*frames.shape[:2], GRID[0] * GRID[1], DIM)


def store_tokens(inputs: RunInputs) -> None:
    """Noise in place of every frame's tokens."""
    for store in inputs.dataset.stores.values():
        list(store.write(RandomTokens(DIM, GRID, "benchmark"), store.missing()))


def save_features(folder: Path, episodes: int, steps: int, dim: int) -> None:
    """A `precomputed` data set of noise: one token a frame."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    np.savez(
        folder / "features.npz",
        features=rng.standard_normal((episodes, steps, dim), np.float32).astype(np.float16),
        states=rng.standard_normal((episodes, steps, 4), np.float32),
        actions=rng.standard_normal((episodes, steps, 2), np.float32),
    )


class LerobotClips(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """LeRobotDataset with our clips as delta_timestamps, opened in the process that reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._opened: Any = None

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self._dataset[index]

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "_opened": None}

    @property
    def _dataset(self) -> Any:
        if self._opened is None:
            torchvision_shim.install()
            from lerobot.datasets.lerobot_dataset import LeRobotDataset

            seconds = [index * FRAMESKIP / 10 for index in range(CLIP_FRAMES)]
            wanted = {"observation.images.main": seconds, "observation.state": seconds}
            wanted["action"] = [index / 10 for index in range(CLIP_FRAMES * FRAMESKIP)]
            self._opened = LeRobotDataset("wm/pusht", root=self.folder, delta_timestamps=wanted)
        return self._opened


@contextmanager
def a_cluster() -> Iterator[None]:
    """Ray on this machine, with object-store memory for a few large batches."""
    from ray_jobs.runtime.cluster import cluster

    with cluster():
        yield
