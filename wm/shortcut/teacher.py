"""The ablation of shortcut forcing: the same backbone, teacher-forced, one pass a frame.

Shape legend: B batch, P patches, C token channels, K context frames, H imagined frames, F = K + H, W width.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wm.losses.prediction import prediction_loss
from wm.losses.ranks import Alone
from wm.shortcut.model import BackboneModel
from wm.shortcut.past import Past
from wm.types import Batch

_CLEAN = 1  # the one label, as ShortcutConfig.k_max


class TeacherForcedModel(BackboneModel):
    """Sees clean frames and the action that follows each, and predicts the next frame.

    Args: as `BackboneModel`; the config with `forcing.kind=teacher`.
    """

    def forcing_loss(
        self, batch: Batch, seeds: list[int], known: Bool[Tensor, "B"], progress: float, ranks: Alone
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        clean = self.standardised(batch.obs.visual)
        seen = clean[:, :-1]
        predicted = self.backbone(seen, *_labels(seen), self.action_token(batch.actions[:, :-1], known))
        loss = prediction_loss(predicted, clean[:, 1:], batch.weights, "mse", ranks)
        return loss, {"forcing_loss": loss}

    def tokens_of(self, actions: Float[Tensor, "B L A"], known: Bool[Tensor, "B"] | None) -> Float[Tensor, "B F W"]:
        """The token of the action that follows each frame; the last frame is never asked for one."""
        return torch.cat([self.action_token(actions, known), self.action_token.null(len(actions), 1)], dim=1)

    def imagine(
        self, past: Past, context: Float[Tensor, "B1 K P C"], tokens: Float[Tensor, "B F W"]
    ) -> Float[Tensor, "B H P C"]:
        known, samples = context.shape[1], len(tokens) // len(context)
        before, latent = context[:, :-1], context[:, -1:]
        if known > 1:
            past.step(before, *_labels(before), tokens[: len(context), : known - 1], known - 1)
        if samples > 1:
            past, latent = past.branched(samples, tokens.shape[1] - known), latent.repeat_interleave(samples, dim=0)
        imagined: list[Tensor] = []
        for frame in range(known - 1, tokens.shape[1] - 1):
            latent = _next(past, latent, tokens[:, frame : frame + 1])
            imagined.append(latent)
        return torch.cat(imagined, dim=1)

    def following(
        self,
        past: Past,
        latent: Float[Tensor, "B 1 P C"],
        tokens: Float[Tensor, "B 2 W"],
        noise: Float[Tensor, "1 2 P C"],
    ) -> Float[Tensor, "B 1 P C"]:
        return _next(past, latent, tokens[:, 1:])

    @property
    def passes_per_frame(self) -> int:
        return 1

    @property
    def rollout_noise_seed(self) -> None:
        return None

    @property
    def num_unshared(self) -> int:
        return 1


def _next(past: Past, latent: Float[Tensor, "B 1 P C"], token: Float[Tensor, "B 1 W"]) -> Float[Tensor, "B 1 P C"]:
    return past.step(latent, *_labels(latent), token, 1).to(latent.dtype)


def _labels(latents: Float[Tensor, "B T P C"]) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
    label = torch.full(latents.shape[:2], _CLEAN, device=latents.device)
    return label, label
