"""What a planner sees of a world model."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from wm.contracts import Encoder
from wm.models.latent_model import LatentModel
from wm.types import Observation


class WorldModelDynamics:
    """The `Dynamics` of a trained world model and its frozen encoder.

    Latents are content (N, H, P, C): visual channels, then proprio. Raises ValueError for a model in training mode.

    Args:
        sampling_steps: K of rollouts in each iteration of a search; the last is that of all later ones, and of rollouts outside a
            search. None is the model's own.
        precision: of the matrix products of rollouts; latents go in and come out in float32, and frames are encoded in it.
    """

    def __init__(
        self,
        encoder: Encoder,
        model: LatentModel,
        precision: Literal["fp32", "bf16"] = "fp32",
        sampling_steps: tuple[int, ...] | None = None,
    ) -> None:
        if model.training:
            raise ValueError("planning needs the model in evaluation mode: call model.eval()")
        self.encoder = encoder
        self.model = model
        self.precision: Literal["fp32", "bf16"] = precision
        self.sampling_steps = sampling_steps
        self.action_dim = model.action_dim

    @torch.no_grad()
    def encode(self, obs: Observation) -> Tensor:
        """Pixels or tokens (B, T, ...) -> content (B, T, P, C)."""
        device = next(self.model.parameters()).device
        visual = self.encoder.encode(obs.visual) if obs.is_pixels else obs.visual
        return self.model.encode_content(replace(obs, visual=visual).map(lambda values: values.to(device)))

    def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
        """Content (1 or N, 1, P, C) and actions (N, H, A F) -> content (N, H, P, C) of the frames that follow."""
        mixed = torch.autocast(latent.device.type, torch.bfloat16, enabled=self.precision == "bf16")
        with mixed, self.model.sampled_in(self.sampling_steps[-1] if self.sampling_steps else None):
            imagined = self.model.rollout(latent, actions)
        return imagined.float()

    def at_iteration(self, number: int) -> WorldModelDynamics:
        """As AnytimeDynamics."""
        if self.sampling_steps is None:
            return self
        return WorldModelDynamics(self.encoder, self.model, self.precision, self.sampling_steps[: number + 1])
