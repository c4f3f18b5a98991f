"""The control planner: normal actions, and a model that is never asked."""

from __future__ import annotations

import torch

from tests.toys import generators
from wm.config.plan import RandomConfig
from wm.planning import RandomPlanner
from wm.types import WarmStart


class Untouchable:
    """A model and an objective that fail when asked."""

    action_dim = 2

    def encode(self, obs):
        raise AssertionError("the random planner asked the model")

    rollout = __call__ = encode


def test_the_model_is_never_asked_so_the_cost_is_unknown():
    planner = RandomPlanner(RandomConfig(horizon=4), 2)
    nothing = torch.zeros(3, 1, 1, 1)
    plan = planner.plan(Untouchable(), Untouchable(), nothing, nothing, None, generators(range(3)))
    assert plan.actions.shape == (3, 4, 2)
    assert plan.cost.shape == (3,)
    assert plan.cost.isnan().all()


def test_actions_are_standard_normal_and_follow_the_warm_start():
    planner = RandomPlanner(RandomConfig(horizon=5000), 2)
    nothing, start = torch.zeros(1, 1, 1, 1), torch.full((1, 10, 2), 9.0)
    plan = planner.plan(Untouchable(), Untouchable(), nothing, nothing, WarmStart(start), generators([0]))
    actions = plan.actions
    assert torch.equal(actions[:, :10], start)
    assert abs(float(actions[:, 10:].mean())) < 0.03  # 3 standard errors of 10,000 draws
    assert abs(float(actions[:, 10:].std()) - 1) < 0.03
