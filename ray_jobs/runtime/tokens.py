"""Every frame through the frozen encoder once, in parallel; each episode is a file, so an interruption loses little.

Where Ray has GPUs, actors that share them encode, two to a card: one reads frames while the other encodes. They end with the
work, and give the card's memory back to training. Elsewhere tasks of one CPU do.

Tokens have one fingerprint wherever they were made: encoders compute in float32 with TF32 off (wm/encoders/frozen.py), and
what a GPU then adds up in another order is far below what float16 rounds off.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import ray

from ray_jobs.runtime.cluster import get
from ray_jobs.runtime.runs import Run
from wm.build import build_dataset, build_encoder, encoder_at
from wm.config.errors import UserError
from wm.config.experiment import ExperimentConfig
from wm.contracts import Encoder
from wm.data.token_files import TokenFiles
from wm.encoders.frozen import FrozenEncoder
from wm.training_run import MissingTokens, pick_device

_EPISODES_PER_TASK = 8
_TRIES = 3  # after a process has died


class _Work(NamedTuple):
    """Some episodes of a store: plain values, so that any process can open it.

    Args:
        size: side of the pictures; None is the encoder's own.
        folder: where the driver expects their tokens.
        may_use_gpu: the process was given one, or a part.
    """

    config_json: str
    source: str
    size: int | None
    folder: str
    episodes: tuple[int, ...]
    may_use_gpu: bool


class EncodingActor:
    """What holds a part of a GPU while it encodes."""

    def ready(self) -> int:
        """No episodes yet: answers when there is a place for this actor, which may be never."""
        return 0

    def encode(self, work: _Work) -> int:
        """How many episodes were encoded."""
        return _encode(work)


def encode_missing(runs: Sequence[Run], progress: Callable[[int, int], None]) -> int:
    """Fill the token stores of all runs; returns how many episodes were encoded."""
    jobs: dict[Path, tuple[ExperimentConfig, MissingTokens]] = {}
    for run in runs:
        for missing in run.inputs.missing_tokens():
            folder = missing.store.folder
            known = jobs[folder][1].episodes if folder in jobs else []
            episodes = sorted({*known, *missing.episodes})
            jobs[folder] = (run.config, missing._replace(episodes=episodes))
    if not jobs:
        return 0
    config = next(iter(jobs.values()))[0]
    num_actors = gpu_actors(config, float(ray.cluster_resources().get("GPU", 0.0)))
    work = [
        _Work(
            config.model_dump_json(),
            missing.source,
            missing.size,
            str(folder),
            tuple(missing.episodes[first : first + _EPISODES_PER_TASK]),
            num_actors > 0,
        )
        for folder, (config, missing) in jobs.items()
        for first in range(0, len(missing.episodes), _EPISODES_PER_TASK)
    ]
    total = sum(len(one.episodes) for one in work)
    done = 0

    def encoded(episodes: int) -> None:
        nonlocal done
        done += episodes
        progress(done, total)

    if num_actors:
        _encode_on_actors(work, min(num_actors, len(work)), config.resources.gpus_per_encoding_actor, encoded)
    else:
        _encode_in_tasks(work, encoded)
    return total


def gpu_actors(config: ExperimentConfig, gpus: float) -> int:
    """How many actors share the GPUs; 0 where there are none, or the config wants none.

    Args:
        gpus: that the cluster has now. One that grows has those that training will ask for, too.
    """
    resources, share = config.resources, config.resources.gpus_per_encoding_actor
    if share == 0 or config.train.device == "cpu":
        return 0
    if resources.autoscaling:
        gpus = max(gpus, (resources.runs_at_once or 1) * resources.num_workers * resources.gpus_per_worker)
    return math.ceil(gpus) * int(1 / share + 1e-9)


def _encode_in_tasks(work: Sequence[_Work], encoded: Callable[[int], None]) -> None:
    task = ray.remote(_encode).options(num_cpus=1, max_retries=_TRIES, scheduling_strategy="DEFAULT")
    waiting = [task.remote(one) for one in work]
    while waiting:
        ready, waiting = ray.wait(waiting, timeout=None)
        for reference in ready:
            encoded(get(reference))


def _encode_on_actors(work: Sequence[_Work], num_actors: int, gpus_each: float, encoded: Callable[[int], None]) -> None:
    """One piece of work at a time for each; an actor that finds no place holds none back from the others."""
    make: Callable[[], Any] = (
        ray.remote(EncodingActor)
        .options(
            num_cpus=1,
            num_gpus=gpus_each,
            max_restarts=_TRIES,
            max_task_retries=_TRIES,
            scheduling_strategy="DEFAULT",
        )
        .remote
    )
    actors = [make() for _ in range(num_actors)]
    try:
        waiting, left = deque(work), len(work)
        called = {actor.ready.remote(): (actor, False) for actor in actors}
        while left:
            for reference in ray.wait(list(called), timeout=None)[0]:
                actor, was_encoding = called.pop(reference)
                episodes = get(reference)
                if was_encoding:
                    left -= 1
                    encoded(episodes)
                if waiting:
                    called[actor.encode.remote(waiting.popleft())] = (actor, True)
    finally:
        for actor in actors:
            ray.kill(actor)


def _encode(work: _Work) -> int:
    encoder, store = _opened(work.config_json, work.source, work.size, work.folder, work.may_use_gpu)
    return sum(1 for _ in store.write(encoder, work.episodes))


@lru_cache(maxsize=2)
def _opened(
    config_json: str, source: str, size: int | None, folder: str, may_use_gpu: bool
) -> tuple[Encoder, TokenFiles]:
    """A process loads each encoder once. Raises UserError when the tokens would be others than the driver waits for."""
    import torch

    torch.set_num_threads(1)
    config = ExperimentConfig.model_validate_json(config_json)
    encoder = build_encoder(config.encoder)
    if size is not None:
        encoder = encoder_at(encoder, size)
    store = build_dataset(config, Path(str(config.storage.root)), encoder.fingerprint).stores[source]
    if str(store.folder) != folder:
        raise UserError(
            f"data.sources.{source}: data or encoder changed since this run was planned; run the command again"
        )
    if may_use_gpu and isinstance(encoder, FrozenEncoder):  # one from outside chooses its device itself
        encoder.to(pick_device(config.train.device))
    return encoder, store
