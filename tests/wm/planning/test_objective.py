"""The objective against the reference's numbers, and against itself written as a loop."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.golden.planners import check_objective
from wm.config.plan import ObjectiveConfig
from wm.contracts import Objective
from wm.planning.objective import LatentObjective, channel_split


def test_the_cost_is_the_reference_s(golden):
    check_objective(golden("objective"))


@pytest.mark.parametrize("frames", ["last", "all"])
def test_the_class_splits_channels_and_undoes_the_tiling(golden, assert_golden, frames):
    case = golden("objective")

    def latent(when: str) -> torch.Tensor:
        visual, proprio = case[f"in/{when}_visual"], case[f"in/{when}_proprio"]
        tiled = proprio[:, :, None].expand(-1, -1, visual.shape[2], -1)
        return torch.cat([visual, tiled], dim=3)

    for row, alpha in enumerate(case["in/alphas"]):
        objective = LatentObjective(ObjectiveConfig(alpha=float(alpha), frames=frames), channel_split(12))
        assert isinstance(objective, Objective)
        assert_golden(objective(latent("pred"), latent("goal")), case[f"out/{frames}"][row])


@settings(max_examples=40, deadline=None)
@given(
    num=st.integers(1, 4),
    horizon=st.integers(1, 6),
    patches=st.integers(1, 3),
    visual_dim=st.integers(1, 4),
    proprio_dim=st.integers(1, 3),
    alpha=st.floats(0, 3),
    base=st.floats(0.25, 4),
    seed=st.integers(0, 10**6),
)
def test_all_frames_is_the_loop_over_the_formula(num, horizon, patches, visual_dim, proprio_dim, alpha, base, seed):
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(num, horizon, patches, visual_dim + proprio_dim, generator=generator)
    goal = torch.randn(1, 1, patches, visual_dim + proprio_dim, generator=generator)
    objective = LatentObjective(ObjectiveConfig(alpha=alpha, frames="all", base=base), channel_split(visual_dim))
    total = sum(base**t for t in range(horizon))
    for n, cost in enumerate(objective(latents, goal)):
        expected = 0.0
        for t in range(horizon):
            error = (latents[n, t] - goal[0, 0]).square()
            frame = error[:, :visual_dim].mean() + alpha * error[:, visual_dim:].mean()
            expected += base**t / total * float(frame) / horizon
        assert float(cost) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_the_last_frame_alone_counts():
    generator = torch.Generator().manual_seed(0)
    latents, goal = torch.randn(3, 4, 2, 5, generator=generator), torch.randn(1, 1, 2, 5, generator=generator)
    objective = LatentObjective(ObjectiveConfig())
    changed = latents.clone()
    changed[:, :-1] += 1
    assert torch.equal(objective(latents, goal), objective(changed, goal))
    assert torch.equal(objective(goal.expand(3, 4, -1, -1), goal), torch.zeros(3))


@pytest.mark.parametrize("frames", ["last", "all"])
def test_each_row_may_have_its_own_goal(frames):
    latents, goals = torch.randn(3, 4, 2, 5), torch.randn(3, 1, 2, 5)
    objective = LatentObjective(ObjectiveConfig(alpha=0.5, frames=frames), channel_split(3))
    alone = [objective(latents[row : row + 1], goals[row : row + 1]) for row in range(3)]
    torch.testing.assert_close(objective(latents, goals), torch.cat(alone))


def test_without_proprio_channels_alpha_has_no_effect():
    generator = torch.Generator().manual_seed(0)
    latents, goal = torch.randn(3, 4, 2, 5, generator=generator), torch.randn(1, 1, 2, 5, generator=generator)
    visual_only = LatentObjective(ObjectiveConfig(alpha=0.0))(latents, goal)
    assert torch.equal(LatentObjective(ObjectiveConfig(alpha=9.0))(latents, goal), visual_only)


def test_bfloat16_latents_are_compared_in_float32():
    # In bfloat16, 1.0 and 1.001 would cost the same, and the search could not tell its candidates apart.
    latents = torch.ones(2, 1, 64, 8, dtype=torch.bfloat16)
    latents[1, 0, 0, 0] = 1.0078125
    cost = LatentObjective(ObjectiveConfig())(latents, torch.zeros(1, 1, 64, 8, dtype=torch.bfloat16))
    assert cost.dtype == torch.float32
    assert cost[1] > cost[0]
