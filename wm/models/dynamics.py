"""What a planner sees of a world model."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from wm.contracts import Encoder
from wm.models.world_model import WorldModel
from wm.types import Observation


class WorldModelDynamics:
    """The `Dynamics` of a trained world model and its frozen encoder.

    Latents are content (N, H, P, C): visual channels, then proprio. Raises ValueError for a model in training mode.

    Args:
        precision: of the matrix products of rollouts; latents go in and come out in float32, and frames are encoded in it.
    """

    def __init__(self, encoder: Encoder, model: WorldModel, precision: Literal["fp32", "bf16"] = "fp32") -> None:
        if model.training:
            raise ValueError("planning needs the model in evaluation mode: call model.eval()")
        self.encoder = encoder
        self.model = model
        self.precision = precision
        self.action_dim = model.action_dim

    @torch.no_grad()
    def encode(self, obs: Observation) -> Tensor:
        """Pixels or tokens (B, T, ...) -> content (B, T, P, C)."""
        device = next(self.model.parameters()).device
        visual = self.encoder.encode(obs.visual) if obs.is_pixels else obs.visual
        return self.model.encode_content(replace(obs, visual=visual).map(lambda values: values.to(device)))

    def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
        """Content (1 or N, 1, P, C) and actions (N, H, A F) -> content (N, H, P, C) of the frames that follow."""
        context = latent.expand(actions.shape[0], -1, -1, -1)
        with torch.autocast(context.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            imagined = self.model.rollout(context, actions)
        return imagined.float()

    def rollout_bytes(self, horizon: int, *, graph: bool = False) -> int:
        """About what one plan's rollout holds at its peak, in bytes of float32.

        All frames' content, and either one layer's activations over a whole window, or those of one frame and all layers' keys and
        values of the window's other frames; with a graph every layer's of every frame that is computed.
        """
        model, config = self.model, self.model.config.predictor
        width = model.content_dim + model.action_embedding.width
        frames = min(model.history_len, horizon + 1)
        frame = model.tokens_per_frame + 2
        inner = config.heads * config.head_dim

        def layer(queries: int) -> int:
            scores = 2 * config.heads * frames * frame if config.attention == "plain" else 0
            return queries * (4 * width + 5 * inner + 2 * config.mlp_dim + scores)

        whole = layer(frames * frame)
        extended = layer(frame) + 2 * inner * frame * (config.depth * (frames - 1) + frames)
        kept = (horizon + 1 + frames) * model.tokens_per_frame * width
        windows = 1 + max(0, horizon - frames)  # the first frame by frame, then each one whole
        return 4 * (kept + (whole * config.depth * windows if graph else max(whole, extended)))
