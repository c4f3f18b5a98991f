"""Ray Data's stream: clips from videos and tokens, the wait of a training, its memory, the time to a first batch.

Costs of clips are CPU seconds of all processes that take part: other work on the machine does not change them.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import ray
import torch

from ray_jobs.runtime.stream import open_clips, stream_batches
from ray_jobs.runtime.training import quieten
from tests.benchmarks import stream_data as data
from tests.benchmarks.row import Row
from wm.data.clip_reader import to_batch
from wm.training.reporter import NullReporter
from wm.training_run import RunInputs
from wm.types import Batch

CPU = torch.device("cpu")
EPISODES, STEPS = 20, 200  # of PushT
VIDEO_STEPS, TOKEN_STEPS = 10, 40
BATCH = 32
CPUS_PER_TASK = 0.2
MEMORY_STEPS = 10_000
FIGURES = Path(tempfile.gettempdir()) / "wm_bench"


def stream() -> list[Row]:
    """All of this file."""
    quieten()
    with tempfile.TemporaryDirectory() as folder, data.a_cluster():
        root = Path(folder)
        data.pusht_videos(root / "data" / "pusht", EPISODES, STEPS)
        rows: list[Row] = []
        for part in (tokens, features, videos, lerobot_videos, first_batches, memory):
            for row in part(root):
                print(
                    f"{row.name}: {row.base} {row.base_value:.4g}, {row.ours} {row.ours_value:.4g} {row.unit}",
                    flush=True,
                )
                rows.append(row)
        return rows


def videos(root: Path) -> list[Row]:
    """Against a loader in this process that decodes the whole episode for every clip."""
    rows: list[Row] = []
    for every in (12, 250):
        if every != 12:
            for file in sorted((root / "data" / "pusht").rglob("*.mp4")):
                data.with_keyframes(file, every)
        inputs = _pusht(root, seed=every)

        def whole(inputs: RunInputs = inputs) -> Iterator[int]:
            for ref in inputs.clips.schedule.batch_at(0):
                episode = inputs.dataset.sources["data"].episode(ref.episode)
                yield len(episode.frames(np.arange(episode.length))[ref.frame_indices]) // data.CLIP_FRAMES

        name = f"PushT clips, keyframe every {every}"
        rows.append(Row(name, "whole episodes", _cost(whole()), "Ray Data", _streamed(inputs), "CPU s/clip"))
    return rows


def lerobot_videos(root: Path) -> list[Row]:
    """Against LeRobotDataset in a DataLoader of one process, our one reading task on the same files."""
    from ray_jobs.convert_data import convert_data

    folder = root / "data" / "lerobot"
    convert_data(root / "data" / "pusht", folder, "lerobot", actors=0)
    rows: list[Row] = []
    for every in (2, 12, 250):  # 2 is what LeRobot's own writer makes
        if every != 2:
            for file in sorted(folder.rglob("*.mp4")):
                data.with_keyframes(file, every)
        source = {"kind": "lerobot", "path": "lerobot"}
        inputs = data.open_run(root, source, data={"tokens": "online"}, seed=every, steps_per_epoch=VIDEO_STEPS)
        theirs = data.LerobotClips(folder)

        def loader(theirs: data.LerobotClips = theirs) -> Iterator[int]:
            order = torch.randperm(len(theirs), generator=torch.Generator().manual_seed(0)).tolist()
            loaded = torch.utils.data.DataLoader(
                theirs,
                BATCH,
                sampler=order[: BATCH * (VIDEO_STEPS + 1)],
                num_workers=1,
                prefetch_factor=1,
                multiprocessing_context=multiprocessing.get_context("spawn"),  # Ray's threads do not survive a fork
            )
            for batch in loaded:
                yield len(batch["action"])

        name = f"the same as LeRobot data, keyframe every {every}"
        rows.append(Row(name, "LeRobotDataset", _cost(loader()), "Ray Data", _streamed(inputs), "CPU s/clip"))
    return rows


def tokens(root: Path) -> list[Row]:
    """Stored tokens of 196 x 384: read in this process against Ray Data, and the wait of a small training."""
    from ray_jobs.make_data import make_wall

    make_wall(root / "data" / "wall", episodes=40, steps=60, frame_size=28)
    source = {"kind": "dino_wm", "path": "wall"}
    inputs = data.open_run(root, source, steps_per_epoch=TOKEN_STEPS)
    data.store_tokens(inputs)
    small = data.open_run(root, source, batch_size=8, steps_per_epoch=20)
    total, wait, parameters = _trained(small)
    return [
        Row("tokens 196 x 384 fp16", "in process", _cost(_local(inputs)), "Ray Data", _streamed(inputs), "CPU s/clip"),
        Row(f"steps of 8 clips, {parameters / 1e6:.1f} M parameters", "training", total, "wait", wait),
    ]


def features(root: Path) -> list[Row]:
    """One token of 1024 a frame, where a step is small: reading against Ray Data, and the wait of a small training."""
    data.save_features(root / "data" / "features", episodes=60, steps=100, dim=1024)
    encoder = {"kind": "precomputed", "provenance": "noise", "dim": 1024}
    source = {"kind": "precomputed", "path": "features"}
    inputs = data.open_run(root, source, encoder=encoder, steps_per_epoch=300)
    total, wait, parameters = _trained(inputs)
    return [
        Row("features 1 x 1024 fp16", "in process", _cost(_local(inputs)), "Ray Data", _streamed(inputs), "CPU s/clip"),
        Row(f"steps of 32 clips, {parameters / 1e6:.1f} M parameters", "training", total, "wait", wait),
    ]


def first_batches(root: Path) -> list[Row]:
    """From asking to the first batch with ten times the episodes; the reading process is there and has imported all it needs."""
    data.many_episodes(root / "data" / "pusht", root / "data" / "pusht10", 10)
    _first(_pusht(root, seed=1))
    taken: dict[str, list[float]] = {"pusht": [], "pusht10": []}
    for repeat in range(3):
        for path, found in taken.items():
            found.append(_first(_pusht(root, path, seed=2 + repeat)))
    once, tenfold = (float(np.median(found)) for found in taken.values())
    return [Row(f"first batch, {10 * EPISODES} videos", f"{EPISODES} videos", once, "10 x", tenfold)]


def memory(root: Path) -> list[Row]:
    """Of this process, its reading tasks and the object store, over 10,000 batches of 8 clips of features."""
    import matplotlib.pyplot as plt

    folder = root / "data" / "small"
    if not folder.exists():
        data.save_features(folder, episodes=60, steps=100, dim=256)
    encoder = {"kind": "precomputed", "provenance": "noise", "dim": 256}
    inputs = data.open_run(
        root, {"kind": "precomputed", "path": "small"}, encoder=encoder, batch_size=8, steps_per_epoch=MEMORY_STEPS
    )
    seen: list[tuple[int, float, float]] = []
    for step, _ in enumerate(_batches(inputs), start=1):
        if step % 250 == 0:
            seen.append((step, *_memory_mib()))
    steps, processes, store = np.array(seen).T
    FIGURES.mkdir(exist_ok=True)
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    axes.plot(steps, processes, label="worker and reading tasks, without shared memory")
    axes.plot(steps, store, label="object store")
    axes.set(xlabel="batches", ylabel="MiB", ylim=(0, None), title="Memory of the stream")
    axes.legend()
    figure.savefig(FIGURES / "stream_memory.png", dpi=120)
    early, late = (
        (processes + store)[steps <= MEMORY_STEPS / 5].max(),
        (processes + store)[steps > MEMORY_STEPS / 5].max(),
    )
    name = f"most memory in {MEMORY_STEPS} batches ({FIGURES / 'stream_memory.png'})"
    return [Row(name, "first fifth", early, "after it", late, "MiB")]


def _pusht(root: Path, path: str = "pusht", seed: int = 0) -> RunInputs:
    source = {"kind": "dino_wm", "layout": "pusht_noise", "path": path}
    return data.open_run(root, source, data={"tokens": "online"}, seed=seed, steps_per_epoch=VIDEO_STEPS)


def _batches(inputs: RunInputs, start: int = 0) -> Iterator[Batch]:
    return stream_batches(data.clip_source(inputs), start, CPUS_PER_TASK)


def _local(inputs: RunInputs) -> Iterator[int]:
    return (to_batch(inputs.clips.read(step)).to(CPU).num_clips for step in range(inputs.total_steps))


def _cost(counts: Iterator[int]) -> float:
    """CPU seconds a clip of a loader in this process and its children, after its first item."""
    next(counts)
    began = _cpu_s()
    clips = sum(counts)
    return (_cpu_s() - began) / clips


def _streamed(inputs: RunInputs) -> float:
    """The same of a whole stream, once its reading process is there."""
    list(_batches(inputs, inputs.total_steps - 1))
    began = _cpu_s()
    clips = sum(batch.to(CPU).num_clips for batch in _batches(inputs))
    return (_cpu_s() - began) / clips


def _cpu_s() -> float:
    """Of this process, and of its children but for Ray's own that only watch."""
    total = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            name = " ".join(process.cmdline()[:3])
            if not any(word in name.lower() for word in ("dashboard", "agent", "gcs_server", "monitor")):
                taken = process.cpu_times()
                total += taken.user + taken.system + taken.children_user + taken.children_system
        except psutil.Error:
            continue
    return total


