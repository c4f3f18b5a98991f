"""What every world must do. A new world joins by a line in `WORLDS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pytest

from wm.build import build_world
from wm.config.worlds import (
    CanWorldConfig,
    GranularWorldConfig,
    LiftWorldConfig,
    LinearWorldConfig,
    PointMazeWorldConfig,
    PushTWorldConfig,
    RopeWorldConfig,
    SquareWorldConfig,
    StackWorldConfig,
    WallWorldConfig,
)
from wm.contracts import (
    World,
)
from wm.envs.linear import LinearWorld
from wm.envs.point_maze import PointMazeWorld
from wm.envs.pusht import PushTWorld
from wm.envs.wall import WallWorld


class Sample(NamedTuple):
    """One world of the suite.

    Args:
        make: a new one, its frames small.
        reset_atol: what `reset_to` may leave of a state that the world reached itself, with the reason in a comment.
    """

    make: Callable[[], World]
    reset_atol: float = 0.0


WORLDS: dict[str, Sample] = {
    "wall_fixed": Sample(lambda: WallWorld(WallWorldConfig(frame_size=84))),
    "wall_random": Sample(lambda: WallWorld(WallWorldConfig(frame_size=48, layout="random"))),
    "linear": Sample(lambda: LinearWorld(LinearWorldConfig(frame_size=32))),
    "linear_4d": Sample(lambda: LinearWorld(LinearWorldConfig(frame_size=32, seed=2), state_dim=4, action_dim=3)),
    "point_maze_umaze": Sample(lambda: PointMazeWorld(PointMazeWorldConfig(frame_size=48))),
    "point_maze_medium": Sample(lambda: PointMazeWorld(PointMazeWorldConfig(frame_size=48, layout="medium"))),
    "point_maze_random": Sample(lambda: PointMazeWorld(PointMazeWorldConfig(frame_size=48, layout="random"))),
    "pusht": Sample(lambda: PushTWorld(PushTWorldConfig(frame_size=84))),
    "pusht_shapes": Sample(lambda: PushTWorld(PushTWorldConfig(frame_size=48, shape=("L", "plus"), with_target=False))),
    "lift": Sample(lambda: build_world(LiftWorldConfig(frame_size=64))),
    "lift_joint": Sample(lambda: build_world(LiftWorldConfig(frame_size=64, control="joint"))),
    "can": Sample(lambda: build_world(CanWorldConfig(frame_size=64))),
    "square": Sample(lambda: build_world(SquareWorldConfig(frame_size=64))),
    "stack": Sample(lambda: build_world(StackWorldConfig(frame_size=64))),
    "rope": Sample(lambda: build_world(RopeWorldConfig(frame_size=48, start_pushes=1))),
    "granular": Sample(lambda: build_world(GranularWorldConfig(frame_size=48, start_pushes=1, num_grains=20))),
}


@pytest.fixture(params=list(WORLDS))
def sample(request: pytest.FixtureRequest) -> Sample:
    return WORLDS[request.param]


@pytest.fixture
def make(sample: Sample) -> Iterator[Callable[[], World]]:
    made: list[World] = []

    def one() -> World:
        made.append(sample.make())
        return made[-1]

    yield one
    for world in made:
        world.close()
        world.close()


@pytest.fixture
def world(make: Callable[[], World]) -> World:
    """A world at a layout and a start of its own."""
    world, rng = make(), np.random.default_rng(0)
    world.set_layout(world.sample_layout(rng))
    world.reset_to(world.sample_problem(rng)[0])
    return world


def some_actions(world: World, num_steps: int = 40, seed: int = 1) -> np.ndarray:
    """Within the world's range."""
    return np.random.default_rng(seed).uniform(
        world.action_low, world.action_high, (num_steps, len(world.action_names))
    )


def test_is_a_world(world: World) -> None:
    assert isinstance(world, World)
    assert world.state.shape == (len(world.state_names),)
    assert world.state.dtype == np.float64
    assert world.proprio.shape == (len(world.proprio_names),)
    assert world.proprio.dtype == np.float64
    for names in (world.action_names, world.state_names, world.proprio_names):
        assert len(set(names)) == len(names) > 0
    assert world.action_low.shape == world.action_high.shape == (len(world.action_names),)
    assert (world.action_low < world.action_high).all()


def test_a_new_world_can_be_used_at_once(make: Callable[[], World]) -> None:
    world = make()
    world.reset_to(world.state)
    world.step(np.zeros(len(world.action_names)))
    world.render()


def test_reset_round_trip(sample: Sample, world: World) -> None:
    for action in some_actions(world):
        reached = world.step(action)
        np.testing.assert_array_equal(reached, world.state)
        world.reset_to(reached)
        np.testing.assert_allclose(world.state, reached, rtol=0, atol=sample.reset_atol)


def test_same_actions_same_states(make: Callable[[], World], world: World) -> None:
    other = make()
    other.set_layout(world.layout)
    other.reset_to(world.state)
    for action in some_actions(world):
        np.testing.assert_array_equal(world.step(action), other.step(action))
    np.testing.assert_array_equal(world.render(), other.render())


