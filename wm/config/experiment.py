"""The root of the config tree, and the rules that cross its branches."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from wm.config.base import Config, NonNegativeInt
from wm.config.data import DataConfig, PrecomputedSourceConfig
from wm.config.decoder import NoDecoder, TransposedConvDecoderConfig
from wm.config.encoder import Dinov2EncoderConfig, EncoderConfig, PrecomputedEncoderConfig
from wm.config.model import DinoWmConfig, NoProprio
from wm.config.plan import PlanConfig
from wm.config.platform import ResourcesConfig, StorageConfig, TrackingConfig
from wm.config.shortcut import ShortcutConfig
from wm.config.train import EvaluateConfig, TrainConfig


class ExperimentConfig(Config):
    """Everything one run needs. Objects get their own branch, never the root."""

    data: DataConfig = DataConfig()
    encoder: EncoderConfig = Dinov2EncoderConfig()
    model: Annotated[DinoWmConfig | ShortcutConfig, Field(discriminator="kind")] = DinoWmConfig()
    train: TrainConfig = TrainConfig()
    plan: PlanConfig = PlanConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    tracking: TrackingConfig = TrackingConfig()
    storage: StorageConfig = StorageConfig()
    resources: ResourcesConfig = ResourcesConfig()
    seed: NonNegativeInt = 0

    @property
    def clip_num_frames(self) -> int:
        """Frames of a training clip: history and the frames that the loss predicts, or as many as shortcut forcing is told."""
        if isinstance(self.model, ShortcutConfig):
            return self.model.clip_frames
        return self.model.history_len + self.train.rollout_horizon

    def clip_frames_at(self, progress: float) -> int:
        """Frames of a training clip at `progress` in [0, 1] of training."""
        return self.model.frames_at(progress) if isinstance(self.model, ShortcutConfig) else self.clip_num_frames

    @property
    def draws_for_clips(self) -> bool:
        """Whether clips come with a seed each: the model's loss draws random numbers for each of them."""
        return isinstance(self.model, ShortcutConfig)

    @property
    def trains_on_images(self) -> bool:
        """Whether batches carry frames beside tokens: an image decoder learns from them."""
        return not isinstance(self.model.decoder, NoDecoder)

    @property
    def longest_horizon(self) -> int:
        """The farthest step ahead at which latents are judged on held-out clips."""
        return max(self.evaluate.horizons)

    @property
    def best_metric(self) -> str:
        """The validation metric that the best checkpoint is best by."""
        horizons = sorted(self.evaluate.horizons)
        return self.train.best_metric or f"val/copy_ratio_h{horizons[(len(horizons) - 1) // 2]}"

    @model_validator(mode="after")
    def _branches_agree(self) -> Self:
        if self.train.batch_size % self.resources.num_workers:
            raise ValueError(
                f"train.batch_size ({self.train.batch_size}) must be a multiple of resources.num_workers "
                f"({self.resources.num_workers})"
            )
        if self.train.accumulation > self.train.batch_size // self.resources.num_workers:
            raise ValueError(
                f"train.accumulation ({self.train.accumulation}) must be at most the "
                f"{self.train.batch_size // self.resources.num_workers} clips of a worker"
            )
        if self.train.accumulation > 1 and self.model.unsplittable is not None:
            raise ValueError(
                f"{self.model.unsplittable} needs train.accumulation=1: it looks at all clips of a batch together"
            )
        if self.data.token_format != "float16" and isinstance(self.encoder, PrecomputedEncoderConfig):
            raise ValueError("data.token_format is of the token store, which encoder.kind=precomputed does not use")
        if self.train.resolution and isinstance(self.encoder, PrecomputedEncoderConfig):
            raise ValueError("train.resolution needs an encoder that sees pictures, not encoder.kind=precomputed")
        if self.train.resolution and isinstance(self.model, ShortcutConfig):
            raise ValueError(
                "train.resolution does not go with model.kind=shortcut, which has a position for every patch"
            )
        if self.train.resolution and isinstance(self.model.decoder, TransposedConvDecoderConfig):
            raise ValueError(
                "train.resolution does not go with model.decoder.kind=transposed_conv, whose first layer counts the patches; "
                "vqvae takes any number"
            )
        if self.plan.objective.alpha > 0 and not self.model.keeps_proprio:
            why = "model.proprio.kind=none" if isinstance(self.model.proprio, NoProprio) else "projection.of=joint"
            raise ValueError(f"plan.objective.alpha must be 0 with {why}: the latent keeps no proprio apart to weigh")
        for name, source in self.data.sources.items():
            has_tokens = isinstance(source, PrecomputedSourceConfig)
            if has_tokens != isinstance(self.encoder, PrecomputedEncoderConfig):
                raise ValueError(
                    f"data.sources.{name}.kind={source.kind} does not go with encoder.kind={self.encoder.kind}: precomputed "
                    "features need encoder.kind=precomputed, and frames an encoder that takes them"
                )
        return self
