"""World models and their variants: what is learned, and which loss terms train it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wm.config.base import Config, Fraction, PositiveInt
from wm.config.decoder import DecoderConfig, NoDecoder
from wm.config.masking import MaskingConfig, NoMasking
from wm.config.terms import (
    AlignmentConfig,
    CustomTerm,
    InfoNceAlignment,
    LatentDynamicsConfig,
    NoAlignment,
    NoLatentDynamics,
    NoReconstruction,
    NoTemporalDynamics,
    NoVariance,
    PredictionConfig,
    ReconstructionConfig,
    TemporalDynamicsConfig,
    VarianceConfig,
)

# `<name>_loss` is what each reports.
BUILT_IN_TERMS = (
    *("z", "z_visual", "z_proprio", "rollout", "masked", "alignment", "reconstruction"),
    *("latent_dynamics", "temporal_dynamics", "variance", "decoder"),
)


class NoProjection(Config):
    """The predictor sees raw patch tokens."""

    kind: Literal["none"] = "none"


class LinearProjection(Config):
    """P: one learned Linear per token.

    Args:
        of: `visual` projects the encoder's token, and proprio keeps channels of its own; `joint` projects [token | proprio] together,
            so that nothing of the latent is proprio alone.
        norm: `layernorm` (without affine) after it, against shrinking latents.
    """

    kind: Literal["linear"] = "linear"
    of: Literal["visual", "joint"] = "visual"
    dim: PositiveInt = 128
    norm: Literal["none", "layernorm"] = "none"


class MlpProjection(Config):
    """P: Linear, GELU, Linear per token; otherwise as `linear`."""

    kind: Literal["mlp"] = "mlp"
    of: Literal["visual", "joint"] = "visual"
    dim: PositiveInt = 128
    hidden: PositiveInt = 256
    norm: Literal["none", "layernorm"] = "none"


ProjectionConfig = Annotated[NoProjection | LinearProjection | MlpProjection, Field(discriminator="kind")]


class NoProprio(Config):
    """The model neither sees nor predicts proprioception."""

    kind: Literal["none"] = "none"


class EmbeddedProprio(Config):
    """Linear embedding of each frame's proprioception, tiled over the patches or a token of its own (`model.concat`).

    Args:
        dim: channels of the embedding; with `concat=token` it is as wide as a patch token, whatever this says.
        repeat: how often those channels are repeated in each token (the reference's num_proprio_repeat).
    """

    kind: Literal["embed"] = "embed"
    dim: PositiveInt = 10
    repeat: PositiveInt = 1


ProprioConfig = Annotated[EmbeddedProprio | NoProprio, Field(discriminator="kind")]


class ActionConfig(Config):
    """Linear embedding of the F actions after each frame; `dim` and `repeat` as for proprio."""

    dim: PositiveInt = 10
    repeat: PositiveInt = 1


class PredictorConfig(Config):
    """The causal ViT. Defaults: 20,122,600 parameters at history_len 3, 196 patches, width 404.

    Args:
        attention: `plain` is the paper's formula, written out; `fused` is torch's kernel, frame by frame, without a mask.
        checkpointing: recompute each layer's activations in the backward pass: less memory, a third more time.
    """

    depth: PositiveInt = 6
    heads: PositiveInt = 16
    head_dim: PositiveInt = 64
    mlp_dim: PositiveInt = 2048
    dropout: Fraction = 0.1
    attention: Literal["plain", "fused"] = "fused"
    checkpointing: bool = False


class DinoWmConfig(Config):
    """DINO-WM and the alignment family: one assembly, `variant` is a named preset over it (wm/config/presets, or a YAML file).

    Args:
        history_len: past frames the predictor sees, H.
        center_tokens: take the mean token of the training frames off first. A projection could hold it in its bias, but pretrained
            features share a mean far larger than their spread: then every step of P moves all latents together, faster than a
            predictor follows (LOG.md).
        concat: `channel` puts proprio and action into every patch token's channels; `token` gives each a token beside them.
        terms: loss terms from outside, by name.
        decoder: draws pictures from detached latents; it changes nothing of the world model.
    """

    kind: Literal["dino_wm"] = "dino_wm"
    variant: Annotated[str, Field(min_length=1)] = "baseline"
    history_len: PositiveInt = 3
    center_tokens: bool = False
    concat: Literal["channel", "token"] = "channel"
    projection: ProjectionConfig = NoProjection()
    proprio: ProprioConfig = EmbeddedProprio()
    action: ActionConfig = ActionConfig()
    predictor: PredictorConfig = PredictorConfig()
    masking: MaskingConfig = NoMasking()
    prediction: PredictionConfig = PredictionConfig()
    alignment: AlignmentConfig = NoAlignment()
    reconstruction: ReconstructionConfig = NoReconstruction()
    latent_dynamics: LatentDynamicsConfig = NoLatentDynamics()
    temporal_dynamics: TemporalDynamicsConfig = NoTemporalDynamics()
    variance: VarianceConfig = NoVariance()
    terms: dict[str, CustomTerm] = {}
    decoder: DecoderConfig = NoDecoder()

    @property
    def unsplittable(self) -> str | None:
        """The term, if there is one, that is no mean over clips, so that a batch cannot be computed in pieces."""
        if isinstance(self.alignment, InfoNceAlignment):
            return "model.alignment.kind=infonce"
        return None if isinstance(self.variance, NoVariance) else "model.variance.kind=hinge"

    @property
    def keeps_proprio(self) -> bool:
        """Whether the latent holds proprio apart from the visual channels."""
        is_joint = not isinstance(self.projection, NoProjection) and self.projection.of == "joint"
        return isinstance(self.proprio, EmbeddedProprio) and not is_joint

    @model_validator(mode="after")
    def _terms_fit(self) -> Self:
        if isinstance(self.projection, NoProjection):
            if not isinstance(self.reconstruction, NoReconstruction):
                raise ValueError("reconstruction.kind=features needs a projection (projection.kind=linear or mlp)")
        elif not isinstance(self.alignment, NoAlignment) and self.alignment.dim > self.projection.dim:
            raise ValueError(
                f"alignment.dim ({self.alignment.dim}) must be at most projection.dim ({self.projection.dim})"
            )
        if isinstance(self.alignment, NoAlignment) and not isinstance(self.temporal_dynamics, NoTemporalDynamics):
            raise ValueError("temporal_dynamics works on the aligned channels: it needs alignment.kind other than none")
        return self

    @model_validator(mode="after")
    def _terms_have_names_of_their_own(self) -> Self:
        for name in self.terms:
            if not name.isidentifier() or name in BUILT_IN_TERMS:
                raise ValueError(
                    f"terms.{name}: a term's name must be a word of its own, not one of {', '.join(BUILT_IN_TERMS)}"
                )
        return self

    @model_validator(mode="after")
    def _tokens_fit(self) -> Self:
        if self.concat == "token":
            repeats = [
                self.action.repeat,
                *([self.proprio.repeat] if isinstance(self.proprio, EmbeddedProprio) else []),
            ]
            if max(repeats) > 1:
                raise ValueError("concat=token has no channels to repeat: action.repeat and proprio.repeat must be 1")
            if isinstance(self.proprio, EmbeddedProprio) and not self.keeps_proprio:
                raise ValueError("concat=token keeps proprio a token of its own: projection.of must be visual")
        return self


ModelConfig = DinoWmConfig
