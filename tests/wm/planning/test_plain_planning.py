"""Ours against the reference's way of planning, written out (tests/benchmarks/plain_planning.py), from pixels to plans."""

from __future__ import annotations

import pytest
import torch

from tests.benchmarks.plain_planning import PlainWorld, plain_cem
from tests.golden.case import GOLDEN, assert_golden, load_case
from tests.golden.planners import toy_dynamics, toy_objective
from wm.build_planning import build_objective
from wm.config.encoder import TinyEncoderConfig
from wm.config.model import DinoWmConfig, PredictorConfig
from wm.config.plan import CemConfig, ObjectiveConfig
from wm.encoders.vit import tiny_encoder
from wm.models.dynamics import WorldModelDynamics
from wm.models.world_model import WorldModel
from wm.planning.candidates import candidate_costs
from wm.planning.cem import CemPlanner
from wm.types import Observation

PROBLEMS, ACTION_DIM = 2, 4
SEARCH = CemConfig(horizon=5, num_samples=16, num_elites=5, num_iterations=2)
ENCODER = TinyEncoderConfig(image_size=28, hidden_size=12, depth=1, heads=2)


def world_model(attention: str, history: int, concat: str) -> WorldModel:
    torch.manual_seed(0)
    predictor = PredictorConfig(depth=3, heads=2, head_dim=8, mlp_dim=32, attention=attention)
    config = DinoWmConfig(history_len=history, concat=concat, predictor=predictor)
    return WorldModel(config, token_dim=12, tokens_per_frame=4, action_dim=ACTION_DIM, proprio_dim=2).eval()


def observations(seed: int) -> Observation:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (PROBLEMS, 1, 28, 28, 3), dtype=torch.uint8, generator=generator)
    return Observation(pixels, torch.randn(PROBLEMS, 1, 2, generator=generator))


@pytest.mark.parametrize("concat", ["channel", "token"])
@pytest.mark.parametrize("history", [1, 2, 3, 6])
def test_the_same_noise_gives_the_same_costs_and_the_same_plan(history: int, concat: str):
    """Encoded once, all problems in chunks of 7, fused, each frame once where it can be: nothing of it shows."""
    encoder = tiny_encoder(ENCODER)
    starts, goals = observations(0), observations(1)
    world = PlainWorld(encoder, world_model("plain", history, concat), starts, goals)
    generators = [torch.Generator().manual_seed(seed) for seed in range(PROBLEMS)]
    shape = (SEARCH.num_samples, SEARCH.horizon, ACTION_DIM)
    mean = torch.zeros(PROBLEMS, SEARCH.horizon, ACTION_DIM)
    expected = plain_cem(SEARCH, mean, world.cost, lambda problem: torch.randn(shape, generator=generators[problem]))

    model = world_model("fused", history, concat)
    dynamics, objective = WorldModelDynamics(encoder, model), build_objective(ObjectiveConfig(), model)
    context, goal = dynamics.encode(starts), dynamics.encode(goals)
    generators = [torch.Generator().manual_seed(seed) for seed in range(PROBLEMS)]
    found = CemPlanner(SEARCH, ACTION_DIM, 7).plan(dynamics, objective, context, goal, None, generators)
    torch.testing.assert_close(found.actions, expected.actions, rtol=0, atol=1e-5)
    for candidates, costs in zip(expected.candidates, expected.costs, strict=True):
        ours = candidate_costs(dynamics, objective, context, goal, candidates, 7)
        torch.testing.assert_close(ours, costs, rtol=1e-5, atol=1e-6)
        assert costs.std() > 1e-3 * costs.mean()  # actions matter


def test_the_plain_search_is_the_reference_s():
    case = load_case(GOLDEN / "dino_wm" / "cem.npz")
    problems = range(case.size("n_evals"))
    config = CemConfig(
        horizon=case.size("horizon"),
        num_samples=case.size("num_samples"),
        num_elites=case.size("topk"),
        num_iterations=case.size("opt_steps"),
        init_std=case.cfg("var_scale"),
    )
    context, goal = case.states("obs0", problems), case.states("goal", problems)
    dynamics, objective = toy_dynamics(case), toy_objective(case)
    noise = [iter(case["in/noise"][:, problem]) for problem in problems]

    def cost(problem: int, actions: torch.Tensor) -> torch.Tensor:
        row = slice(problem, problem + 1)
        return objective(dynamics.rollout(context[row], actions), goal[row])

    mean = torch.zeros(len(problems), config.horizon, case.size("action_dim"))
    found = plain_cem(config, mean, cost, lambda problem: next(noise[problem]))
    assert_golden(found.candidates, case["out/candidates"])
    assert_golden(found.costs, case["out/cost"])
    assert_golden(found.actions, case["out/plan"])
