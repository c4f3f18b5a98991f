"""Every frame through the frozen encoder once, in parallel Ray tasks; each episode is a file, so an interruption loses little."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import ray

from ray_jobs.runtime.cluster import get
from ray_jobs.runtime.runs import Run
from wm.build import build_dataset, build_encoder, encoder_at
from wm.config.experiment import ExperimentConfig
from wm.training_run import MissingTokens

_EPISODES_PER_TASK = 8


def encode_missing(runs: Sequence[Run], progress: Callable[[int, int], None]) -> int:
    """Fill the token stores of all runs; returns how many episodes were encoded."""
    jobs: dict[Path, tuple[str, MissingTokens]] = {}
    for run in runs:
        for missing in run.inputs.missing_tokens():
            folder = missing.store.folder
            known = jobs[folder][1].episodes if folder in jobs else []
            episodes = sorted({*known, *missing.episodes})
            jobs[folder] = (run.config.model_dump_json(), missing._replace(episodes=episodes))
    chunks = [
        (config, missing.source, missing.size, missing.episodes[first : first + _EPISODES_PER_TASK])
        for config, missing in jobs.values()
        for first in range(0, len(missing.episodes), _EPISODES_PER_TASK)
    ]
    total = sum(len(episodes) for *_, episodes in chunks)
    task = ray.remote(_encode).options(num_cpus=1, max_retries=3, scheduling_strategy="DEFAULT")
    waiting = [task.remote(*chunk) for chunk in chunks]
    done = 0
    while waiting:
        ready, waiting = ray.wait(waiting, timeout=None)
        done += sum(get(reference) for reference in ready)
        progress(done, total)
    return total


def _encode(config_json: str, source: str, size: int | None, episodes: list[int]) -> int:
    import torch

    torch.set_num_threads(1)
    config = ExperimentConfig.model_validate_json(config_json)
    encoder = build_encoder(config.encoder)
    if size is not None:
        encoder = encoder_at(encoder, size)
    store = build_dataset(config, Path(str(config.storage.root)), encoder.fingerprint).stores[source]
    return sum(1 for _ in store.write(encoder, episodes))
