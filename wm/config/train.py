"""How a model is trained, and how it is judged while it trains."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from wm.config.base import Config, Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from wm.config.decoder import NoPerceptual, PerceptualConfig
from wm.config.schedule import ConstantSchedule, ScalarSchedule


class OptimizerConfig(Config):
    """AdamW by part of the model (SCIENCE section 1).

    Args:
        schedule: multiplies every rate over training.
        grad_clip_norm: largest norm of the world model's gradients together, and of the decoder's; or None.
    """

    predictor_lr: PositiveFloat = 5e-4
    embedding_lr: PositiveFloat = 5e-4  # action and proprio embeddings
    head_lr: PositiveFloat = 5e-4  # projection, and what loss terms learn
    decoder_lr: PositiveFloat = 3e-4  # without weight decay: Adam, as the reference
    schedule: ScalarSchedule = ConstantSchedule()
    weight_decay: NonNegativeFloat = 0.01
    grad_clip_norm: PositiveFloat | None = None


class OneRateConfig(Config):
    """AdamW at one rate, for networks that are trained as a whole.

    Args:
        schedule: multiplies the rate over training.
        weight_decay: of matrices; biases, norms and scales have none.
    """

    lr: PositiveFloat = 1e-3
    schedule: ScalarSchedule = ConstantSchedule()
    weight_decay: NonNegativeFloat = 0.04
    grad_clip_norm: PositiveFloat | None = 1.0


AnyOptimizerConfig = OptimizerConfig | OneRateConfig


class ResolutionStage(Config):
    """A stretch of training on smaller pictures.

    Args:
        size: side in pixels of what the encoder's network sees (dinov2: instead of encode_size; others: image_size).
        until: fraction of training at which it ends.
    """

    size: PositiveInt
    until: Annotated[float, Field(gt=0, lt=1)]


class LoopConfig(Config):
    """Batches and bookkeeping of any training.

    Args:
        batch_size: clips of a global batch, over all workers.
        accumulation: pieces into which a worker splits its part of the batch, one after another; their gradients add up to the
            whole batch's. A term that looks at all clips together (InfoNCE, variance) is refused.
        precision: of the networks' forward and backward passes; weights, optimiser, losses and validation stay in float32.
        compile: torch.compile of the predictor, for training steps alone.
        deterministic: only kernels that give the same bits every time on one machine; slower on a GPU.
        steps_per_epoch: None means as many clips as there are: with no data.mixture, each once.
        log_gradient_norms: at each row of metrics, the norm of each weighted term's gradient (`train/grad_norm/<term>`, of the
            main worker's clips) and of the step's (`train/grad_norm`, before clipping).
        ema_decay: 0 keeps no average; otherwise validation and planning use the averaged weights.
        checkpoint_every_steps: also at every epoch's end.
        validate_every_epochs: latent metrics on held-out clips; the last epoch is always validated.
        num_threads: torch threads of a CPU worker: part of what makes two runs the same bit for bit.
        best_metric: validation metric whose best checkpoint is kept beside the newest ones; None is the copy ratio at the middle
            one of evaluate.horizons.
    """

    batch_size: PositiveInt = 32
    accumulation: PositiveInt = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    deterministic: bool = False
    epochs: PositiveInt = 100
    steps_per_epoch: PositiveInt | None = None
    log_gradient_norms: bool = False
    ema_decay: Fraction = 0.0
    checkpoint_every_steps: PositiveInt = 500
    keep_checkpoints: PositiveInt = 2
    best_metric: Annotated[str, Field(pattern="^val/")] | None = None
    best_mode: Literal["min", "max"] = "min"
    validate_every_epochs: PositiveInt = 1
    num_threads: PositiveInt = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="after")
    def _average_moves(self) -> Self:
        if self.ema_decay == 1.0:
            raise ValueError("ema_decay must be below 1: at 1 the average never moves")
        return self


class TrainConfig(LoopConfig):
    """Length, batches and bookkeeping of one run of a world model.

    Args:
        rollout_horizon: k of the multi-step loss; 1 is teacher forcing alone.
        resolution: progressive resolution: sizes of the pictures that training begins with, one after another; from the last
            `until` on, and whenever the model is judged or plans, the encoder's own size. Tokens of each size are stored apart,
            and the predictor's positions, which belong to the own size, are resized to the grid at hand.
        start: hash of a finished run under storage.root/runs, whose weights (the averaged ones, where it keeps some) training begins
            with, at step 0 with a fresh optimiser. Units, model and encoder stay that run's. None draws weights anew.
    """

    start: str | None = None
    rollout_horizon: PositiveInt = 1
    resolution: tuple[ResolutionStage, ...] = ()
    optimizer: OptimizerConfig = OptimizerConfig()

    def size_at(self, progress: float) -> int | None:
        """Side of the pictures at `progress` in [0, 1] of training; None is the encoder's own."""
        return next((stage.size for stage in self.resolution if progress < stage.until), None)

    @field_validator("start")
    @classmethod
    def _is_a_hash(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch("[0-9a-f]{12}", value):
            raise ValueError(
                f"expected a run's 12 hex digits, the name of its folder under storage.root/runs, got '{value}'"
            )
        return value

    @model_validator(mode="after")
    def _stages_in_order(self) -> Self:
        ends = [stage.until for stage in self.resolution]
        if any(later <= earlier for earlier, later in pairwise(ends)):
            raise ValueError(f"resolution: each stage must end after the one before it, got until={ends}")
        return self


class EvaluateGrid(Config):
    """Planning evaluations: one metric for each goal horizon, `plan/success_rate_gh5`; none where there is no world to plan in."""

    goal_horizons: tuple[PositiveInt, ...] = (5,)


class EvaluateConfig(Config):
    """What is measured, on held-out episodes.

    Args:
        horizons: model steps ahead at which latent error and copy ratio are taken.
        clips: held-out clips used for latent metrics; so many with actions and so many without, where the data hold both.
        probe_clips: clips used to fit the state probe.
        perceptual: LPIPS of decoded pictures in `wm eval`; training measures none.
    """

    horizons: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 5, 10)
    clips: PositiveInt = 128
    probe_clips: PositiveInt = 512
    seed: NonNegativeInt = 0
    grid: EvaluateGrid = EvaluateGrid()
    perceptual: PerceptualConfig = NoPerceptual()
