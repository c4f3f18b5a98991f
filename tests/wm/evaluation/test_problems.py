"""Planning problems: reachable, held out, the same for everybody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.wm.data.layouts import open_layout, write_episodes, write_layout
from tests.wm.data.samples import SIZE, refusal, same, user_error, wall_dataset
from wm.build import build_world
from wm.config.data import DinoWmSourceConfig
from wm.config.worlds import PointMazeWorldConfig, PushTWorldConfig, RopeWorldConfig, WallWorldConfig
from wm.contracts import World
from wm.data.sources.file_source import FileEpisode
from wm.envs.demonstrations import make_episodes
from wm.evaluation.problems import _layout, dataset_problems, load_problems, random_problems, save_problems
from wm.types import Problem


def wall() -> World:
    return build_world(WallWorldConfig(frame_size=SIZE, layout="random"))


def draw(count: int = 6, **values: Any) -> list[Problem]:
    dataset = wall_dataset()
    given = {"goal_horizon": 3, "frameskip": 5, "seed": 0, **values}
    return dataset_problems(wall(), dataset.sources, dataset.held_out_episodes(), count=count, **given)


def test_starts_are_recorded_and_held_out() -> None:
    dataset = wall_dataset()
    held_out = {index for _, index in dataset.held_out_episodes()}
    problems = draw()
    assert len({problem.id for problem in problems}) == len(problems)
    for problem in problems:
        episode_number, start = (int(part) for part in problem.id.removeprefix("wall/").split("@"))
        assert episode_number in held_out
        episode = dataset.sources["wall"].episode(episode_number)
        assert episode.state is not None
        assert episode.actions is not None
        assert dict(problem.layout) == dict(episode.tags)
        np.testing.assert_array_equal(problem.state_0, episode.state[start])
        np.testing.assert_array_equal(problem.gt_actions, episode.actions[start : start + 15])
        np.testing.assert_allclose(problem.state_g, episode.state[start + 15], atol=1e-3)
        np.testing.assert_array_equal(problem.frame_0, episode.frames([start])[0])
        assert problem.goal_horizon == 3
    assert {int(problem.id.split("/")[1].split("@")[0]) for problem in draw(12)} == held_out


def test_tags_beyond_the_layout_stay_out_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, made = draw(2), FileEpisode.__init__

    def tagged(self: Any, *given: Any) -> None:
        made(self, *given)
        self.tags = {**self.tags, "success": 1.0, "task": 3.0}

    monkeypatch.setattr(FileEpisode, "__init__", tagged)
    assert all(same(vars(a), vars(b)) for a, b in zip(draw(2), expected, strict=True))


def test_a_maze_may_have_more_rows_than_the_world_has_now() -> None:
    from types import SimpleNamespace

    world: Any = SimpleNamespace(layout={"rows": 2.0, "row_0": 1.0, "row_1": 3.0})
    tags = {"rows": 3.0, "row_0": 1.0, "row_1": 1.0, "row_2": 7.0, "demo": 4.0}
    assert set(_layout(world, tags)) == set(tags) - {"demo"}


def test_replay_reaches_the_goal_exactly() -> None:
    world = wall()
    for problem in draw():
        world.set_layout(problem.layout)
        world.reset_to(problem.state_0)
        np.testing.assert_array_equal(world.render(), problem.frame_0)
        np.testing.assert_array_equal(world.proprio, problem.proprio_0)
        assert problem.gt_actions is not None
        for action in problem.gt_actions:
            world.step(action)
        np.testing.assert_array_equal(world.state, problem.state_g)
        np.testing.assert_array_equal(world.render(), problem.frame_g)
        np.testing.assert_array_equal(world.proprio, problem.proprio_g)


def test_none_is_solved_at_the_start() -> None:
    world = wall()
    assert not any(world.success(problem.state_0, problem.state_g) for problem in draw(12, goal_horizon=1))


def test_the_same_seed_gives_the_same_problems() -> None:
    assert all(same(vars(a), vars(b)) for a, b in zip(draw(), draw(), strict=True))
    assert [p.id for p in draw(seed=1)] != [p.id for p in draw()]
    assert [p.id.split("@")[0] for p in draw(goal_horizon=4)] != [p.id.split("@")[0] for p in draw()]


def test_fewer_problems_are_the_first_of_more() -> None:
    assert [problem.id for problem in draw(4)] == [problem.id for problem in draw(9)][:4]
    few, more = (random_problems(wall(), count=n, goal_horizon=3, seed=0) for n in (2, 4))
    assert all(same(vars(a), vars(b)) for a, b in zip(few, more[:2], strict=True))


def test_a_goal_beyond_the_episodes_is_refused() -> None:
    message = user_error(lambda: draw(goal_horizon=8))
    for part in ("evaluate.grid.goal_horizons", "8 model steps", "41 env steps", "has 40"):
        assert part in message


def test_the_longest_goal_that_fits() -> None:
    problems = draw(1, goal_horizon=39, frameskip=1)
    assert problems[0].id.endswith("@0")


def test_more_problems_than_there_are_is_refused() -> None:
    message = user_error(lambda: draw(1000))
    count = int(message.rsplit("plan.episodes=", 1)[1])
    assert 0 < count <= 2 * 25
    assert len(draw(count)) == count  # what the message proposes works


def test_without_states_there_are_only_random_problems() -> None:
    dataset = wall_dataset(sources={"wall": DinoWmSourceConfig(path="wall", labels="none")})
    held_out = dataset.held_out_episodes()
    message = user_error(
        lambda: dataset_problems(wall(), dataset.sources, held_out, count=1, goal_horizon=1, frameskip=5, seed=0)
    )
    assert "plan.problems=random" in message


def test_random_problems_are_the_worlds() -> None:
    world = wall()
    problems = random_problems(world, count=4, goal_horizon=3, seed=0)
    assert len({tuple(problem.layout.values()) for problem in problems}) > 1
    for problem in problems:
        world.set_layout(problem.layout)
        for state, frame, proprio in (
            (problem.state_0, problem.frame_0, problem.proprio_0),
            (problem.state_g, problem.frame_g, problem.proprio_g),
        ):
            world.reset_to(state)
            np.testing.assert_array_equal(world.render(), frame)
            np.testing.assert_array_equal(world.proprio, proprio)
    assert [p.id for p in problems] == [f"wall/random/{n}" for n in range(4)]


def test_round_trip_without_pickles(tmp_path: Path) -> None:
    problems = [*draw(12), *random_problems(wall(), count=1, goal_horizon=3, seed=0)]
    save_problems(tmp_path / "problems.npz", problems)
    back = load_problems(tmp_path / "problems.npz")
    assert all(same(vars(a), vars(b)) for a, b in zip(back, problems, strict=True))
    assert back[-1].gt_actions is None
    with np.load(tmp_path / "problems.npz", allow_pickle=False) as arrays:
        assert not any(arrays[key].dtype.hasobject for key in arrays.files)


def test_damaged_problems_are_named(tmp_path: Path) -> None:
    file = tmp_path / "problems.npz"
    save_problems(file, draw(2))
    whole, rng = file.read_bytes(), np.random.default_rng(0)
    damaged = [b"", b"PK\x03\x04", whole[: len(whole) // 2], b"not an archive"]
    for _ in range(20):
        flipped = bytearray(whole)
        flipped[int(rng.integers(100, len(whole) - 400))] ^= 0xFF
        damaged.append(bytes(flipped))
    refused = 0
    for content in damaged:
        file.write_bytes(content)
        message = refusal(lambda: load_problems(file))
        assert message is None or str(file) in message
        refused += message is not None
    assert refused > 15
    assert str(tmp_path / "absent.npz") in user_error(lambda: load_problems(tmp_path / "absent.npz"))


@pytest.mark.parametrize("count", [1, 5])
def test_the_world_may_be_anywhere_before(count: int) -> None:
    dataset, used = wall_dataset(), wall()
    used.step(np.array([3.0, 3.0]))
    again = dataset_problems(
        used, dataset.sources, dataset.held_out_episodes(), count=count, goal_horizon=3, frameskip=5, seed=0
    )
    assert all(same(vars(a), vars(b)) for a, b in zip(again, draw(count), strict=True))


class Wander:
    """Actions within the world's limits, from wherever it starts."""

    def reset(self, world: World, rng: np.random.Generator) -> None:
        world.reset_to(world.sample_problem(rng)[0])

    def act(self, world: World, rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(world.action_low, world.action_high)


@pytest.mark.parametrize(
    ("layout", "config", "episodes", "steps"),
    [
        ("pusht_noise", PushTWorldConfig(frame_size=64, shape=("L",)), 6, 12),
        ("point_maze", PointMazeWorldConfig(frame_size=64), 4, 12),
        ("deformable", RopeWorldConfig(frame_size=64), 3, 4),
    ],
)
def test_starts_of_every_layout_are_put_back_in_its_world(
    layout: str, config: Any, episodes: int, steps: int, tmp_path: Path
) -> None:
    """Whatever the files say more of a state than the world does, and what they leave out of its layout."""
    world = build_world(config)
    recorded = list(make_episodes(world, Wander(), episodes, steps, seed=0))
    write_episodes(layout, tmp_path, recorded)
    source = open_layout(layout, tmp_path)
    held_out = [("data", index) for index in range(episodes)]
    problems = dataset_problems(
        build_world(config), {"data": source}, held_out, count=2, goal_horizon=1, frameskip=steps // 2, seed=0
    )
    for problem in problems:
        index, start = (int(part) for part in problem.id.split("/")[1].split("@"))
        np.testing.assert_array_equal(problem.state_0, recorded[index].states[start])
        assert dict(problem.layout) == dict(recorded[index].layout)
        world.set_layout(problem.layout)
        world.reset_to(problem.state_0)
        np.testing.assert_array_equal(world.render(), problem.frame_0)


def test_states_that_a_world_cannot_take_up(tmp_path: Path) -> None:
    write_layout("deformable", tmp_path / "rope")
    write_layout("point_maze", tmp_path / "maze")
    rope, maze = open_layout("deformable", tmp_path / "rope"), open_layout("point_maze", tmp_path / "maze")
    given = {"count": 1, "goal_horizon": 1, "frameskip": 2, "seed": 0}
    message = user_error(
        lambda: dataset_problems(build_world(RopeWorldConfig(frame_size=64)), {"a": rope}, [("a", 0)], **given)
    )
    assert "data.sources.deformable has no x3, y3" in message
    world = build_world(PointMazeWorldConfig(frame_size=64))
    message = user_error(lambda: dataset_problems(world, {"a": maze}, [("a", 0)], **given))
    assert "cannot take up point_maze/000 at step" in message
    assert "plan.problems=random" in message
