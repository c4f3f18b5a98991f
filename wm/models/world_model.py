"""DINO-WM and its alignment family: one assembly, switches of the config.

Shape legend: B batch, T frames, P patch tokens, D token dim, V visual channels, C content channels = V + proprio, A F action.
A latent without its action channels is called content; the predictor sees [content | action] and predicts content.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wm.config.errors import UserError, nearest
from wm.config.model import DinoWmConfig, EmbeddedProprio, InfoNceAlignment, NoAlignment, NoReconstruction
from wm.config.schedule import value_at
from wm.losses.alignment import infonce_loss, state_mse_loss
from wm.losses.prediction import prediction_loss
from wm.losses.reconstruction import reconstruction_loss
from wm.models.embedding import VectorEmbedding, tile
from wm.models.predictor import CausalPredictor
from wm.models.projection import build_projection
from wm.types import Batch, LossTerms, Observation


class WorldModel(nn.Module):
    """encode + predict + rollout, and the losses that train them. Every parameter is learned; the encoder is not in here.

    Args:
        token_dim: D of the frozen encoder.
        tokens_per_frame: P.
        action_dim: A F, one model action.
        proprio_dim: 0 when the data has none.
        state_names: names of the state entries, for `alignment.state_keys`.
        rollout_horizon: steps in the loss.
    """

    def __init__(
        self,
        config: DinoWmConfig,
        *,
        token_dim: int,
        tokens_per_frame: int,
        action_dim: int,
        proprio_dim: int = 0,
        state_names: Sequence[str] = (),
        rollout_horizon: int = 1,
    ) -> None:
        super().__init__()
        self.config = config
        self.token_dim = token_dim
        self.tokens_per_frame = tokens_per_frame
        self.action_dim = action_dim
        self.history_len = config.history_len
        self.rollout_horizon = rollout_horizon
        self.projection, self.visual_dim = build_projection(config.projection, token_dim)
        self.proprio_embedding = self._proprio_embedding(proprio_dim)
        self.content_dim = self.visual_dim + (self.proprio_embedding.dim if self.proprio_embedding else 0)
        self.action_embedding = VectorEmbedding(action_dim, config.action.dim)
        width = self.content_dim + config.action.dim
        self.predictor = CausalPredictor(width, tokens_per_frame, config.history_len, config.predictor)
        self.state_indices = self._state_indices(state_names)
        self.alignment_head = self._alignment_head()
        needs_reconstruction = not isinstance(config.reconstruction, NoReconstruction)
        self.reconstruction_head = nn.Linear(self.visual_dim, token_dim) if needs_reconstruction else None

    # -- latents ------------------------------------------------------------------------------------------------------

    def encode_content(self, obs: Observation) -> Float[Tensor, "B T P C"]:
        """Patch tokens (and proprio) of each frame as [visual | proprio] channels. Raises ValueError for pixels."""
        if obs.is_pixels:
            raise ValueError("the world model takes patch tokens; encode pixels with the encoder first")
        visual = self.projection(obs.visual)
        if self.proprio_embedding is None:
            return visual
        if obs.proprio is None:
            batch, frames = visual.shape[:2]
            proprio = self.proprio_embedding.null.expand(batch, frames, -1)
        else:
            proprio = self.proprio_embedding(obs.proprio)
        return torch.cat([visual, tile(proprio, visual.shape[2])], dim=-1)

    def with_actions(
        self,
        content: Float[Tensor, "B T P C"],
        actions: Float[Tensor, "B T A"],
        has_actions: Bool[Tensor, "B"] | None = None,
    ) -> Float[Tensor, "B T P Z"]:
        """[content | action]; rows without actions get the learned null action."""
        embedded = self.action_embedding(actions, has_actions)
        return torch.cat([content, tile(embedded, content.shape[2])], dim=-1)

    def encode(self, obs: Observation, actions: Float[Tensor, "B T A"]) -> Float[Tensor, "B T P Z"]:
        """The latent z of frames and the actions that follow them."""
        return self.with_actions(self.encode_content(obs), actions)

    def predict(self, latent: Float[Tensor, "B T P Z"]) -> Float[Tensor, "B T P C"]:
        """Content of each next frame: slot k holds frame k + 1."""
        return self.predictor(latent)[..., : self.content_dim]

    def rollout(
        self,
        context: Float[Tensor, "B N P C"],
        actions: Float[Tensor, "B L A"],
        has_actions: Bool[Tensor, "B"] | None = None,
    ) -> Float[Tensor, "B H P C"]:
        """Content of the H = L - N + 1 frames after N context frames, each step fed the model's own last H predictions.

        Args:
            actions: of the context frames, then of the imagined ones; the first N - 1 led through the context.
        """
        frames = context.shape[1]
        latent = self.with_actions(context, actions[:, :frames], has_actions)
        first = self.predict(latent[:, -self.history_len :])[:, -1:]
        return self._continue(latent, first, actions, has_actions)

    def _continue(
        self, latent: Tensor, first: Tensor, actions: Tensor, has_actions: Tensor | None
    ) -> Float[Tensor, "B H P C"]:
        """The rollout of a context latent whose next content is predicted already."""
        imagined = [first]
        for step in range(latent.shape[1], actions.shape[1]):
            nxt = self.with_actions(imagined[-1], actions[:, step : step + 1], has_actions)
            latent = torch.cat([latent, nxt], dim=1)
            imagined.append(self.predict(latent[:, -self.history_len :])[:, -1:])
        return torch.cat(imagined, dim=1)

    def aligned(self, content: Float[Tensor, "B T P C"]) -> Float[Tensor, "B T K"]:
        """Patch mean of the aligned channels: the first `alignment.dim` of the visual ones."""
        dim = 7 if isinstance(self.config.alignment, NoAlignment) else self.config.alignment.dim
        return content[..., : min(dim, self.visual_dim)].mean(dim=2)

    # -- losses -------------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, progress: float = 0.0) -> LossTerms:
        """Every term of the variant, weighted by its schedule at `progress` in [0, 1] of training."""
        content = self.encode_content(batch.obs)
        latent = self.with_actions(content, batch.actions, batch.has_actions)
        history = self.history_len
        predicted = self.predict(latent[:, :history])
        target = content[:, 1 : history + 1]
        parts = {"z_loss": prediction_loss(predicted, target, batch.weights)}
        weighted = {"z_loss": parts["z_loss"]}
        with torch.no_grad():
            visual = self.visual_dim
            parts["z_visual_loss"] = prediction_loss(predicted[..., :visual], target[..., :visual], batch.weights)
        if self.rollout_horizon > 1:
            parts["rollout_loss"] = self._rollout_loss(content, latent, predicted, batch)
            weighted["rollout_loss"] = parts["rollout_loss"]
        alignment = self.config.alignment
        if not isinstance(alignment, NoAlignment):
            parts["alignment_loss"] = self._alignment_loss(content, predicted, batch)
            weighted["alignment_loss"] = value_at(alignment.weight, progress) * parts["alignment_loss"]
        reconstruction = self.config.reconstruction
        if not isinstance(reconstruction, NoReconstruction) and self.reconstruction_head is not None:
            rebuilt = self.reconstruction_head(content[..., : self.visual_dim])
            parts["reconstruction_loss"] = reconstruction_loss(rebuilt, batch.obs.visual, batch.weights)
            weighted["reconstruction_loss"] = value_at(reconstruction.weight, progress) * parts["reconstruction_loss"]
        return LossTerms(weighted, {name: value.detach() for name, value in parts.items()})

    def _rollout_loss(self, content: Tensor, latent: Tensor, predicted: Tensor, batch: Batch) -> Tensor:
        """Sum of MSEs of the rolled-out steps 2..k, gradient through the rollout, whose first step is the teacher-forced one."""
        history, horizon = self.history_len, self.rollout_horizon
        actions = batch.actions[:, : history + horizon - 1]
        imagined = self._continue(latent[:, :history], predicted[:, -1:], actions, batch.has_actions)
        target = content[:, history : history + horizon]
        steps = [
            prediction_loss(imagined[:, k : k + 1], target[:, k : k + 1], batch.weights) for k in range(1, horizon)
        ]
        return torch.stack(steps).sum()

    def _alignment_loss(self, content: Tensor, predicted: Tensor, batch: Batch) -> Tensor:
        config = self.config.alignment
        if isinstance(config, NoAlignment) or self.alignment_head is None:
            raise RuntimeError("this variant has no alignment head")
        if batch.state is None:
            return content.sum() * 0
        state = batch.state[..., self.state_indices]
        pairs: list[tuple[Tensor, Tensor]] = []
        if config.on_predicted:
            pairs.append((predicted, state[:, 1 : self.history_len + 1]))
        if config.on_encoded:
            pairs.append((content, state))
        losses: list[Tensor] = []
        for latents, states in pairs:
            readout = self.alignment_head(self.aligned(latents)).flatten(0, 1)
            rows = (batch.weights * batch.has_state)[:, None].expand(states.shape[:2]).flatten()
            if isinstance(config, InfoNceAlignment):
                loss = infonce_loss(readout, states.flatten(0, 1), rows, config.temperature, config.similarity)
                loss = loss + config.regularization * self.alignment_head.weight.square().sum()
            else:
                loss = state_mse_loss(readout, states.flatten(0, 1), rows)
            losses.append(loss)
        return torch.stack(losses).mean()

    # -- assembly -----------------------------------------------------------------------------------------------------

    def _proprio_embedding(self, proprio_dim: int) -> VectorEmbedding | None:
        if not isinstance(self.config.proprio, EmbeddedProprio):
            return None
        if proprio_dim == 0:
            raise UserError("model.proprio.kind: 'embed', but the data has no proprio; say model.proprio=none")
        return VectorEmbedding(proprio_dim, self.config.proprio.dim)

    def _state_indices(self, state_names: Sequence[str]) -> list[int]:
        alignment = self.config.alignment
        if isinstance(alignment, NoAlignment):
            return []
        if not state_names:
            raise UserError("model.alignment: the data has no state to align with; say model.alignment=none")
        for key in alignment.state_keys:
            if key not in state_names:
                raise UserError(f"model.alignment.state_keys: the data has no '{key}'.{nearest(key, state_names)}")
        return [state_names.index(key) for key in alignment.state_keys or state_names]

    def _alignment_head(self) -> nn.Linear | None:
        alignment = self.config.alignment
        if isinstance(alignment, NoAlignment):
            return None
        if alignment.dim > self.visual_dim:
            raise UserError(f"model.alignment.dim: {alignment.dim} is more than the {self.visual_dim} visual channels")
        return nn.Linear(alignment.dim, len(self.state_indices))