def _trained(inputs: RunInputs) -> tuple[float, float, int]:
    """(seconds of a training after its first steps, seconds of those that it waited for its batches, parameters of its predictor)."""
    skipped = inputs.total_steps // 10
    waited: list[float] = []
    began = 0.0

    def batches(start: int) -> Iterator[Batch]:
        nonlocal began
        source = iter(_batches(inputs))
        for step in range(inputs.total_steps):
            if step == skipped:
                began = time.monotonic()
            asked = time.monotonic()
            batch = next(source)
            waited.append(time.monotonic() - asked)
            yield batch

    training = inputs.training(NullReporter(), batches, keep_checkpoints=False, is_main=False)
    training.run()
    parameters = sum(each.numel() for each in training.model.predictor.parameters())
    return time.monotonic() - began, sum(waited[skipped:]), parameters


def _first(inputs: RunInputs) -> float:
    open_clips.cache_clear()
    began = time.monotonic()
    batches = iter(_batches(inputs))
    next(batches)
    return time.monotonic() - began


def _memory_mib() -> tuple[float, float]:
    """Own memory of this process and of Ray's workers, and what lies in the object store."""
    own = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            if process.pid == os.getpid() or process.name().startswith("ray::"):
                found = process.memory_info()
                own += found.rss - found.shared
        except psutil.Error:
            continue
    name = "object_store_memory"
    store = ray.cluster_resources()[name] - ray.available_resources().get(name, 0.0)
    return own / 2**20, store / 2**20
