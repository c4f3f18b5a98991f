"""The Dreamer-4-style world model: frozen patch tokens, a block-causal transformer, shortcut forcing.

Shape legend: B batch, T frames, P patches, C = D token channels, A F action, K context frames, H imagined frames, W width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wm.config.decoder import NoDecoder
from wm.config.shortcut import ShortcutConfig
from wm.losses.ranks import ALONE, Alone
from wm.models.decoder import DecoderLoss, build_decoder, target_images
from wm.models.latent_model import LatentModel
from wm.shortcut.actions import ActionToken
from wm.shortcut.backbone import BlockCausalTransformer
from wm.shortcut.cache import RingCache
from wm.shortcut.labels import row_generators
from wm.shortcut.past import CachedPast, Past, RecomputedPast
from wm.types import Batch, LossTerms, Observation

_ALIGNED_DIM = 7  # what `aligned` shows of a model that aligns nothing


class BackboneModel(LatentModel):
    """What shortcut forcing and its teacher-forced ablation share.

    Content is the encoder's tokens; the backbone sees them standardised.

    Args:
        token_dim: D of the frozen encoder.
        tokens_per_frame: P.
        action_dim: A F, one model action.
        action_adapters: A F of the other action vectors that batches hold, by name.

    Raises UserError for a forcing that does not go with the size of the latent.
    """

    token_mean: Tensor
    token_std: Tensor

    def __init__(
        self,
        config: ShortcutConfig,
        *,
        token_dim: int,
        tokens_per_frame: int,
        action_dim: int,
        action_adapters: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.token_dim = token_dim
        self.tokens_per_frame = tokens_per_frame
        self.action_dim = action_dim
        self.history_len = config.history_len
        self.window = config.backbone.window or config.clip_frames  # never more frames than it was trained on
        self.backbone = BlockCausalTransformer(config.backbone, token_dim, tokens_per_frame, config.k_max)
        self.action_token = ActionToken(action_dim, config.action.hidden, config.backbone.width, action_adapters or {})
        self.register_buffer("token_mean", torch.zeros(token_dim))
        self.register_buffer("token_std", torch.ones(token_dim))
        with torch.random.fork_rng(devices=[]):
            self.decoder = build_decoder(config.decoder, token_dim, tokens_per_frame)
        self.decoder_loss = None if isinstance(config.decoder, NoDecoder) else DecoderLoss(config.decoder)
        self._build_forcing()

    def _build_forcing(self) -> None:
        """What the loss holds, where it holds something."""

    # -- latents ------------------------------------------------------------------------------------------------------

    @property
    def keeps_proprio(self) -> bool:
        return False

    @property
    def is_aligned(self) -> bool:
        return False

    @property
    def is_projected(self) -> bool:
        return False

    @property
    def needs_token_statistics(self) -> bool:
        return True

    def use_token_statistics(self, mean: Float[Tensor, "D"], std: Float[Tensor, "D"]) -> None:
        self.token_mean.copy_(mean)
        # A channel that never moves is no unit.
        self.token_std.copy_(std.clamp_min(1e-3 * float(std.max().clamp_min(1e-6))))

    def encode_content(self, obs: Observation) -> Float[Tensor, "B T P C"]:
        if obs.is_pixels:
            raise ValueError("the world model takes patch tokens; encode pixels with the encoder first")
        return obs.visual

    def with_actions(
        self,
        content: Float[Tensor, "B T P C"],
        actions: Float[Tensor, "B T A"],
        has_actions: Bool[Tensor, "B"] | None = None,
    ) -> Float[Tensor, "B T P C"]:
        """The content: actions are tokens of their own, inside the backbone."""
        return content

    def visual(self, content: Float[Tensor, "B T P C"]) -> Float[Tensor, "B T P C"]:
        return content

    def proprio(self, content: Float[Tensor, "B T P C"]) -> None:
        return None

    def aligned(self, content: Float[Tensor, "B T P C"]) -> Float[Tensor, "B T K"]:
        return content[..., :_ALIGNED_DIM].mean(dim=2)

    def standardised(self, content: Float[Tensor, "B T P C"]) -> Float[Tensor, "B T P C"]:
        """Mean 0 and spread 1 in every channel over the training frames."""
        return (content - self.token_mean) / self.token_std

    def content_of(self, latents: Float[Tensor, "B T P C"]) -> Float[Tensor, "B T P C"]:
        """The inverse of `standardised`."""
        return latents * self.token_std + self.token_mean

    # -- time ---------------------------------------------------------------------------------------------------------

    def rollout(
        self,
        context: Float[Tensor, "B1 K P C"],
        actions: Float[Tensor, "B L A"],
        has_actions: Bool[Tensor, "B"] | None = None,
    ) -> Float[Tensor, "B H P C"]:
        """Content of the H = L - K + 1 frames after K context frames, each frame computed from its own predictions.

        Args:
            context: one for each row of actions, or one for all (B1 = 1): then its frames are computed and kept once.
            actions: of the context frames, then of the imagined ones; the first K - 1 led through the context, and of one context for
                all, the first row's count.
        """
        latents = self.standardised(context)
        if context.shape[1] == self.num_unshared:
            latents = latents.expand(len(actions), -1, -1, -1)
        if torch.is_grad_enabled() and actions.requires_grad:
            past: Past = RecomputedPast(self.backbone, self.window)
            return self.content_of(self.imagine(past, latents, self.tokens_of(actions, has_actions)))
        with torch.no_grad():
            weight = self.backbone.to_latents.weight
            kind = weight.device.type
            dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
            window = max(2, min(self.window, actions.shape[1] + 1))
            past = CachedPast(self.backbone, RingCache(self.backbone, len(latents), window, dtype, weight.device))
            return self.content_of(self.imagine(past, latents, self.tokens_of(actions, has_actions)))

    @property
    def num_unshared(self) -> int:
        """The last context frames that see an action which samples do not share."""
        return 0

    @abstractmethod
    def tokens_of(self, actions: Float[Tensor, "B L A"], known: Bool[Tensor, "B"] | None) -> Float[Tensor, "B F W"]:
        """The action token of each of F = L + 1 frames."""

    @abstractmethod
    def imagine(
        self, past: Past, context: Float[Tensor, "B1 K P C"], tokens: Float[Tensor, "B F W"]
    ) -> Float[Tensor, "B H P C"]:
        """Standardised latents of the F - K frames after the context, B continuations of B or of one context."""

    @abstractmethod
    def following(
        self,
        past: Past,
        latent: Float[Tensor, "B 1 P C"],
        tokens: Float[Tensor, "B 2 W"],
        noise: Float[Tensor, "1 2 P C"],
    ) -> Float[Tensor, "B 1 P C"]:
        """The standardised frame after `latent`, which `past` has as its last one from then on: one turn of `imagine`.

        Args:
            tokens: of the action that led to `latent`, and of the one that leads to the next frame.
            noise: of `latent` as context, and of the next frame.
        """

    @property
    @abstractmethod
    def passes_per_frame(self) -> int:
        """Passes through the network for an imagined frame."""

    @property
    @abstractmethod
    def rollout_noise_seed(self) -> int | None:
        """Of the noise of rollouts; None: they take none."""

    def weights_in(self, dtype: torch.dtype) -> BackboneModel:
        """This model with its networks' weights, and what is computed from them, in another dtype.

        Token statistics, signal levels and the frames that are handed on keep theirs.
        """
        self.backbone.to(dtype)
        self.action_token.to(dtype)
        return self

    # -- losses -------------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, progress: float = 0.0, ranks: Alone = ALONE) -> LossTerms:
        """The forcing loss, and the decoder's on detached latents, where there is one."""
        seeds = _seeds(batch)
        known = batch.has_actions & (_uniform(seeds, batch.weights.device) >= self.config.action.dropout)
        total, parts = self.forcing_loss(batch, seeds, known, progress, ranks)
        weighted = {"forcing_loss": total}
        if self.decoder is not None and self.decoder_loss is not None:
            if batch.images is None:
                raise ValueError("a model with a decoder is trained on batches with images")
            images = target_images(batch.images, self.decoder.image_size)
            found = self.decoder_loss(self.decoder, batch.obs.visual, images, batch.weights, ranks)
            parts |= {f"{name}_reconstructed": value for name, value in found.items()}
            weighted["decoder_loss_reconstructed"] = found["decoder_loss"]
        return LossTerms(weighted, {name: value.detach() for name, value in parts.items()})

    @abstractmethod
    def forcing_loss(
        self, batch: Batch, seeds: list[int], known: Bool[Tensor, "B"], progress: float, ranks: Alone
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """(what to differentiate, its parts).

        Args:
            seeds: of each clip's own random numbers.
            known: clips whose actions are seen.
        """

    @property
    def hot_part(self) -> BlockCausalTransformer:
        return self.backbone

    # -- memory -------------------------------------------------------------------------------------------------------

    def rollout_bytes(self, horizon: int, *, graph: bool = False) -> int:
        """One layer's activations of two frames, the suffix's keys and values, and all frames' content; with a graph every layer's of
        every frame in every pass.
        """
        config = self.config.backbone
        tokens = self.backbone.num_tokens
        inner = (config.heads + 2 * config.kv_heads) * config.head_dim
        frame = tokens * (4 * config.width + 2 * inner + 3 * config.mlp_dim)
        kept = 2 * tokens * config.kv_heads * config.head_dim * config.num_time_layers * (horizon + 2)
        content = 3 * (horizon + 1) * self.tokens_per_frame * self.token_dim
        frames = self.history_len + horizon
        computed = config.depth * frames * frames * (self.sampling_steps or 1) if graph else 2
        return 4 * (frame * computed + kept + content)


def _seeds(batch: Batch) -> list[int]:
    """Each clip's own; where a batch has none, from torch's generator."""
    seeds = torch.randint(2**62, (batch.num_clips,)) if batch.seeds is None else batch.seeds
    return [int(seed) for seed in seeds.tolist()]


def _uniform(seeds: list[int], device: torch.device) -> Float[Tensor, "B"]:
    """One number in [0, 1) for each clip, apart from all that its generator draws."""
    return torch.stack([torch.rand((), generator=generator) for generator in row_generators(seeds, "actions")]).to(
        device
    )
