"""DINO-WM and its alignment family: one assembly, switches of the config.

Shape legend: B batch, T frames, P patches, N tokens of a frame's content, D token dim, V visual channels, C content channels,
A F action. A latent without its action is called content; the predictor sees content and action and predicts content.
    concat=channel   each of the N = P tokens is [visual | proprio | action]; content is [visual | proprio]
    concat=token     P visual tokens, a proprio token, an action token, all V wide; content is all but the last
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wm.config.decoder import NoDecoder
from wm.config.errors import UserError, nearest
from wm.config.masking import NoMasking
from wm.config.model import DinoWmConfig, EmbeddedProprio, NoProjection
from wm.config.terms import NoAlignment, NoReconstruction, NoTemporalDynamics
from wm.losses.ranks import ALONE, Alone
from wm.models.decoder import DecoderLoss, build_decoder
from wm.models.embedding import VectorEmbedding, tile
from wm.models.heads import TransitionHead
from wm.models.latent_model import LatentModel
from wm.models.masking import TokenMasking
from wm.models.predictor import CausalPredictor, KeysValues
from wm.models.projection import TokenCenter, build_projection
from wm.models.terms import Forward, loss_terms
from wm.types import Batch, LossTerms, Observation

_UNALIGNED_DIM = 7  # what `aligned` shows of a variant that aligns nothing


class WorldModel(LatentModel):
    """encode + predict + rollout, and the losses that train them. Every parameter is learned; the encoder is not in here.

    Args:
        token_dim: D of the frozen encoder.
        tokens_per_frame: P.
        action_dim: A F, one model action.
        proprio_dim: 0 when the data has none.
        action_adapters: A F of the other action vectors that batches hold, by name.
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
        action_adapters: Mapping[str, int] | None = None,
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
        self.is_joint = not isinstance(config.projection, NoProjection) and config.projection.of == "joint"
        self._build_latent(proprio_dim, action_adapters or {})
        self.state_indices = self._state_indices(state_names)
        self._build_heads()
        self.terms = nn.ModuleDict()
        # Its random numbers are its own: with or without a decoder, the world model is the same one and trains the same.
        with torch.random.fork_rng(devices=[]):
            self.decoder = build_decoder(config.decoder, self.visual_dim, tokens_per_frame)
        self.decoder_loss = None if isinstance(config.decoder, NoDecoder) else DecoderLoss(config.decoder)

    @property
    def keeps_proprio(self) -> bool:
        return self.config.keeps_proprio

    @property
    def is_aligned(self) -> bool:
        return not isinstance(self.config.alignment, NoAlignment)

    @property
    def is_projected(self) -> bool:
        return not isinstance(self.config.projection, NoProjection)

    # -- latents ------------------------------------------------------------------------------------------------------

    def encode_content(self, obs: Observation) -> Float[Tensor, "B T N C"]:
        """Patch tokens (and proprio) of each frame as content. Raises ValueError for pixels."""
        if obs.is_pixels:
            raise ValueError("the world model takes patch tokens; encode pixels with the encoder first")
        tokens = obs.visual if self.token_center is None else self.token_center(obs.visual)
        proprio = self._embed_proprio(obs)
        if self.is_joint:
            joint = tokens if proprio is None else torch.cat([tokens, tile(proprio, tokens.shape[2])], dim=-1)
            return self.projection(joint)
        visual = self.projection(tokens)
        return visual if proprio is None else self._attach(visual, proprio)

    def with_actions(
        self,
        content: Float[Tensor, "B T N C"],
        actions: Float[Tensor, "B T A"],
        has_actions: Bool[Tensor, "B"] | None = None,
    ) -> Float[Tensor, "B T M Z"]:
        """Content and action as the predictor sees them; rows without actions get the learned null action."""
        return self._attach(content, self.action_embedding(actions, has_actions))

    def encode(self, obs: Observation, actions: Float[Tensor, "B T A"]) -> Float[Tensor, "B T M Z"]:
        """The latent z of frames and the actions that follow them."""
        return self.with_actions(self.encode_content(obs), actions)

    def visual(self, content: Float[Tensor, "B T N C"]) -> Float[Tensor, "B T P V"]:
        """The visual part of content (or of a latent): what probes, health and images read."""
        return content[:, :, : self._patches(content), : self.visual_dim]

    def proprio(self, content: Float[Tensor, "B T N C"]) -> Float[Tensor, "B T K E"] | None:
        """The proprio part: on each of K = P patches, or on K = 1 token; None where the latent keeps none apart."""
        if not self.keeps_proprio:
            return None
        if self.config.concat == "token":
            patches = self._patches(content)
            return content[:, :, patches : patches + 1]
        return content[..., self.visual_dim : self.content_dim]

    def aligned(self, content: Float[Tensor, "B T N C"]) -> Float[Tensor, "B T K"]:
        """Patch mean of the aligned channels: the first `alignment.dim` of the visual ones."""
        return self.visual(content)[..., : self.aligned_dim].mean(dim=2)

    # -- time ---------------------------------------------------------------------------------------------------------

    def predict(self, latent: Float[Tensor, "B T M Z"]) -> Float[Tensor, "B T N C"]:
        """Content of each next frame: slot k holds frame k + 1."""
        return self._content(self.predictor(latent))

    def rollout(
        self,
        context: Float[Tensor, "B1 K N C"],
        actions: Float[Tensor, "B L A"],
        has_actions: Bool[Tensor, "B"] | None = None,
    ) -> Float[Tensor, "B H N C"]:
        """Content of the H = L - K + 1 frames after K context frames, each step fed the model's own last predictions.

        Args:
            context: one for each row of actions, or one for all (B1 = 1).
            actions: of the context frames, then of the imagined ones; the first K - 1 led through the context.
        """
        history = self.history_len
        context = context.expand(actions.shape[0], -1, -1, -1)
        latent = self.with_actions(context, actions[:, : context.shape[1]], has_actions)[:, -history:]
        seen: list[KeysValues] = []
        imagined = [self._content(self.predictor.extend(latent, seen))]
        for step in range(context.shape[1], actions.shape[1]):
            nxt = self.with_actions(imagined[-1], actions[:, step : step + 1], has_actions)
            latent = torch.cat([latent, nxt], dim=1)[:, -history:]
            imagined.append(self._content(self.predictor.extend(nxt if seen else latent, seen)))
        return torch.cat(imagined, dim=1)

    def rollout_bytes(self, horizon: int, *, graph: bool = False) -> int:
        """All frames' content, and either one layer's activations over a whole window, or those of one frame and all layers' keys and
        values of the window's other frames; with a graph every layer's of every frame that is computed.
        """
        config = self.config.predictor
        width = self.content_dim + self.action_embedding.width
        frames = min(self.history_len, horizon + 1)
        frame = self.tokens_per_frame + 2
        inner = config.heads * config.head_dim

        def layer(queries: int) -> int:
            scores = 2 * config.heads * frames * frame if config.attention == "plain" else 0
            return queries * (4 * width + 5 * inner + 2 * config.mlp_dim + scores)

        whole = layer(frames * frame)
        extended = layer(frame) + 2 * inner * frame * (config.depth * (frames - 1) + frames)
        kept = (horizon + 1 + frames) * self.tokens_per_frame * width
        windows = 1 + max(0, horizon - frames)  # the first frame by frame, then each one whole
        return 4 * (kept + (whole * config.depth * windows if graph else max(whole, extended)))

    @property
    def needs_token_statistics(self) -> bool:
        return self.token_center is not None

    def use_token_statistics(self, mean: Float[Tensor, "D"], std: Float[Tensor, "D"]) -> None:
        if self.token_center is not None:
            self.token_center.mean.copy_(mean)

    def continue_rollout(
        self, latent: Tensor, first: Tensor, actions: Tensor, has_actions: Tensor | None
    ) -> Float[Tensor, "B H N C"]:
        """The rollout of a context latent whose next content is predicted already, every window whole: dropout is drawn anew."""
        imagined = [first]
        for step in range(latent.shape[1], actions.shape[1]):
            nxt = self.with_actions(imagined[-1], actions[:, step : step + 1], has_actions)
            latent = torch.cat([latent, nxt], dim=1)
            imagined.append(self.predict(latent[:, -self.history_len :])[:, -1:])
        return torch.cat(imagined, dim=1)

    # -- losses -------------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, progress: float = 0.0, ranks: Alone = ALONE) -> LossTerms:
        """Every term of the variant, weighted by its schedule at `progress` in [0, 1] of training.

        Args:
            ranks: the workers that hold the rest of the global batch.
        """
        history = self.history_len
        content = self.encode_content(batch.obs)
        seen, hidden = content[:, :history], None
        if self.masking is not None and self.training:
            seen, hidden = self.masking(seen, self._patches(seen))
        latent = self.with_actions(seen, batch.actions[:, :history], batch.has_actions)
        predicted, target = self.predict(latent), content[:, 1 : history + 1]
        return loss_terms(self, Forward(batch, content, latent, predicted, target, hidden, ranks), progress)

    @property
    def hot_part(self) -> nn.Module:
        return self.predictor

    # -- assembly -----------------------------------------------------------------------------------------------------

    def add_terms(self, terms: Mapping[str, nn.Module]) -> None:
        """Loss terms from outside, by the names of `config.terms`; call it before the optimiser is built."""
        self.terms.update(terms)

    def _content(self, latent: Tensor) -> Tensor:
        """The latent without its action."""
        tokens = latent.shape[2] - int(self.config.concat == "token")
        return latent[:, :, :tokens, : self.content_dim]

    def _attach(self, content: Tensor, vectors: Float[Tensor, "B T E"]) -> Tensor:
        """One more vector for each frame: in every token's channels, or a token of its own."""
        if self.config.concat == "token":
            return torch.cat([content, vectors[:, :, None]], dim=2)
        return torch.cat([content, tile(vectors, content.shape[2])], dim=-1)

    def _embed_proprio(self, obs: Observation) -> Float[Tensor, "B T E"] | None:
        if self.proprio_embedding is None:
            return None
        if obs.proprio is None:
            return self.proprio_embedding.absent(*obs.visual.shape[:2])
        return self.proprio_embedding(obs.proprio, obs.has_proprio)

    def _build_latent(self, proprio_dim: int, action_adapters: Mapping[str, int]) -> None:
        """Embeddings, projection and predictor, in the order that their random weights are drawn."""
        config = self.config
        as_token = config.concat == "token"
        has_proprio = isinstance(config.proprio, EmbeddedProprio)
        if has_proprio and proprio_dim == 0:
            raise UserError("model.proprio.kind: 'embed', but the data has no proprio; say model.proprio=none")
        proprio_width = config.proprio.dim * config.proprio.repeat if isinstance(config.proprio, EmbeddedProprio) else 0
        self.projection, self.visual_dim = build_projection(
            config.projection, self.token_dim + (proprio_width if self.is_joint else 0)
        )
        self.token_center = TokenCenter(self.token_dim) if config.center_tokens else None
        self.proprio_embedding: VectorEmbedding | None = None
        if isinstance(config.proprio, EmbeddedProprio):
            dim = self.visual_dim if as_token else config.proprio.dim
            self.proprio_embedding = VectorEmbedding(proprio_dim, dim, config.proprio.repeat)
        action_dim = self.visual_dim if as_token else config.action.dim
        self.action_embedding = VectorEmbedding(self.action_dim, action_dim, config.action.repeat, action_adapters)
        self.vector_tokens = int(as_token and has_proprio)
        self.content_dim = self.visual_dim + (0 if as_token or self.is_joint else proprio_width)
        width = self.content_dim + (0 if as_token else self.action_embedding.width)
        others = self.vector_tokens + int(as_token)
        tokens = self.tokens_per_frame + others
        self.predictor = CausalPredictor(width, tokens, config.history_len, config.predictor, others)

    def _build_heads(self) -> None:
        config = self.config
        alignment = config.alignment
        wanted = _UNALIGNED_DIM if isinstance(alignment, NoAlignment) else alignment.dim
        self.aligned_dim = min(wanted, self.visual_dim)
        self.alignment_head: nn.Linear | None = None
        if not isinstance(alignment, NoAlignment):
            if alignment.dim > self.visual_dim:
                raise UserError(
                    f"model.alignment.dim: {alignment.dim} is more than the {self.visual_dim} visual channels"
                )
            self.alignment_head = nn.Linear(alignment.dim, len(self.state_indices))
        rebuilds = not isinstance(config.reconstruction, NoReconstruction)
        self.reconstruction_head = nn.Linear(self.visual_dim, self.token_dim) if rebuilds else None
        self.transition_head: TransitionHead | None = None
        if not isinstance(config.temporal_dynamics, NoTemporalDynamics):
            hidden = config.temporal_dynamics.hidden
            self.transition_head = TransitionHead(self.aligned_dim, self.action_embedding.width, hidden)
        self.masking: TokenMasking | None = None
        if not isinstance(config.masking, NoMasking):
            self.masking = TokenMasking(config.masking, self.tokens_per_frame, self.content_dim)

    def _patches(self, content: Tensor) -> int:
        """Patches of a frame: P, or those of smaller pictures that training begins with."""
        return min(self.tokens_per_frame, content.shape[2] - self.vector_tokens)

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
