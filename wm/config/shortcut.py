"""Shortcut forcing on frozen patch tokens: the Dreamer-4-style model, and its teacher-forced ablation."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from wm.config.backbone import BackboneConfig
from wm.config.base import Config, Fraction, PositiveInt
from wm.config.decoder import DecoderConfig, NoDecoder
from wm.config.errors import UserError
from wm.config.forcing import ForcingConfig
from wm.config.model import NoProprio

# What the backbone computes from its weights. One more whenever that changes, or old weights would run as another model.
NETWORK = 2  # 1: label and action were tokens alone


class TeacherForcingConfig(Config):
    """The ablation: the same backbone sees clean frames and their actions, and predicts each next frame in one pass."""

    kind: Literal["teacher"] = "teacher"


class ShortcutActionConfig(Config):
    """The action's way into a frame's tokens: Linear, SiLU, Linear; one learned null action stands for what is not known.

    Args:
        hidden: channels between the two.
        dropout: share of the labelled clips that are trained without their actions, so that the model also knows clips without.
    """

    hidden: PositiveInt = 128
    dropout: Fraction = 0.1


class LengthStage(Config):
    """A stretch of training on shorter clips.

    Args:
        frames: of a clip.
        until: fraction of training at which it ends.
    """

    frames: Annotated[int, Field(ge=2)]
    until: Annotated[float, Field(gt=0, lt=1)]


class ShortcutConfig(Config):
    """A block-causal transformer over [registers | patch tokens | shortcut | action], trained to denoise frames.

    Args:
        variant: what runs and tables call it.
        history_len: frames that it is judged and planned from; at most clip_frames - 1.
        clip_frames: frames of a training clip, T.
        lengths: shorter clips that training begins with, one after another; from the last `until` on, clip_frames.
        sampling_steps: K, denoising steps of a frame where nothing else is said; divides forcing.k_max.
        noise_seed: of the noise that rollouts start from: the same for every sample and problem, so that plans differ by their
            actions alone.
        proprio: always none: the model sees frames and actions.
    """

    kind: Literal["shortcut"] = "shortcut"
    variant: Annotated[str, Field(min_length=1)] = "shortcut"
    history_len: PositiveInt = 3
    clip_frames: Annotated[int, Field(ge=2)] = 64
    lengths: tuple[LengthStage, ...] = ()
    sampling_steps: PositiveInt = 4
    noise_seed: Annotated[int, Field(ge=0)] = 0
    backbone: BackboneConfig = BackboneConfig()
    forcing: Annotated[ForcingConfig | TeacherForcingConfig, Field(discriminator="kind")] = ForcingConfig()
    action: ShortcutActionConfig = ShortcutActionConfig()
    proprio: NoProprio = NoProprio()
    decoder: DecoderConfig = NoDecoder()

    @property
    def unsplittable(self) -> str | None:
        """No term looks at all clips of a batch together."""
        return None

    @property
    def k_max(self) -> int:
        """Signal levels of the backbone's labels; without noise there is one."""
        return self.forcing.k_max if isinstance(self.forcing, ForcingConfig) else 1

    @property
    def keeps_proprio(self) -> bool:
        """Latents hold patch tokens alone."""
        return False

    def frames_at(self, progress: float) -> int:
        """Frames of a training clip at `progress` in [0, 1] of training."""
        return next((stage.frames for stage in self.lengths if progress < stage.until), self.clip_frames)

    @model_validator(mode="after")
    def _lengths_in_order(self) -> Self:
        ends = [stage.until for stage in self.lengths]
        if any(later <= earlier for earlier, later in pairwise(ends)):
            raise ValueError(f"lengths: each stage must end after the one before it, got until={ends}")
        longest = max((stage.frames for stage in self.lengths), default=0)
        if longest > self.clip_frames:
            raise ValueError(f"lengths: {longest} frames are more than clip_frames ({self.clip_frames})")
        return self

    @model_validator(mode="after")
    def _frames_fit(self) -> Self:
        if self.history_len >= self.clip_frames:
            raise ValueError(f"history_len ({self.history_len}) must be below clip_frames ({self.clip_frames})")
        window = self.backbone.window
        if window is not None and self.history_len >= window:
            raise ValueError(f"history_len ({self.history_len}) must be below backbone.window ({window})")
        return self

    @model_validator(mode="after")
    def _steps_divide_the_grid(self) -> Self:
        if isinstance(self.forcing, ForcingConfig) and self.forcing.k_max % self.sampling_steps:
            raise ValueError(f"sampling_steps ({self.sampling_steps}) must divide forcing.k_max ({self.forcing.k_max})")
        return self


def check_network(facts: Mapping[str, Any]) -> None:
    """Raises UserError for the facts of a checkpoint whose backbone computed something else from its weights."""
    trained = facts.get("network", 1)
    if trained != NETWORK:
        raise UserError(
            f"this shortcut model was trained with network {trained}, and this version of wm computes network {NETWORK} from its "
            "weights: train it again"
        )
