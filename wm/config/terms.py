"""Loss terms of the world models. Each has one config class here and one file in wm/losses."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from wm.config.base import Config, NonNegativeFloat, PositiveFloat, PositiveInt
from wm.config.schedule import ConstantSchedule, ScalarSchedule


class PredictionConfig(Config):
    """How far predicted content is from the next frames' own: visual and proprio channels together.

    Args:
        loss: of DINO-WM is mse; see wm/losses/prediction.py for the others.
        weight: of the teacher-forced step and of every rolled-out one (`train.rollout_horizon`).
    """

    loss: Literal["mse", "l1", "smooth_l1", "cosine"] = "mse"
    weight: ScalarSchedule = ConstantSchedule()


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
    """InfoNCE between W z and s over all B x T pairs of the global batch.

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


class NoLatentDynamics(Config):
    """Only tokens are compared."""

    kind: Literal["none"] = "none"


class MeanLatentDynamics(Config):
    """MSE between the patch mean of the predicted latent and that of the encoded next frame."""

    kind: Literal["patch_mean"] = "patch_mean"
    weight: ScalarSchedule = ConstantSchedule()


LatentDynamicsConfig = Annotated[NoLatentDynamics | MeanLatentDynamics, Field(discriminator="kind")]


class NoTemporalDynamics(Config):
    """The aligned channels have no transition model of their own."""

    kind: Literal["none"] = "none"


class TransitionDynamics(Config):
    """g(o_{t-1}, a_{t-1}) -> o_t on the aligned channels o: an MLP with one hidden layer, MSE.

    Args:
        hidden: its width.
    """

    kind: Literal["transition"] = "transition"
    hidden: PositiveInt = 128
    weight: ScalarSchedule = ConstantSchedule()


TemporalDynamicsConfig = Annotated[NoTemporalDynamics | TransitionDynamics, Field(discriminator="kind")]


class NoVariance(Config):
    """Nothing holds the latents' spread up but the other terms."""

    kind: Literal["none"] = "none"


class HingeVariance(Config):
    """mean_c max(0, target - std_c) over the encoded visual channels.

    Args:
        target: standard deviation that costs nothing.
    """

    kind: Literal["hinge"] = "hinge"
    target: PositiveFloat = 1.0
    weight: ScalarSchedule = ConstantSchedule()


VarianceConfig = Annotated[NoVariance | HingeVariance, Field(discriminator="kind")]


class CustomTerm(Config):
    """A loss term from outside this repository (CONTRIBUTING shows one).

    Args:
        target: module:name of an nn.Module that obeys wm.models.terms.ExtraTerm.
        config: its own arguments.
    """

    kind: Literal["custom"] = "custom"
    target: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
    config: dict[str, Any] = {}
    weight: ScalarSchedule = ConstantSchedule()
