"""Small world models of every variant, and a batch for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from wm.config.resolve import Layer, resolve
from wm.losses.ranks import Alone
from wm.models.world_model import WorldModel
from wm.types import Batch, Observation

TOKEN_DIM, PATCHES, ACTION_DIM, PROPRIO_DIM = 12, 4, 6, 3
STATE_NAMES = ("x", "y", "angle")
SMALL = {
    "model.history_len": 2,
    "model.projection.dim": 8,
    "model.predictor": {"depth": 2, "heads": 2, "head_dim": 4, "mlp_dim": 16, "dropout": 0.0},
}


class TwoWorkers(Alone):
    """The other one holds as many rows again, of weights that this one does not see."""

    def mean_total(self, weights: torch.Tensor) -> torch.Tensor:
        return 2 * weights.sum()


@pytest.fixture
def make_model() -> Callable[..., WorldModel]:
    """(variant, {path: value}, rollout_horizon) -> a seeded model in evaluation mode."""

    def make(variant: str = "baseline", changes: dict[str, Any] | None = None, rollout_horizon: int = 1) -> WorldModel:
        small = {k: v for k, v in SMALL.items() if variant != "baseline" or "projection" not in k}
        layers = [Layer.from_tree("test", {**small, "model.variant": variant}), Layer.from_tree("more", changes or {})]
        torch.manual_seed(0)
        model = WorldModel(
            resolve(layers).model,
            token_dim=TOKEN_DIM,
            tokens_per_frame=PATCHES,
            action_dim=ACTION_DIM,
            proprio_dim=PROPRIO_DIM,
            state_names=STATE_NAMES,
            rollout_horizon=rollout_horizon,
        )
        return model.eval()

    return make


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """(clips, frames, seed) -> labelled clips of weight 1."""

    def make(clips: int = 3, frames: int = 3, seed: int = 1) -> Batch:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(clips, frames, *shape, generator=generator)

        every = torch.ones(clips, dtype=torch.bool)
        obs = Observation(normal(PATCHES, TOKEN_DIM), normal(PROPRIO_DIM))
        return Batch(obs, normal(ACTION_DIM), every, normal(len(STATE_NAMES)), every, torch.ones(clips))

    return make
