"""Shortcut forcing: each frame is denoised from noise in K steps, under the action that led to it and the frames before it.

Shape legend: B batch, T frames, P patches, C token channels, K context frames, H imagined frames, F = K + H, W width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wm.config.errors import UserError
from wm.config.forcing import ForcingConfig
from wm.losses.ranks import ALONE, Alone
from wm.shortcut.forcing import ShortcutForcing
from wm.shortcut.labels import draw_labels, row_generators
from wm.shortcut.model import BackboneModel
from wm.shortcut.noise import CONTEXT, IMAGINED, frame_noise
from wm.shortcut.past import Past
from wm.shortcut.sampler import context_labels, corrupt_context, sample
from wm.types import Batch

_PARTS = ("flow", "bootstrap", "flow_frames", "bootstrap_frames", "error")


class ShortcutModel(BackboneModel):
    """The world model of shortcut forcing.

    Args: as `BackboneModel`; the config with `forcing.kind=shortcut`.
    """

    def _build_forcing(self) -> None:
        config = self.config
        if not isinstance(config.forcing, ForcingConfig):
            raise ValueError(f"forcing.kind is {config.forcing.kind}, expected shortcut")
        self.forcing_config = config.forcing
        self.sampling_steps = config.sampling_steps
        try:
            self.forcing = ShortcutForcing(config.forcing, self.tokens_per_frame * self.token_dim)
        except ValueError as error:  # a grid that the size of the latent makes too steep
            raise UserError(f"model.forcing: {error}") from error

    def forcing_loss(
        self, batch: Batch, seeds: list[int], known: Bool[Tensor, "B"], progress: float, ranks: Alone
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        clean = self.standardised(batch.obs.visual)
        labels = draw_labels(self.forcing_config, row_generators(seeds, "labels"), clean.shape[1], progress).to(
            clean.device
        )
        noise = torch.stack(
            [
                torch.randn(clean.shape[1:], generator=generator, device=clean.device)
                for generator in row_generators(seeds, "noise", clean.device)
            ]
        )
        actions = self.tokens_of(batch.actions[:, :-1], known)
        rows = labels.bootstrap_rows
        found = self.forcing(
            lambda latents, levels, steps: self.backbone(latents, levels, steps, actions),
            lambda latents, levels, steps: self.backbone(latents, levels, steps, actions[rows]),
            clean,
            noise,
            labels,
            batch.weights,
            ranks,
        )
        return found.total, {"forcing_loss": found.total, **{f"forcing_{name}": found.parts[name] for name in _PARTS}}

    def after_step(self, progress: float, parts: Mapping[str, Tensor], ranks: Alone = ALONE) -> None:
        """The running scales of the two kinds of loss follow."""
        self.forcing.update({name: parts[f"forcing_{name}"] for name in _PARTS}, ranks)

    def _check_sampling_steps(self, num_steps: int) -> None:
        k_max = self.forcing_config.k_max
        if k_max % num_steps:
            raise UserError(f"plan.sampling_steps: {num_steps}, expected a divisor of this model's k_max, {k_max}")

    def tokens_of(self, actions: Float[Tensor, "B L A"], known: Bool[Tensor, "B"] | None) -> Float[Tensor, "B F W"]:
        """The token of the action that led to each of F = L + 1 frames; of the first nothing is known."""
        return torch.cat([self.action_token.null(len(actions), 1), self.action_token(actions, known)], dim=1)

    def imagine(
        self, past: Past, context: Float[Tensor, "B1 K P C"], tokens: Float[Tensor, "B F W"]
    ) -> Float[Tensor, "B H P C"]:
        signal, known = self.forcing.signal, context.shape[1]
        noise = self._noise(CONTEXT, range(known), context)
        shown = corrupt_context(context, noise.expand_as(context), signal)
        past.step(shown, *context_labels(signal, *context.shape[:2]), tokens[: len(context), :known], known)
        if len(context) < len(tokens):
            past = past.branched(len(tokens) // len(context), tokens.shape[1] - known)
        imagined: list[Tensor] = []
        pending: tuple[Tensor, ...] = ()
        for frame in range(known, tokens.shape[1]):
            token = tokens[:, frame : frame + 1]
            latent = self._sampled(past, token, self._noise(IMAGINED, [frame], context), pending)
            pending = self._as_context(latent, token, self._noise(CONTEXT, [frame], context))
            imagined.append(latent)
        return torch.cat(imagined, dim=1)

    def following(
        self,
        past: Past,
        latent: Float[Tensor, "B 1 P C"],
        tokens: Float[Tensor, "B 2 W"],
        noise: Float[Tensor, "1 2 P C"],
    ) -> Float[Tensor, "B 1 P C"]:
        pending = self._as_context(latent, tokens[:, :1], noise[:, :1])
        return self._sampled(past, tokens[:, 1:], noise[:, 1:], pending)

    @property
    def passes_per_frame(self) -> int:
        assert self.sampling_steps is not None  # this model always has some
        return self.sampling_steps

    @property
    def rollout_noise_seed(self) -> int:
        return self.config.noise_seed + self.future

    def _sampled(
        self, past: Past, token: Float[Tensor, "B 1 W"], noise: Float[Tensor, "1 1 P C"], pending: tuple[Tensor, ...]
    ) -> Float[Tensor, "B 1 P C"]:
        """The frame that an action leads to; one that is `pending` before it is committed in the pass that denoises it first."""

        def denoise(latents: Tensor, levels: Tensor, steps: Tensor) -> Tensor:
            nonlocal pending
            new = (latents, levels, steps, token)
            if not pending:
                return past.step(*new)
            both = [torch.cat(pair, dim=1) for pair in zip(pending, new, strict=True)]
            pending = ()
            return past.step(*both, num_committed=1)[:, 1:]

        return sample(denoise, noise.expand(len(token), -1, -1, -1), self.passes_per_frame, self.forcing.signal)

    def _as_context(
        self, latent: Float[Tensor, "B 1 P C"], token: Float[Tensor, "B 1 W"], noise: Float[Tensor, "1 1 P C"]
    ) -> tuple[Tensor, ...]:
        """What must be committed of a frame before the next one: latents as the network is shown them, labels, token."""
        signal = self.forcing.signal
        shown = corrupt_context(latent, noise.expand_as(latent), signal)
        return shown, *context_labels(signal, len(latent), 1), token

    def _noise(self, stream: int, frames: Iterable[int], like: Tensor) -> Float[Tensor, "1 T P C"]:
        return frame_noise(self.rollout_noise_seed, stream, frames, (self.tokens_per_frame, self.token_dim)).to(like)
