"""World models and their variants. Each loss term has one config class here and one file in wm/losses."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wm.config.base import Config, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt
from wm.config.schedule import ConstantSchedule, ScalarSchedule

VariantName = Literal["baseline", "align", "align_recon"]


class NoProjection(Config):
    """The predictor sees raw patch tokens."""

    kind: Literal["none"] = "none"


class LinearProjection(Config):
    """P: one learned Linear per token, encoder dim -> dim.

    Args:
        norm: `layernorm` (without affine) after it, against shrinking latents.
    """

    kind: Literal["linear"] = "linear"
    dim: PositiveInt = 128
    norm: Literal["none", "layernorm"] = "none"


class MlpProjection(Config):
    """P: Linear, GELU, Linear per token."""

    kind: Literal["mlp"] = "mlp"
    dim: PositiveInt = 128
    hidden: PositiveInt = 256
    norm: Literal["none", "layernorm"] = "none"


ProjectionConfig = Annotated[NoProjection | LinearProjection | MlpProjection, Field(discriminator="kind")]


class NoProprio(Config):
    """The model neither sees nor predicts proprioception."""

    kind: Literal["none"] = "none"


class EmbeddedProprio(Config):
    """Linear embedding of each frame's proprioception, tiled over the patches."""

    kind: Literal["embed"] = "embed"
    dim: PositiveInt = 10


ProprioConfig = Annotated[EmbeddedProprio | NoProprio, Field(discriminator="kind")]


class ActionConfig(Config):
    """Linear embedding of the F actions after each frame, tiled over the patches."""

    dim: PositiveInt = 10


class PredictorConfig(Config):
    """The causal ViT. Defaults: 20,122,600 parameters at history_len 3, 196 patches, width 404."""

    depth: PositiveInt = 6
    heads: PositiveInt = 16
    head_dim: PositiveInt = 64
    mlp_dim: PositiveInt = 2048
    dropout: Fraction = 0.1
    attention: Literal["plain", "fused"] = "fused"


class NoAlignment(Config):
    """No loss ties latents to the state."""

    kind: Literal["none"] = "none"


class _Alignment(Config):
    """Patch mean of the first `dim` visual channels, mapped by a learned W to the normalised state.

    Args:
        state_keys: names of the state entries to align with; empty means all.
        dim: how many leading channels are aligned.
        on_predicted: predicted latents against the next state.
        on_encoded: encoded latents against the current state.
    """

    state_keys: tuple[str, ...] = ()
    dim: PositiveInt = 7
    weight: ScalarSchedule = ConstantSchedule()
    on_predicted: bool = True
    on_encoded: bool = True

    @model_validator(mode="after")
    def _aligns_something(self) -> Self:
        if not (self.on_predicted or self.on_encoded):
            raise ValueError("at least one of on_predicted and on_encoded must be true (or kind: none)")
        return self


class StateMseAlignment(_Alignment):
    """|| W z - s ||^2, a direct reconstruction of the state."""

    kind: Literal["state_mse"] = "state_mse"


class InfoNceAlignment(_Alignment):
    """InfoNCE between W z and s over all B x T pairs of the batch.

    Args:
        temperature: divides the similarities.
        similarity: `cosine` discards the radius (a warning below 4 state entries); `neg_l2` keeps it.
        regularization: times ||W||^2, added.
    """

    kind: Literal["infonce"] = "infonce"
    temperature: PositiveFloat = 0.1
    similarity: Literal["cosine", "neg_l2"] = "cosine"
    regularization: NonNegativeFloat = 0.0


AlignmentConfig = Annotated[NoAlignment | StateMseAlignment | InfoNceAlignment, Field(discriminator="kind")]


class NoReconstruction(Config):
    """Projected latents need not explain the encoder's tokens."""

    kind: Literal["none"] = "none"


class FeatureReconstruction(Config):
    """Linear projected -> encoder dim, MSE against the frozen tokens, gradient into P."""

    kind: Literal["features"] = "features"
    weight: ScalarSchedule = ConstantSchedule()


ReconstructionConfig = Annotated[NoReconstruction | FeatureReconstruction, Field(discriminator="kind")]


class DinoWmConfig(Config):
    """DINO-WM and the alignment family: one assembly, `variant` is a named preset over it (wm/config/presets).

    Args:
        history_len: past frames the predictor sees, H.
    """

    kind: Literal["dino_wm"] = "dino_wm"
    variant: VariantName = "baseline"
    history_len: PositiveInt = 3
    projection: ProjectionConfig = NoProjection()
    proprio: ProprioConfig = EmbeddedProprio()
    action: ActionConfig = ActionConfig()
    predictor: PredictorConfig = PredictorConfig()
    alignment: AlignmentConfig = NoAlignment()
    reconstruction: ReconstructionConfig = NoReconstruction()

    @model_validator(mode="after")
    def _terms_fit(self) -> Self:
        if isinstance(self.projection, NoProjection):
            if not isinstance(self.reconstruction, NoReconstruction):
                raise ValueError("reconstruction.kind=features needs a projection (projection.kind=linear or mlp)")
        elif not isinstance(self.alignment, NoAlignment) and self.alignment.dim > self.projection.dim:
            raise ValueError(
                f"alignment.dim ({self.alignment.dim}) must be at most projection.dim ({self.projection.dim})"
            )
        return self


ModelConfig = DinoWmConfig
