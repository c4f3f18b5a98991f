"""One training of an encoder assembled from its config: the same for a notebook, a debug pass and a Ray worker."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wm.config.hashing import pretrain_hash
from wm.config.pretrain import PretrainConfig
from wm.contracts import Encoder, Reporter
from wm.data.clip_reader import to_batch
from wm.encoders.vit import tiny_encoder, tiny_encoder_of
from wm.pretraining.self_distillation import SelfDistillation
from wm.pretraining.views import Views
from wm.training.loop import Training
from wm.training_run import RunClips, RunFolder, pick_device
from wm.types import Batch

Judge = Callable[[Encoder], Mapping[str, float]]


class PretrainInputs:
    """What it needs: clips and folder, opened once. Raises UserError for anything that cannot work."""

    def __init__(self, config: PretrainConfig, root: Path) -> None:
        self.config = config
        self.root = root
        self.clips = RunClips(config.as_experiment, root, {None: ""})
        self.dataset = self.clips.dataset
        self.total_steps = self.clips.total_steps
        self.hash = pretrain_hash(config, self.dataset.fingerprint)
        self.folder = encoder_folder(root, self.hash)

    def local_batches(self, start: int) -> Iterator[Batch]:
        """Whole global batches read in this process."""
        for step in range(start, self.total_steps):
            yield to_batch(self.clips.read(step))

    def training(
        self,
        reporter: Reporter,
        batches: Callable[[int], Iterator[Batch]],
        *,
        judge: Judge | None = None,
        keep_checkpoints: bool = True,
        is_main: bool = True,
        wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
        commit: str = "unknown",
    ) -> Training[SelfDistillation]:
        """The training loop of this run.

        Args:
            judge: metrics of an encoder, `probe/...`; None on ranks that do not judge.
        """
        config = self.config
        torch.set_num_threads(config.train.num_threads)
        facts = {
            "config": config.model_dump(mode="json", exclude={"storage", "tracking"}),
            "data_fingerprint": self.dataset.fingerprint,
            "train_hash": self.hash,
            "commit": commit,
        }
        return Training(
            config=config.train,
            model=build_distillation(config),
            device=pick_device(config.train.device),
            total_steps=self.total_steps,
            steps_per_epoch=self.clips.schedule.steps_per_epoch,
            batches=batches,
            reporter=reporter,
            validate=None if judge is None else lambda model: _judged(model, config, judge),
            best_metric=None if judge is None else config.train.best_metric,
            patience=config.train.patience,
            unsplittable="self-distillation",
            facts=facts,
            folder=self.folder.checkpoints if keep_checkpoints else None,
            wrap=wrap,
            is_main=is_main,
        )


def encoder_folder(root: Path, hash: str) -> RunFolder:
    """Where the training of this hash lies."""
    return RunFolder(root / "encoders" / hash)


def build_distillation(config: PretrainConfig) -> SelfDistillation:
    """Student and teacher at the weights that `seed` draws."""
    torch.manual_seed(config.seed)
    encoder = config.encoder.model_copy(update={"seed": config.seed})
    network = tiny_encoder(encoder).network.requires_grad_(True)
    views = Views(config.views, encoder.shape.image_size, encoder.shape.patch_size)
    return SelfDistillation(network, config.distillation, views)


def teacher_encoder(model: SelfDistillation, config: PretrainConfig) -> Encoder:
    """The teacher as a frozen encoder of its own: what is judged and exported."""
    return tiny_encoder_of(copy.deepcopy(model.teacher.network), config.encoder.shape.image_size)


def _judged(model: SelfDistillation, config: PretrainConfig, judge: Judge) -> dict[str, float]:
    return {f"val/{name}": value for name, value in judge(teacher_encoder(model, config)).items()}


def teacher_weights(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The teacher network's part of a checkpoint's weights."""
    prefix = "teacher.network."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