def test_actions_matter(world: World) -> None:
    start = world.state
    for action in 0.1 * some_actions(world):  # one of them: a push over a table may touch nothing
        forth = world.step(action)
        world.reset_to(start)
        if not np.array_equal(world.step(-action), forth):
            return
        world.reset_to(start)
    pytest.fail("no action made a difference")


def test_snapshot_and_restore_are_exact(make: Callable[[], World], world: World) -> None:
    first, second = np.split(some_actions(world), 2)
    for action in first:
        world.step(action)
    snapshot, layout = world.snapshot(), dict(world.layout)
    expected = np.array([world.step(action) for action in second])
    frame = world.render()
    for place in (world, make()):  # the snapshot outlives both the steps after it and the world itself
        place.restore(snapshot)
        assert dict(place.layout) == layout
        np.testing.assert_array_equal([place.step(action) for action in second], expected)
        np.testing.assert_array_equal(place.render(), frame)


def test_returned_states_are_copies(world: World) -> None:
    before = world.state
    world.state[:] = 7
    world.proprio[:] = 7
    np.testing.assert_array_equal(world.state, before)
    world.step(np.zeros(len(world.action_names)))[:] = 7
    assert not np.array_equal(world.state, np.full_like(before, 7))


def test_inputs_are_not_changed_or_kept(world: World) -> None:
    state, action = world.state, np.full(len(world.action_names), 0.1)
    before = state.copy()
    world.reset_to(state)
    state[:] = 7
    np.testing.assert_array_equal(world.state, before)
    reached = world.step(action)
    np.testing.assert_array_equal(action, 0.1)
    action[:] = 7
    np.testing.assert_array_equal(world.state, reached)


def test_render(world: World) -> None:
    start = world.state
    frame = world.render()
    assert frame.shape == (world.frame_size, world.frame_size, 3)
    assert frame.dtype == np.uint8
    np.testing.assert_array_equal(world.state, start)
    np.testing.assert_array_equal(world.render(), frame)
    frame[:] = 0  # the caller may write on it
    assert world.render().any()


def test_state_shows_in_the_frame(world: World) -> None:
    start, goal = world.sample_problem(np.random.default_rng(4))
    world.reset_to(start)
    frame = world.render()
    world.reset_to(goal)
    assert not np.array_equal(world.render(), frame)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_step_refuses_what_is_not_finite(world: World, bad: float) -> None:
    before = world.state
    for component in range(len(world.action_names)):
        action = np.zeros(len(world.action_names))
        action[component] = bad
        with pytest.raises(ValueError, match="action"):
            world.step(action)
    np.testing.assert_array_equal(world.state, before)


def test_step_refuses_a_wrong_shape(world: World) -> None:
    size = len(world.action_names)
    for shape in ((size + 1,), (size - 1,), (1, size), ()):
        with pytest.raises(ValueError, match="action"):
            world.step(np.zeros(shape))


def test_reset_refuses_the_impossible(world: World) -> None:
    before, size = world.state, len(world.state_names)
    for state in (np.full(size, np.nan), np.full(size, np.inf), np.zeros(size + 1), np.zeros((1, size))):
        with pytest.raises(ValueError, match="state"):
            world.reset_to(state)
    np.testing.assert_array_equal(world.state, before)


def test_layout_round_trip(make: Callable[[], World]) -> None:
    world, other, rng = make(), make(), np.random.default_rng(2)
    for _ in range(5):
        layout = world.sample_layout(rng)
        world.set_layout(layout)
        assert dict(world.layout) == dict(layout)
        other.set_layout(world.layout)
        start, _goal = world.sample_problem(np.random.default_rng(0))
        world.reset_to(start)
        other.reset_to(start)
        np.testing.assert_array_equal(world.render(), other.render())


def test_layout_refuses_an_unknown_entry(world: World) -> None:
    before = dict(world.layout)
    with pytest.raises(ValueError, match="no_such_entry"):
        world.set_layout({**before, "no_such_entry": 1.0})
    assert dict(world.layout) == before


def test_layouts_and_problems_come_from_the_generator(make: Callable[[], World]) -> None:
    first, second, third = (
        (world.sample_layout(rng), *world.sample_problem(rng))
        for world, rng in ((make(), np.random.default_rng(seed)) for seed in (3, 3, 4))
    )
    assert first[0] == second[0]
    np.testing.assert_array_equal(first[1:], second[1:])
    assert not np.array_equal(first[1], third[1])


def test_global_random_state_is_not_touched(world: World) -> None:
    before = np.random.get_state()[1].copy()  # pyright: ignore[reportIndexIssue, reportAttributeAccessIssue]
    world.sample_problem(np.random.default_rng(0))
    world.sample_layout(np.random.default_rng(0))
    world.render()
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # pyright: ignore[reportIndexIssue, reportArgumentType]


def test_success_and_distance(world: World) -> None:
    for seed in range(10):
        start, goal = world.sample_problem(np.random.default_rng(seed))
        world.reset_to(start)  # both are possible states
        world.reset_to(goal)
        assert world.distance(goal, goal) == 0
        assert world.success(goal, goal) is True
        assert world.distance(start, goal) == world.distance(goal, start) > 0
        assert isinstance(world.success(start, goal), bool)
