"""The point maze: the original's numbers, its picture, its mazes and its shifts."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from tests.golden.case import GOLDEN, load_case
from tests.golden.worlds_maze import check_point_maze_sampling, check_point_maze_sequence
from wm.build import build_world
from wm.config.worlds import PointMazeWorldConfig
from wm.envs.point_maze import PointMazeWorld
from wm.envs.point_maze_layouts import MEDIUM, UMAZE, Maze

CASE = load_case(GOLDEN / "worlds" / "point_maze_umaze.npz")
SHIFTS = ("light", "colours", "background", "camera", "agent_size")
EXTENT = 9.734847  # of the U maze, in mujoco 3.9: the camera's distance


def make(**config: object) -> PointMazeWorld:
    return PointMazeWorld(PointMazeWorldConfig.model_validate({"frame_size": 32, **config}))


def run(world: PointMazeWorld, actions: np.ndarray) -> np.ndarray:
    return np.array([world.step(action) for action in actions])


@pytest.mark.parametrize("sequence", range(4))
def test_golden_transitions(sequence: int) -> None:
    check_point_maze_sequence(CASE, sequence)


def test_golden_problems() -> None:
    check_point_maze_sampling(CASE)


def test_it_is_built_from_its_config_and_only_then_imports_mujoco() -> None:
    assert isinstance(build_world(PointMazeWorldConfig()), PointMazeWorld)
    code = "import sys, wm.build; assert not {'mujoco', 'wm.envs.point_maze'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_velocity_is_clipped_before_the_step_and_the_action_always() -> None:
    fast, faster = (make() for _ in range(2))
    fast.reset_to(np.array([0.8, 1.8, 0, 5.0]))
    faster.reset_to(np.array([0.8, 1.8, 0, 9.0]))
    assert faster.state[3] == 9
    np.testing.assert_array_equal(fast.step(np.array([0, 1.0])), faster.step(np.array([0, 3.0])))
    assert 5 < fast.state[3] < 6.2
    still = make()
    still.reset_to(np.array([0.8, 0.8, 0, 0]))
    assert still.step(np.array([0, 1.0]))[3] == pytest.approx(1.185, abs=1e-3)


@pytest.mark.parametrize("layout", ["umaze", "medium", "random"])
def test_the_state_is_everything_also_in_the_middle_of_a_hit(layout: str) -> None:
    world, other, rng = make(layout=layout), make(layout=layout), np.random.default_rng(0)
    world.reset_to(world.sample_problem(rng)[0])
    for action in np.repeat(rng.choice([-1.0, 1.0], size=(20, 2)), 6, axis=0):
        other.reset_to(world.state)
        np.testing.assert_array_equal(world.step(action), other.step(action))


@pytest.mark.parametrize("shift", ["none", "agent_size"])
def test_the_hardest_hits_leave_states_that_can_be_reset_to(shift: str) -> None:
    world, rng = make(layout="medium", shift=shift), np.random.default_rng(0)
    for _ in range(150):
        start = world.sample_problem(rng)[0]
        start[2:] = rng.choice([-9.0, 9.0], size=2)
        world.reset_to(start)
        for _ in range(6):
            world.reset_to(world.step(np.sign(world.state[2:])))


def ball_in(frame: np.ndarray) -> np.ndarray:
    """Column and row of the middle of what is green."""
    red, green, blue = frame.astype(int).transpose(2, 0, 1)
    rows, columns = np.nonzero((green > red + 30) & (green > blue + 30))
    return np.array([columns.mean(), rows.mean()]) + 0.5


@pytest.mark.parametrize("place", [(0.8, 0.8), (0.8, 2.8), (1.8, 2.8), (2.8, 0.7)])
def test_where_the_ball_is_seen(place: tuple[float, float]) -> None:
    """x is the column and y the row, around the middle of the maze, as in the published frames."""
    world = make(frame_size=224)
    world.reset_to(np.array([*place, 0, 0]))
    pixels_per_unit = 112 / (EXTENT * math.tan(math.radians(45 / 2)))
    assert pixels_per_unit == pytest.approx(28, abs=0.3)
    expected = 112 + pixels_per_unit * (np.array(place) + 1.2 - 3)
    np.testing.assert_allclose(ball_in(world.render()), expected, atol=0.7)


def test_walls_are_seen_where_they_are_felt() -> None:
    world, rng = make(layout="random", frame_size=224), np.random.default_rng(1)
    for _ in range(3):
        world.set_layout(world.sample_layout(rng))
        maze = Maze.from_layout(world.layout)
        frame, middle = world.render().astype(int), 3.5
        distance = 10.734847 - 0.2  # to the top of a wall
        pixels_per_unit = 112 / (distance * math.tan(math.radians(45 / 2)))
        is_wall = frame[..., 0] > frame[..., 2]
        for row in range(6):
            for column in range(6):
                x, y = 112 + pixels_per_unit * (row + 1 - middle), 112 + pixels_per_unit * (column + 1 - middle)
                assert is_wall[int(y), int(x)] == ((row, column) in maze.closed_cells)


def test_a_maze_looks_the_same_in_a_world_that_began_as_another() -> None:
    world, medium = make(), make(layout="medium")
    world.render()
    world.set_layout(medium.layout)
    np.testing.assert_array_equal(world.render(), medium.render())


def test_equal_states_give_equal_frames_however_they_were_reached() -> None:
    world, other = make(), make()
    world.reset_to(np.array([0.8, 1.5, 1.0, 4.0]))
    world.step(np.array([0.5, 1.0]))
    other.reset_to(world.state)
    np.testing.assert_array_equal(world.render(), other.render())


@pytest.mark.parametrize(
    "state, said",
    [
        ((1.8, 0.8, 0, 0), r"\(x, y\) = \(1.8, 0.8\) is in a wall"),
        ((0.31, 0.8, 0, 0), "is in a wall"),
        ((0.2, 0.8, 0, 0), r"'x' is 0.2, outside the maze; expected a number in \[0.3, 3.3\]"),
        ((0.8, 40, 0, 0), "'y' is 40, outside the maze"),
    ],
)
def test_no_ball_in_a_wall(state: tuple[float, ...], said: str) -> None:
    world = make()
    before = world.state
    with pytest.raises(ValueError, match=said):
        world.reset_to(np.array(state))
    np.testing.assert_array_equal(world.state, before)


def test_the_ball_stays_where_it_is_in_a_new_maze_if_it_can() -> None:
    world = make()
    state = np.array([2.8, 0.7, 1.0, -2.0])
    world.reset_to(state)
    world.set_layout(MEDIUM.to_layout())  # closed there
    np.testing.assert_allclose(world.state, [0.8, 0.8, 0, 0])
    world.reset_to(np.array([1.7, 0.8, 1.0, -2.0]))
    world.set_layout(UMAZE.to_layout())
    np.testing.assert_allclose(world.state, [0.8, 0.8, 0, 0])
    world.set_layout(MEDIUM.to_layout())
    np.testing.assert_allclose(world.state, [0.8, 0.8, 0, 0])
    world.reset_to(np.array([0.9, 0.9, 1.0, -2.0]))
    world.set_layout(UMAZE.to_layout())
    np.testing.assert_allclose(world.state, [0.9, 0.9, 1.0, -2.0])


@pytest.mark.parametrize("layout", ["umaze", "medium", "random"])
def test_problems_are_in_the_open_and_not_solved(layout: str) -> None:
    world, rng = make(layout=layout), np.random.default_rng(0)
    drawn = []
    for _ in range(100):
        start, goal = world.sample_problem(rng)
        assert not world.success(start, goal)
        for state in (start, goal):
            world.reset_to(state)
            np.testing.assert_array_equal(world.step(np.zeros(2))[2:] != 0, True)
        drawn += [start, goal]
    reached = {tuple(np.rint(state[:2] + 0.2).astype(int)) for state in drawn}
    assert reached == set(Maze.from_layout(world.layout).open_cells)
    assert np.abs(np.array(drawn)[:, 2:]).max() <= 5.2262554


def test_only_the_random_layout_is_drawn() -> None:
    rng = np.random.default_rng(0)
    assert make().sample_layout(rng) == UMAZE.to_layout()
    assert make(layout="medium").sample_layout(rng) == MEDIUM.to_layout()
    drawn = {Maze.from_layout(make(layout="random").sample_layout(rng)) for _ in range(20)}
    assert len(drawn) == 20


def test_every_shift_is_seen() -> None:
    frames = {make(shift=shift).render().tobytes() for shift in ("none", *SHIFTS)}
    assert len(frames) == 6


def test_a_shift_of_the_picture_leaves_the_motion_alone() -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (60, 2))
    start = np.array([0.8, 1.8, 2.0, 3.0])
    paths = {}
    for shift in ("none", *SHIFTS):
        world = make(shift=shift)
        world.reset_to(start)
        paths[shift] = run(world, actions)
    for shift in ("light", "colours", "background", "camera"):
        np.testing.assert_array_equal(paths[shift], paths["none"])
    np.testing.assert_allclose(paths["agent_size"][0], paths["none"][0], rtol=0, atol=1e-12)  # the mass is the same
    assert np.abs(paths["agent_size"] - paths["none"]).max() > 0.04


def test_a_larger_ball_stops_farther_from_the_wall() -> None:
    for shift, radius in (("none", 0.1), ("agent_size", 0.15)):
        world = make(shift=shift)
        world.reset_to(np.array([0.8, 1.8, 0, 0]))
        run(world, np.tile([-0.2, 0.0], (60, 1)))
        assert world.state[0] == pytest.approx(0.3 + radius, abs=0.01)
