"""Training an encoder without labels, on frames alone (SCIENCE has no section on it; docs/encoder.md describes the method)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, field_validator, model_validator

from wm.config.base import Config, Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from wm.config.data import DataConfig, PrecomputedSourceConfig
from wm.config.encoder import TinyEncoderConfig
from wm.config.errors import nearest
from wm.config.experiment import ExperimentConfig
from wm.config.model import DinoWmConfig
from wm.config.platform import ResourcesConfig, StorageConfig, TrackingConfig
from wm.config.probes import ProbesConfig
from wm.config.schedule import ConstantSchedule, LinearSchedule, ScalarSchedule
from wm.config.train import LoopConfig, OneRateConfig, TrainConfig

Range = Annotated[tuple[NonNegativeFloat, NonNegativeFloat], Field(strict=False)]


class ViewsConfig(Config):
    """How the two views of a clip are drawn; all its frames share a draw.

    Args:
        crop: side of the window as a share of the frame's.
        brightness, contrast, saturation: lowest and highest factor.
        channel_mix: standard deviation of the mixing of red, green and blue (grey stays grey).
        tint: standard deviation of what is added to each of red, green and blue, of 1.
        colour_probability: share of the clips whose colours change.
        masked_probability: share of the frames of which patches are hidden.
        masked_share: how many of such a frame's patches.
    """

    crop: Range = (0.7, 1.0)
    brightness: Range = (0.7, 1.3)
    contrast: Range = (0.7, 1.3)
    saturation: Range = (0.5, 1.5)
    channel_mix: NonNegativeFloat = 0.15
    tint: NonNegativeFloat = 0.0
    colour_probability: Fraction = 0.8
    masked_probability: Fraction = 0.5
    masked_share: Range = (0.1, 0.5)

    @model_validator(mode="after")
    def _ranges_in_order(self) -> Self:
        for name in ("crop", "brightness", "contrast", "saturation", "masked_share"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: [{low:g}, {high:g}] is no range: the lowest value comes first")
        if not 0 < self.crop[0] <= self.crop[1] <= 1:
            raise ValueError(f"crop: {list(self.crop)} must lie within (0, 1]")
        if self.masked_share[1] >= 1:
            raise ValueError(f"masked_share: {list(self.masked_share)} must stay below 1: something must be seen")
        return self


class SelfDistillationConfig(Config):
    """The losses, their heads and the teacher. Defaults: what kept latent distances true to distances in the world (LOG.md).

    Args:
        prototypes: K, of either head.
        head_hidden, head_dim: widths of the heads.
        student_temperature, teacher_temperature: of the softmax over prototypes; the teacher's is the sharper.
        image_weight: of the image-level loss with assignments balanced over the batch.
        identity_weight: of naming a frame's other view among all frames of the batch, those of its own clip too.
        identity_scale: of latent distances in the softmax over frames, before the first step; it is learnt.
        identity_blur: frames of a clip within which another counts as the same by exp(-distance / blur): frames that are near in
            time come to lie near in latent. 0: each frame for itself.
        patch_weight: of the loss on hidden patches.
        motion_weight: of restoring, linearly from each patch's token, what moves there.
        spread_weight: of the loss that spreads image features.
        teacher_decay: of the teacher's moving average, by training progress.
    """

    prototypes: PositiveInt = 512
    head_hidden: PositiveInt = 256
    head_dim: PositiveInt = 64
    student_temperature: PositiveFloat = 0.1
    identity_scale: PositiveFloat = 50.0
    identity_blur: NonNegativeFloat = 1.0
    teacher_temperature: ScalarSchedule = LinearSchedule(start=0.04, end=0.06, over=0.3)
    image_weight: NonNegativeFloat = 0.05
    identity_weight: NonNegativeFloat = 1.0
    patch_weight: NonNegativeFloat = 0.1
    motion_weight: NonNegativeFloat = 0.0
    spread_weight: NonNegativeFloat = 0.0
    teacher_decay: ScalarSchedule = ConstantSchedule(start=0.99)


class PicturesConfig(DataConfig):
    """Data whose pictures are read: an encoder has no tokens to learn from."""

    tokens: Literal["store", "online"] = "online"


class PretrainLoopConfig(LoopConfig):
    """Length, batches and bookkeeping.

    Args:
        best_metric: what the probes report, after `val/`; None: no probes, and the last weights count.
        patience: end when so many validations in a row have not bettered `best_metric`; None goes on to the last epoch.
        exported: which weights the encoder is made of: the best by `best_metric`, or the last.
    """

    batch_size: PositiveInt = 16
    epochs: PositiveInt = 20
    steps_per_epoch: PositiveInt | None = 200
    optimizer: OneRateConfig = OneRateConfig()
    best_metric: Annotated[str, Field(pattern="^val/")] | None = "val/probe/state_r2"
    best_mode: Literal["min", "max"] = "max"
    patience: PositiveInt | None = 5
    exported: Literal["best", "last"] = "best"


AnyLoopConfig = TrainConfig | PretrainLoopConfig  # what the training loop drives


class PretrainConfig(Config):
    """Everything one training of an encoder needs.

    Args:
        encoder: the architecture to train; its weights are drawn from `seed`, below.
        clip_frames: T, frames of a clip, `data.clip.frameskip` env steps apart.
        probes: how it is judged, on held-out episodes; with train.best_metric=null it is not.
    """

    data: PicturesConfig = PicturesConfig()
    encoder: TinyEncoderConfig = TinyEncoderConfig(pretrained="none")
    clip_frames: Annotated[int, Field(ge=2)] = 4
    views: ViewsConfig = ViewsConfig()
    distillation: SelfDistillationConfig = SelfDistillationConfig()
    train: PretrainLoopConfig = PretrainLoopConfig()
    probes: ProbesConfig = ProbesConfig()
    tracking: TrackingConfig = TrackingConfig()
    storage: StorageConfig = StorageConfig()
    resources: ResourcesConfig = ResourcesConfig()
    seed: NonNegativeInt = 0

    @field_validator("encoder", mode="before")
    @classmethod
    def _starts_random(cls, given: Any) -> Any:
        return {"pretrained": "none", **cast(dict[str, Any], given)} if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _is_trained_from_the_start(self) -> Self:
        if not self.encoder.is_random:
            raise ValueError(
                f"encoder.pretrained: {self.encoder.pretrained}, but training starts from random weights: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _batches_are_whole(self) -> Self:
        clips, workers = self.train.batch_size, self.resources.num_workers
        if clips % workers:
            raise ValueError(f"train.batch_size ({clips}) must be a multiple of resources.num_workers ({workers})")
        if self.train.accumulation > 1:
            raise ValueError("train.accumulation must be 1: self-distillation looks at all clips of a batch together")
        return self

    @model_validator(mode="after")
    def _judged_on_sources(self) -> Self:
        for name in (*self.probes.sources, *self.probes.worlds):
            if self.data.sources and name not in self.data.sources:
                raise ValueError(f"probes: no source is named '{name}'.{nearest(name, self.data.sources)}")
        return self

    @property
    def as_experiment(self) -> ExperimentConfig:
        """An experiment whose training clips are these: what the stream reads."""
        loop = self.train
        return ExperimentConfig(
            data=self.data,
            encoder=self.encoder,
            model=DinoWmConfig(history_len=1),
            train=TrainConfig(
                batch_size=loop.batch_size,
                epochs=loop.epochs,
                steps_per_epoch=loop.steps_per_epoch,
                rollout_horizon=self.clip_frames - 1,
            ),
            storage=self.storage,
            resources=self.resources,
            seed=self.seed,
        )

    @model_validator(mode="after")
    def _reads_pictures(self) -> Self:
        if self.data.tokens == "store":
            raise ValueError(
                "data.tokens=store reads tokens, and an encoder learns from pictures: say data.tokens=online"
            )
        for name, source in self.data.sources.items():
            if isinstance(source, PrecomputedSourceConfig):
                raise ValueError(
                    f"data.sources.{name}.kind=precomputed holds features, and an encoder learns from pictures"
                )
        return self
