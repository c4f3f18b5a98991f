"""Recorded actions reach the goals that are drawn from them, in every world: what is compared with a planner can be done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from ray_jobs.make_data import make_data
from tests.wm.data.samples import user_error
from wm.build import build_world
from wm.config.catalogue import config_of, source_kinds, world_kinds
from wm.contracts import Source
from wm.data.dataset import open_source
from wm.data.sources.detect import settings_of
from wm.evaluation.planning import recorded_outcome
from wm.evaluation.problems import dataset_problems, load_problems, save_problems

PROBLEMS = 4


class Recording(NamedTuple):
    """How a world's data are made here; goals lie `goal` env steps from their starts."""

    steps: int
    goal: int
    size: int = 64
    episodes: int = 3
    policy: str | None = None
    overrides: tuple[str, ...] = ()
    is_slow: bool = False


ARM = {"steps": 45, "goal": 15, "episodes": 2, "policy": "expert", "is_slow": True}  # at random it moves nothing
WORLDS = {
    "wall": Recording(40, 15, 28, overrides=("world.layout=random",)),
    "linear": Recording(40, 15, is_slow=True),  # videos
    "point_maze": Recording(40, 15),
    "pusht": Recording(40, 15, overrides=("world.shape=[T, L]",)),
    "rope": Recording(6, 2, 48, overrides=("world.start_pushes=1",), is_slow=True),
    "granular": Recording(8, 3, 48, overrides=("world.num_grains=20", "world.start_pushes=1"), is_slow=True),
    **{kind: Recording(**ARM) for kind in ("lift", "can", "square", "stack")},
}
EVERY = [pytest.param(kind, marks=pytest.mark.slow if made.is_slow else ()) for kind, made in WORLDS.items()]


def test_no_world_is_left_out() -> None:
    assert set(WORLDS) == set(world_kinds()) - {"custom"}  # one from outside: tests/test_contributing_world.py


def recorded(kind: str, out: Path, **more: Any) -> tuple[Any, Source]:
    """The world's config and its data."""
    made = WORLDS[kind]
    given = {"policy": made.policy, "overrides": made.overrides, **more}
    make_data(kind, out, episodes=made.episodes, steps=made.steps, frame_size=made.size, actors=0, **given)
    config = json.dumps(json.loads((out / "recipe.json").read_text())["world_config"])
    settings = settings_of(out, {})
    source = open_source(config_of(source_kinds(), settings.pop("kind"), settings, "source", "kind"), "data", out)
    return world_kinds()[kind].model_validate_json(config), source


@pytest.mark.parametrize("kind", EVERY)
def test_recorded_actions_reach_every_goal(kind: str, tmp_path: Path) -> None:
    """From a file, in a world that drew none of them, in any order and again: nothing is left of the problem before."""
    made = WORLDS[kind]
    config, source = recorded(kind, tmp_path / "data")
    held_out = [("data", index) for index in range(made.episodes)]
    drawn = dataset_problems(
        build_world(config), {"data": source}, held_out, count=PROBLEMS, goal_horizon=made.goal, frameskip=1, seed=0
    )
    save_problems(tmp_path / "problems.npz", drawn)
    problems = load_problems(tmp_path / "problems.npz")
    world = build_world(config)
    forward = [recorded_outcome(world, problem) for problem in problems]
    backward = [recorded_outcome(world, problem) for problem in reversed(problems)][::-1]
    for problem, one, other in zip(problems, forward, backward, strict=True):
        assert one.failure is None
        assert one.success
        assert one.final_success
        assert one.success_by_iteration == [True]
        assert len(one.actions) == made.goal
        np.testing.assert_array_equal(one.states[0], problem.state_0)
        np.testing.assert_array_equal(one.states[-1], problem.state_g)
        assert one.state_distance == 0 < one.initial_distance
        assert not world.success(np.array(one.states[0]), problem.state_g)  # it had something to do
        assert (one.success, one.states) == (other.success, other.states)
    world.close()


def test_data_in_which_nothing_moves_give_no_problems(tmp_path: Path) -> None:
    config, source = recorded(
        "wall", tmp_path / "data", policy="random", overrides=["policy.distribution=normal", "policy.std=0"]
    )
    message = user_error(
        lambda: dataset_problems(
            build_world(config), {"data": source}, [("data", 0)], count=2, goal_horizon=3, frameskip=5, seed=0
        )
    )
    assert message == (
        "plan.problems: in none of 25 starts of held-out episodes do the recorded actions lead away from where they began; "
        "record data in which something moves, or say plan.problems=random"
    )
