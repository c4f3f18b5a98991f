"""What a planner sees of a world model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch.autograd.profiler import profile

from wm.config.encoder import TinyEncoderConfig
from wm.config.model import DinoWmConfig, NoProprio, PredictorConfig
from wm.contracts import Dynamics
from wm.encoders.vit import tiny_encoder
from wm.models.dynamics import WorldModelDynamics
from wm.models.world_model import WorldModel
from wm.types import Observation

ENCODER = TinyEncoderConfig(image_size=28, hidden_size=12, depth=1, heads=2)


def test_it_is_the_model_s_own_rollout(make_model, make_batch):
    model, batch = make_model("align"), make_batch(clips=4, frames=3)
    dynamics = WorldModelDynamics(tiny_encoder(ENCODER), model)
    assert isinstance(dynamics, Dynamics)
    start = Observation(batch.obs.visual[:1, :1], batch.obs.proprio[:1, :1])
    context = dynamics.encode(start)
    assert torch.equal(context, model.encode_content(start))
    assert not context.requires_grad
    imagined = dynamics.rollout(context, batch.actions)
    assert imagined.shape == (4, 3, *context.shape[2:])
    for row in range(4):  # one context for all candidates
        alone = model.rollout(context, batch.actions[row : row + 1])
        torch.testing.assert_close(imagined[row : row + 1], alone, rtol=0, atol=1e-5)


def test_pixels_go_through_the_encoder(make_model):
    encoder, model = tiny_encoder(ENCODER), make_model("baseline")
    frames = torch.randint(0, 256, (1, 1, 28, 28, 3), dtype=torch.uint8)
    proprio = torch.zeros(1, 1, 3)
    seen = WorldModelDynamics(encoder, model).encode(Observation(frames, proprio))
    assert torch.equal(seen, model.encode_content(Observation(encoder.encode(frames), proprio)))


def test_gradients_reach_the_actions(make_model, make_batch):
    model, batch = make_model("align"), make_batch(clips=1)
    dynamics = WorldModelDynamics(tiny_encoder(ENCODER), model)
    actions = batch.actions.clone().requires_grad_()
    dynamics.rollout(dynamics.encode(batch.obs.slice(slice(1))), actions).square().mean().backward()
    assert actions.grad is not None
    assert (actions.grad.abs().amax(dim=2) > 0).all()


def test_a_longer_context_is_repeated_for_every_candidate(make_model, make_batch):
    model, batch = make_model("align"), make_batch(clips=4, frames=3)
    dynamics = WorldModelDynamics(tiny_encoder(ENCODER), model)
    assert dynamics.action_dim == batch.actions.shape[-1]
    context = dynamics.encode(Observation(batch.obs.visual[:1, :2], batch.obs.proprio[:1, :2]))
    alone = model.rollout(context, batch.actions[2:3])
    torch.testing.assert_close(dynamics.rollout(context, batch.actions)[2:3], alone, rtol=0, atol=1e-5)


@torch.no_grad()
def test_half_precision_stays_inside_and_ranks_alike(make_model, make_batch):
    model, batch = make_model("align"), make_batch(clips=16, frames=3)
    encoder = tiny_encoder(ENCODER)
    wide, half = WorldModelDynamics(encoder, model), WorldModelDynamics(encoder, model, "bf16")
    start = Observation(batch.obs.visual[:1, :1], batch.obs.proprio[:1, :1])
    context = wide.encode(start)
    assert torch.equal(half.encode(start), context)
    imagined, rounded = (each.rollout(context, 3 * batch.actions) for each in (wide, half))
    assert torch.equal(imagined, model.rollout(context.expand(16, -1, -1, -1), 3 * batch.actions))
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - imagined).abs().max() < 0.1
    costs, rough = (each[:, -1].square().flatten(1).mean(dim=1) for each in (imagined, rounded))
    assert spearmanr(costs, rough).statistic > 0.95


def test_a_model_in_training_mode_is_refused(make_model):
    with pytest.raises(ValueError, match=r"^planning needs the model in evaluation mode: call model.eval\(\)$"):
        WorldModelDynamics(tiny_encoder(ENCODER), make_model().train())


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("attention", ["plain", "fused"])
@pytest.mark.parametrize(("depth", "horizon"), [(2, 5), (8, 5), (2, 12)])
def test_a_rollout_holds_about_what_it_says(depth: int, horizon: int, attention: str, graph: bool):
    predictor = PredictorConfig(depth=depth, heads=4, head_dim=16, mlp_dim=128, attention=attention)
    config = DinoWmConfig(proprio=NoProprio(), predictor=predictor)
    model = WorldModel(config, token_dim=22, tokens_per_frame=64, action_dim=2).eval().requires_grad_(False)
    dynamics, plans = WorldModelDynamics(tiny_encoder(ENCODER), model), 4
    context = torch.randn(1, 1, 64, model.content_dim)
    actions = torch.randn(plans, horizon, 2, requires_grad=graph)
    with profile(profile_memory=True) as seen, torch.set_grad_enabled(graph):
        cost = dynamics.rollout(context, actions)[:, -1].square().mean()
        if graph:
            torch.autograd.grad(cost, actions)
    changes = [event for event in seen.kineto_results.events() if event.name() == "[memory]"]
    sizes = np.cumsum([event.nbytes() for event in sorted(changes, key=lambda event: event.start_ns())])
    said = plans * model.rollout_bytes(horizon, graph=graph)
    assert 0.35 * said < sizes.max() < said
