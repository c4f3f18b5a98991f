"""Config to planners: how much is rolled out at once, and in what precision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from wm.build import build_world
from wm.build_planning import build_planner, planning_evaluation
from wm.config.encoder import TinyEncoderConfig
from wm.config.experiment import ExperimentConfig
from wm.config.model import DinoWmConfig, NoProprio, PredictorConfig
from wm.config.plan import CemConfig, GradientConfig, PlanConfig, PlannerConfig
from wm.config.worlds import LinearWorldConfig
from wm.data.normalization import DataStatistics
from wm.encoders.vit import tiny_encoder
from wm.loaded import LoadedModel
from wm.models.world_model import WorldModel
from wm.types import Statistics

ACTION = Statistics(np.zeros(2, np.float32), np.ones(2, np.float32))


@pytest.fixture
def model() -> LoadedModel:
    config = DinoWmConfig(
        history_len=2, proprio=NoProprio(), predictor=PredictorConfig(depth=1, heads=1, head_dim=4, mlp_dim=8)
    )
    encoder = tiny_encoder(TinyEncoderConfig(image_size=28, hidden_size=12, depth=1, heads=2))
    network = WorldModel(config, token_dim=12, tokens_per_frame=4, action_dim=10).eval()
    return LoadedModel(ExperimentConfig(), encoder, network, DataStatistics(ACTION, None, None), {})


@pytest.mark.parametrize("config", [CemConfig(), GradientConfig()])
def test_what_is_rolled_out_at_once_fits_the_memory_and_the_cache(model: LoadedModel, config: PlannerConfig):
    each = model.model.rollout_bytes(config.horizon, graph=isinstance(config, GradientConfig))

    def chunk_size(memory_bytes: float) -> int:
        return build_planner(config, model, memory_gb=memory_bytes / 1e9).chunk_size

    assert chunk_size(0.5 * each) == 1  # the least there is
    assert chunk_size(7.5 * each) == 7
    assert chunk_size(1e12) == 2048 // (2 * 4)  # tokens of two frames


def test_the_plan_s_precision_is_the_dynamics_own(model: LoadedModel):
    world = build_world(LinearWorldConfig())
    for precision in ("fp32", "bf16"):
        evaluation = planning_evaluation(PlanConfig(precision=precision), model, [world])
        assert evaluation.model.dynamics.precision == evaluation.mpc.dynamics.precision == precision
    assert model.precision == "fp32"
    assert replace(model, precision="bf16").dynamics.precision == "bf16"
