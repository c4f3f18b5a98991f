"""One run assembled from its config: the same for a notebook, a debug pass and a Ray worker."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from wm.build import build_dataset, build_encoder, build_model, encoder_at, model_facts
from wm.config.errors import UserError
from wm.config.experiment import ExperimentConfig
from wm.config.hashing import train_hash
from wm.contracts import Encoder, Reporter
from wm.data.atomic import write_json
from wm.data.augmentation import augmented, draw
from wm.data.clip_reader import Arrays, ClipReader, to_batch
from wm.data.clip_schedule import ClipSchedule
from wm.data.clip_seeds import clip_seeds
from wm.data.dataset import Dataset
from wm.data.shared_frames import SharedFrames
from wm.data.token_files import TokenFiles
from wm.evaluation.validation import Validator
from wm.training.checkpoint import list_checkpoints, read_manifest
from wm.training.loop import Training
from wm.training.start import Start, open_start
from wm.types import Batch, ClipRef

LOCK_WAIT_S = 60.0
_SAMPLED_FRAMES = 128


@dataclass(frozen=True)
class RunFolder:
    """`storage.root/runs/<train_hash>`: checkpoints, and result.json when the run is complete."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Where step_* folders lie."""
        return self.path / "checkpoints"

    @contextmanager
    def lock(self, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
        """One trainer at a time: a worker that outlives its killed driver must not write beside its successor."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("w") as handle:
            deadline = time.monotonic() + wait_s
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise UserError(f"{self.path}: this run is being trained by another process") from None
                    time.sleep(0.5)
            yield

    def result(self) -> dict[str, Any] | None:
        """What a complete run ended with, or None."""
        file = self.path / "result.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def history(self) -> list[dict[str, Any]]:
        """Metric rows so far: of the complete run, else up to its newest whole checkpoint."""
        result = self.result()
        if result is not None:
            return result["history"]
        for checkpoint in reversed(list_checkpoints(self.checkpoints)):
            try:
                return read_manifest(checkpoint)["history"]
            except UserError:
                continue
        return []

    def finish(self, result: Mapping[str, Any]) -> None:
        """Mark the run complete."""
        write_json(self.path / "result.json", dict(result))


class RunClips:
    """A run's clips and their order: what reading tasks need, without an encoder.

    Args:
        root: storage.root.
        fingerprints: of the encoder, and of the same at each size of train.resolution; None is its own size.
    """

    def __init__(self, config: ExperimentConfig, root: Path, fingerprints: Mapping[int | None, str]) -> None:
        self.config = config
        self.dataset: Dataset = build_dataset(config, root, fingerprints[None])
        sizes = fingerprints if config.data.tokens == "store" else {}
        self.stores = {size: self.dataset.open_stores(fingerprint) for size, fingerprint in sizes.items()}
        self._frames = {
            name: SharedFrames(source, self.dataset.split[name][0])
            for name, source in self.dataset.sources.items()
            if config.data.preload and name not in self.dataset.features
        }
        pools = self.dataset.train_clips(config.clip_num_frames)
        self.schedule = ClipSchedule(
            pools,
            config.train.batch_size,
            config.train.steps_per_epoch,
            config.seed,
            config.data.mixture.weights_of(pools),
            config.train.epochs,
        )

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.config.train.epochs * self.schedule.steps_per_epoch

    def size_at(self, step: int) -> int | None:
        """Side of the pictures at `step`; None is the encoder's own."""
        return self.config.train.size_at(step / self.total_steps)

    def frames_at(self, step: int) -> int:
        """Frames of a clip at `step`."""
        return self.config.clip_frames_at(step / self.total_steps)

    def stretches(self, start: int) -> list[tuple[int, int]]:
        """(first, stop) of the steps from `start` to the end, cut where clips change in size: in between all have one shape."""
        shapes = [(self.size_at(step), self.frames_at(step)) for step in range(start, self.total_steps)]
        cuts = [start + place for place in range(1, len(shapes)) if shapes[place] != shapes[place - 1]]
        return list(pairwise([start, *cuts, self.total_steps])) if start < self.total_steps else []

    def read(self, step: int, rank: int = 0, num_ranks: int = 1) -> Arrays:
        """One rank's part of the global batch at `step`."""
        return {key: values[0] for key, values in self.read_steps(step, step + 1, rank, num_ranks).items()}

    def read_steps(self, start: int, stop: int, rank: int = 0, num_ranks: int = 1) -> Arrays:
        """The same of some steps of one stretch; the arrays' first axis is theirs."""
        refs = [ref for step in range(start, stop) for ref in self._refs(step, rank, num_ranks)]
        arrays = self._readers[self.size_at(start)].read(refs, images=self._reads_images)
        if self.config.data.augment.is_on:
            # A clip is known by its step and its place in the global batch: the same change for any number of ranks.
            places = [
                (step, place)
                for step in range(start, stop)
                for place in range(self.schedule.batch_size)[rank::num_ranks]
            ]
            draws = [draw(self.config.data.augment, self.config.seed, *place) for place in places]
            changed = map(augmented, arrays["visual"], draws)
            arrays["visual"] = np.stack(list(changed))
        if self.config.draws_for_clips:
            places = range(self.schedule.batch_size)[rank::num_ranks]
            seeds = [clip_seeds(self.config.seed, step, places) for step in range(start, stop)]
            arrays["seeds"] = np.concatenate(seeds)
        steps = stop - start  # no -1 below: without labels actions have no columns, and nothing can be inferred
        return {key: values.reshape(steps, len(values) // steps, *values.shape[1:]) for key, values in arrays.items()}

    def step_bytes(self, step: int, rank: int = 0, num_ranks: int = 1) -> int:
        """Of what `read` gives, from one of its clips."""
        refs = self._refs(step, rank, num_ranks)
        clip = self._readers[self.size_at(step)].read(refs[:1], images=self._reads_images)
        return len(refs) * sum(values.nbytes for values in clip.values())

    def _refs(self, step: int, rank: int, num_ranks: int) -> list[ClipRef]:
        """A shorter clip is the beginning of the one that is due."""
        frames = self.frames_at(step)
        return [ref._replace(num_frames=frames) for ref in self.schedule.shard(step, rank, num_ranks)]

    @property
    def _reads_images(self) -> bool:
        """Beside tokens; shared frames are what an image decoder learns from already."""
        return self.config.trains_on_images and not self._frames

    @cached_property
    def _readers(self) -> dict[int | None, ClipReader]:
        sizes = {None, *(stage.size for stage in self.config.train.resolution)}
        return {size: self.dataset.reader_of({**self._frames, **self.stores.get(size, {})}) for size in sizes}


class MissingTokens(NamedTuple):
    """Episodes of a source that a run needs and that are not encoded yet.

    Args:
        size: side of the pictures; None is the encoder's own.
    """

    source: str
    size: int | None
    store: TokenFiles
    episodes: list[int]

    @property
    def num_frames(self) -> int:
        """Of these episodes."""
        return sum(self.store.source.lengths[episode] for episode in self.episodes)


class RunInputs:
    """What a run needs: clips, encoder and folder, opened once. Raises UserError for anything that cannot work."""

    def __init__(self, config: ExperimentConfig, root: Path, encoder: Encoder | None = None) -> None:
        self.config = config
        self.root = root
        self.encoder = encoder or build_encoder(config.encoder)
        sizes = {stage.size for stage in config.train.resolution}
        self.encoders: dict[int | None, Encoder] = {None: self.encoder}
        self.encoders |= {size: encoder_at(self.encoder, size) for size in sorted(sizes)}
        self.fingerprints = {size: encoder.fingerprint for size, encoder in self.encoders.items()}
        self.clips = RunClips(config, root, self.fingerprints)
        self.dataset = self.clips.dataset
        self.total_steps = self.clips.total_steps
        self.hash = train_hash(config, self.dataset.fingerprint, self.encoder.fingerprint)
        self.folder = RunFolder(root / "runs" / self.hash)

    def local_batches(self, start: int) -> Iterator[Batch]:
        """Whole global batches read in this process."""
        for step in range(start, self.total_steps):
            yield self.encode(to_batch(self.clips.read(step)), step)

    def encode(self, batch: Batch, step: int) -> Batch:
        """The batch of a step with tokens in place of pixels; the pixels stay beside them where a decoder learns from them."""
        return encoded(self.encoders[self.clips.size_at(step)], batch, keep_images=self.config.trains_on_images)

    def missing_tokens(self) -> list[MissingTokens]:
        """What must be encoded before this run can read. Held-out episodes are read at the encoder's own size alone."""
        found = []
        for size, stores in self.clips.stores.items():
            for name, store in stores.items():
                train, held_out = self.dataset.split[name]
                missing = sorted(set(store.missing()) & {*train, *(held_out if size is None else ())})
                if missing:
                    found.append(MissingTokens(name, size, store, missing))
        return found

    @cached_property
    def start(self) -> Start | None:
        """The run that this one starts from. Raises UserError where it is not there or finished, or was another model."""
        if self.config.train.start is None:
            return None
        start = open_start(self.root, self.config.train.start)
        start.check(self.config, self.encoder.fingerprint)
        return start

    def check_start(self) -> None:
        """Raises UserError where this run cannot start from the one that its config names."""
        if self.start is not None:
            _ = self.dataset.statistics  # compares the vectors of the new episodes with those that the model knows

    def validator(self) -> Validator:
        """On the same clips for every variant of one data set. Raises UserError when episodes are too short."""
        held_out, probe = self.validation_clips()
        return Validator(self.config.evaluate, self.batch(held_out), self.batch(probe))

    def validation_clips(self) -> tuple[list[ClipRef], list[ClipRef]]:
        """(held-out clips, those of training episodes that probes are fitted on). Raises as `validator`."""
        config, evaluate = self.config, self.config.evaluate
        history = config.model.history_len
        held_out = self.dataset.held_out_kinds(history + config.longest_horizon)
        probe = self.dataset.probe_clips(history + 1)
        return (
            [ref for clips in held_out for ref in clips.spread(evaluate.clips, evaluate.seed)],
            probe.spread(evaluate.probe_clips, evaluate.seed),
        )

    def batch(self, refs: list[ClipRef]) -> Batch:
        """Clips by reference, as tokens."""
        return encoded(self.encoder, to_batch(self.dataset.reader.read(refs)))

    def token_statistics(self) -> tuple[Tensor, Tensor]:
        """(D,) mean and standard deviation of the training frames' tokens, from a fixed sample of frames."""
        frames = self.dataset.training_clips(1).spread(_SAMPLED_FRAMES, seed=0)
        tokens = (self.batch([frame]).obs.visual.double() for frame in frames)
        moments = [(values.mean(dim=(0, 1, 2)), values.square().mean(dim=(0, 1, 2))) for values in tokens]
        mean, square = (torch.stack(parts).mean(dim=0) for parts in zip(*moments, strict=True))
        return mean.float(), (square - mean.square()).clamp(min=0).sqrt().float()

    def training(
        self,
        reporter: Reporter,
        batches: Callable[[int], Iterator[Batch]],
        *,
        keep_checkpoints: bool = True,
        is_main: bool = True,
        wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
        commit: str = "unknown",
    ) -> Training:
        """The training loop of this run."""
        torch.set_num_threads(self.config.train.num_threads)
        facts = {**model_facts(self.config, self.dataset, self.encoder), "train_hash": self.hash, "commit": commit}
        if self.start is not None:
            facts["started_from"] = self.start.facts
        validator = self.validator() if is_main else None
        model = build_model(self.config, facts)
        if self.start is not None:  # token statistics are weights, too: the latents keep their units
            model.load_state_dict(self.start.weights())
        elif model.needs_token_statistics:
            model.use_token_statistics(*self.token_statistics())
        return Training(
            config=self.config.train,
            model=model,
            device=pick_device(self.config.train.device),
            total_steps=self.total_steps,
            steps_per_epoch=self.clips.schedule.steps_per_epoch,
            batches=batches,
            reporter=reporter,
            validate=None if validator is None else validator.metrics,
            health=None if validator is None else validator.health,
            best_metric=self.config.best_metric,
            unsplittable=self.config.model.unsplittable,
            facts=facts,
            folder=self.folder.checkpoints if keep_checkpoints else None,
            wrap=wrap,
            is_main=is_main,
        )


def encoded(encoder: Encoder, batch: Batch, keep_images: bool = False) -> Batch:
    """The batch with tokens in place of pixels, and on request the pixels as its images."""
    if not batch.obs.is_pixels:
        return batch
    observation = replace(batch.obs, visual=encoder.encode(batch.obs.visual))
    return replace(batch, obs=observation, images=batch.obs.visual if keep_images else batch.images)


def pick_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """`auto` is a GPU where torch sees one. (Ray's own helper answers cuda:0 under fake GPUs.)"""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    return torch.device("cuda")
