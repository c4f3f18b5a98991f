"""The loss terms of a world model: which of them a variant has, on what, and with what weight.

Shape legend: B batch, T frames, H history, C channels, N tokens of a frame's content: P patches, and with concat=token a proprio.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wm.config.masking import NoMasking
from wm.config.schedule import value_at
from wm.config.terms import (
    InfoNceAlignment,
    NoAlignment,
    NoLatentDynamics,
    NoReconstruction,
    NoTemporalDynamics,
    NoVariance,
)
from wm.losses.alignment import infonce_loss, state_mse_loss
from wm.losses.dynamics import mean_latent_loss, vector_loss
from wm.losses.prediction import latent_errors, prediction_loss
from wm.losses.ranks import ALONE, Alone, weighted_mean
from wm.losses.reconstruction import reconstruction_loss
from wm.losses.variance import variance_loss
from wm.models.decoder import target_images
from wm.types import Batch, LossTerms

if TYPE_CHECKING:
    from wm.models.world_model import WorldModel


@dataclass(frozen=True)
class Forward:
    """What one training pass computed.

    Args:
        content: every frame of the clip, encoded.
        latent: of the H frames that the predictor saw, with their actions.
        predicted: content of the frames after those.
        target: `content` at those frames; losses detach it.
        hidden: patches that were masked in the predictor's input, or None.
    """

    batch: Batch
    content: Float[Tensor, "B T N C"]
    latent: Tensor
    predicted: Float[Tensor, "B H N C"]
    target: Float[Tensor, "B H N C"]
    hidden: Bool[Tensor, "B H P"] | None = None
    ranks: Alone = ALONE


class ExtraTerm(Protocol):
    """A term from outside: an nn.Module made as `target(model, **config)`. Its parameters are trained with the model's heads.

    It must not keep `model`: that would make the model a part of itself.
    """

    def __call__(self, model: WorldModel, forward: Forward) -> Tensor:
        """The scalar to minimise."""
        ...


def loss_terms(model: WorldModel, forward: Forward, progress: float) -> LossTerms:
    """Every term of the variant, weighted by its schedule at `progress` in [0, 1] of training."""
    config = model.config
    kind, weight = config.prediction.loss, value_at(config.prediction.weight, progress)
    weights, ranks = forward.batch.weights, forward.ranks
    parts: dict[str, Tensor] = {}
    weighted: dict[str, Tensor] = {}

    def add(name: str, value: Tensor, weight: float) -> None:
        parts[name], weighted[name] = value, weight * value

    add("z_loss", prediction_loss(forward.predicted, forward.target, weights, kind, ranks), weight)
    with torch.no_grad():
        parts |= _watched(model, forward)
    if model.rollout_horizon > 1:
        add("rollout_loss", rollout_loss(model, forward), weight)
    if not isinstance(config.masking, NoMasking) and forward.hidden is not None:
        add("masked_loss", masked_loss(model, forward), value_at(config.masking.weight, progress))
    if not isinstance(config.alignment, NoAlignment):
        add("alignment_loss", alignment_loss(model, forward), value_at(config.alignment.weight, progress))
    if not isinstance(config.reconstruction, NoReconstruction) and model.reconstruction_head is not None:
        rebuilt = model.reconstruction_head(model.visual(forward.content))
        rebuilt = rebuilt if model.token_center is None else model.token_center.undo(rebuilt)
        value = reconstruction_loss(rebuilt, forward.batch.obs.visual, weights, ranks)
        add("reconstruction_loss", value, value_at(config.reconstruction.weight, progress))
    if not isinstance(config.latent_dynamics, NoLatentDynamics):
        value = mean_latent_loss(model.visual(forward.predicted), model.visual(forward.target), weights, ranks)
        add("latent_dynamics_loss", value, value_at(config.latent_dynamics.weight, progress))
    if not isinstance(config.temporal_dynamics, NoTemporalDynamics):
        value = temporal_dynamics_loss(model, forward)
        add("temporal_dynamics_loss", value, value_at(config.temporal_dynamics.weight, progress))
    if not isinstance(config.variance, NoVariance):
        value = variance_loss(model.visual(forward.content), config.variance.target)
        add("variance_loss", value, value_at(config.variance.weight, progress))
    if model.decoder is not None and model.decoder_loss is not None:
        found = decoder_losses(model, forward)
        parts |= {f"{name}_reconstructed": value for name, value in found.items()}
        weighted["decoder_loss_reconstructed"] = found["decoder_loss"]
    for name, term in model.terms.items():
        add(f"{name}_loss", term(model, forward), value_at(config.terms[name].weight, progress))
    detached = {name: value.detach() for name, value in parts.items()}
    return LossTerms(weighted, detached, label={"alignment_loss": "state"})


def _watched(model: WorldModel, forward: Forward) -> dict[str, Tensor]:
    """The prediction loss of each modality: reported, never differentiated. Means of their own, so they do not add up to z_loss."""
    kind, weights = model.config.prediction.loss, forward.batch.weights
    found = {"z_visual_loss": (model.visual(forward.predicted), model.visual(forward.target))}
    proprio, target = model.proprio(forward.predicted), model.proprio(forward.target)
    if proprio is not None and target is not None:
        found["z_proprio_loss"] = (proprio, target)
    return {name: prediction_loss(*pair, weights, kind, forward.ranks) for name, pair in found.items()}


def rollout_loss(model: WorldModel, forward: Forward) -> Float[Tensor, ""]:
    """Sum of the prediction losses of steps 2..k, gradient through the rollout, whose first step is the teacher-forced one.

    Source: SCIENCE section 1 (multi-step loss).
    """
    batch, history, horizon = forward.batch, model.history_len, model.rollout_horizon
    actions = batch.actions[:, : history + horizon - 1]
    imagined = model.continue_rollout(forward.latent, forward.predicted[:, -1:], actions, batch.has_actions)
    target = forward.content[:, history : history + horizon]
    kind = model.config.prediction.loss
    steps = [
        prediction_loss(imagined[:, k : k + 1], target[:, k : k + 1], batch.weights, kind, forward.ranks)
        for k in range(1, horizon)
    ]
    return torch.stack(steps).sum()


def masked_loss(model: WorldModel, forward: Forward) -> Float[Tensor, ""]:
    """Prediction error of the visual tokens whose place was hidden a frame earlier."""
    if forward.hidden is None:
        raise ValueError("nothing was hidden in this pass")
    patches = forward.hidden.shape[2]
    predicted, target = forward.predicted[:, :, :patches], forward.target[:, :, :patches].detach()
    errors = latent_errors(predicted, target, model.config.prediction.loss)
    weights = forward.hidden * forward.batch.weights[:, None, None]
    return weighted_mean(errors.flatten(), weights.flatten(), forward.ranks)


def alignment_loss(model: WorldModel, forward: Forward) -> Float[Tensor, ""]:
    """The mean of: predicted latents against the next state, encoded latents against the current one, whichever are on.

    Rows without a state count for nothing.
    """
    config, batch = model.config.alignment, forward.batch
    if isinstance(config, NoAlignment) or model.alignment_head is None:
        raise ValueError("this variant has no alignment head")
    if batch.state is None:
        return forward.content.sum() * 0
    state = batch.state[..., model.state_indices]
    pairs: list[tuple[Tensor, Tensor]] = []
    if config.on_predicted:
        pairs.append((forward.predicted, state[:, 1 : model.history_len + 1]))
    if config.on_encoded:
        pairs.append((forward.content, state))
    losses: list[Tensor] = []
    for latents, states in pairs:
        readout = model.alignment_head(model.aligned(latents)).flatten(0, 1)
        rows = (batch.weights * batch.has_state)[:, None].expand(states.shape[:2]).flatten()
        truth = states.flatten(0, 1)
        if isinstance(config, InfoNceAlignment):
            loss = infonce_loss(readout, truth, rows, config.temperature, config.similarity, forward.ranks)
            loss = loss + config.regularization * model.alignment_head.weight.square().sum()
        else:
            loss = state_mse_loss(readout, truth, rows, forward.ranks)
        losses.append(loss)
    return torch.stack(losses).mean()


def temporal_dynamics_loss(model: WorldModel, forward: Forward) -> Float[Tensor, ""]:
    """|| g(o_{t-1}, a_{t-1}) - o_t ||^2 on the aligned channels of encoded frames, the target detached."""
    if model.transition_head is None:
        raise ValueError("this variant has no transition head")
    batch, aligned = forward.batch, model.aligned(forward.content)
    actions = model.action_embedding(batch.actions, batch.has_actions)
    predicted = model.transition_head(aligned[:, :-1], actions[:, :-1])
    return vector_loss(predicted, aligned[:, 1:], batch.weights, forward.ranks)


def decoder_losses(model: WorldModel, forward: Forward) -> dict[str, Tensor]:
    """What the decoder learns from: pictures of every encoded frame, its latent detached."""
    if forward.batch.images is None or model.decoder is None or model.decoder_loss is None:
        raise ValueError("a model with a decoder is trained on batches with images")
    images = target_images(forward.batch.images, model.decoder.image_size)
    visual = model.visual(forward.content)
    return model.decoder_loss(model.decoder, visual, images, forward.batch.weights, forward.ranks)
