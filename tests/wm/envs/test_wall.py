"""The Wall world against the original's golden numbers, and what was chosen where the original has no number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.golden.case import GOLDEN, load_case
from tests.golden.worlds import (
    check_wall_edge,
    check_wall_sampling,
    check_wall_sequence,
    check_wall_success,
    make_wall,
)
from wm.config.worlds import WallWorldConfig
from wm.envs.wall import WallWorld
from wm.envs.wall_rule import (
    BORDER_HIGH,
    BORDER_LOW,
    DOOR_HALF_HEIGHT,
    PIXELS_PER_ACTION,
    WALL_HALF_THICKNESS,
    next_position,
)

LAYOUTS = ["wall_fixed", "wall_random"]


def step_from(start: tuple[float, float], action: tuple[float, float]) -> tuple[float, float]:
    """One step at wall 32, door 30: faces at 29 and 35, door edges at 26 and 34."""
    world = make_wall()
    world.reset_to(np.array(start))
    x, y = world.step(np.array(action))
    return float(x), float(y)


@pytest.mark.parametrize("case", LAYOUTS)
@pytest.mark.parametrize("sequence", range(6))
def test_golden_sequences(case: str, sequence: int) -> None:
    check_wall_sequence(load_case(GOLDEN / "worlds" / f"{case}.npz"), sequence)


def test_golden_single_steps() -> None:
    golden = load_case(GOLDEN / "worlds" / "wall_edge.npz")
    check_wall_edge(golden)
    assert np.isnan(golden.arrays["out/states"]).sum() == 2  # where ours must choose


@pytest.mark.parametrize("case", LAYOUTS)
def test_golden_sampling(case: str) -> None:
    check_wall_sampling(load_case(GOLDEN / "worlds" / f"{case}.npz"))


@pytest.mark.parametrize("case", LAYOUTS)
def test_golden_evaluation(case: str) -> None:
    golden = load_case(GOLDEN / "worlds" / f"{case}.npz")
    check_wall_success(golden)
    assert set(golden.arrays["out/eval_success"]) == {0, 1}


def test_success_excludes_the_threshold() -> None:
    world = make_wall()
    assert not world.success(np.array([10.0, 10.0]), np.array([14.5, 10.0]))
    assert world.success(np.array([10.0, 10.0]), np.array([14.499, 10.0]))


@pytest.mark.parametrize(
    "start, action, expected",
    [
        pytest.param((20, 6.25), (0, -2), (20.5, 4.5), id="straight into the low border"),
        pytest.param((20, 57.75), (0, 2), (20.5, 59.5), id="straight into the high border"),
        pytest.param((20, 4), (0, 0), (20, 4), id="zero action on a border"),
        pytest.param((20, 4), (3, 0), (26, 4), id="along a horizontal border"),
        pytest.param((4, 20), (0, 3), (4, 26), id="along a vertical border"),
        pytest.param((29, 10), (0, 3), (29, 16), id="along a wall face"),
        pytest.param((4, 20), (1, 0), (4.5, 20.5), id="off a border inward: touching counts"),
        pytest.param((4, 20), (-1, 0), (4.5, 20.5), id="off a border outward"),
        pytest.param((60, 20), (1, 0), (59.5, 20.5), id="off the far border outward"),
        pytest.param((20, 30), (40, 0), (59.7, 30), id="through the door past the far border"),
        pytest.param((40, 30), (-40, 0), (4.3, 30), id="through the door past the near border"),
        pytest.param((2, 30), (0.25, 0), (2.5, 30), id="outside the border, inward"),
        pytest.param((2, 30), (-1, 0), (2, 30), id="outside the border, outward"),
    ],
)
def test_chosen_where_the_original_has_no_answer(
    start: tuple[float, float], action: tuple[float, float], expected: tuple[float, float]
) -> None:
    assert step_from(start, action) == pytest.approx(expected, abs=1e-12)


def test_original_oddities_are_kept() -> None:
    assert step_from((32, 33), (0, 1)) == (32, 35)  # dx = 0 is not stopped by the door's edge
    assert step_from((20, 20.25), (12, 0.5))[1] > 20.25 + 8.5 / 24 + 0.49  # a bounce drifts along the wall
    assert step_from((27, 30), (6, 0)) == (39, 30)  # the door lets a long move through


layouts = st.tuples(st.integers(20, 44), st.integers(10, 54))
action_parts = st.one_of(st.floats(-2, 2), st.floats(-1e6, 1e6), st.sampled_from([0.0, 1e-300, -1e-300, 1e300, -1e300]))


@settings(max_examples=400, deadline=None)
@given(
    layout=layouts,
    left_room=st.booleans(),
    across=st.floats(0, 1),
    y=st.floats(BORDER_LOW, BORDER_HIGH),
    actions=st.lists(st.tuples(action_parts, action_parts), min_size=1, max_size=8),
)
def test_dot_stays_in_the_plane(
    layout: tuple[int, int], left_room: bool, across: float, y: float, actions: list[tuple[float, float]]
) -> None:
    wall_x, door_y = map(float, layout)
    low, high = (BORDER_LOW, wall_x - WALL_HALF_THICKNESS) if left_room else (wall_x + WALL_HALF_THICKNESS, BORDER_HIGH)
    position = (low + across * (high - low), y)
    for action in actions:
        position = next_position(*position, *action, wall_x, door_y)
        assert np.isfinite(position).all()
        assert min(position) >= BORDER_LOW
        assert max(position) <= BORDER_HIGH


@settings(max_examples=400, deadline=None)
@given(
    layout=layouts,
    x=st.floats(4.5, 59.5),
    y=st.floats(4.5, 59.5),
    action=st.tuples(st.floats(-20, 20), st.floats(-20, 20)),
)
def test_dot_does_not_enter_the_wall(layout: tuple[int, int], x: float, y: float, action: tuple[float, float]) -> None:
    wall_x, door_y = map(float, layout)

    def depth(x: float, y: float) -> float:
        """How deep inside the wall's body, pixels; negative outside."""
        return min(WALL_HALF_THICKNESS - abs(x - wall_x), abs(y - door_y) - DOOR_HALF_HEIGHT)

    if depth(x, y) > -1e-9 or x + PIXELS_PER_ACTION * action[0] == x:
        return
    assert depth(*next_position(x, y, *action, wall_x, door_y)) < 1e-9


@pytest.mark.parametrize("wrong", [[np.nan, 1.0], [1.0, np.inf], [1.0], [1.0, 2.0, 3.0], [[1.0, 2.0]], [1e308, 0.0]])
def test_step_refuses(wrong: list[float]) -> None:
    world = make_wall()
    before = world.state
    with pytest.raises(ValueError, match="action"):
        world.step(np.array(wrong))
    np.testing.assert_array_equal(world.state, before)


@pytest.mark.parametrize(
    "wrong", [[np.nan, 1.0], [-0.1, 5.0], [5.0, 64.1], [64.1, 5.0], [5.0, -0.1], [1.0], [[1.0, 2.0]]]
)
def test_reset_refuses(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match="state"):
        make_wall().reset_to(np.array(wrong))


@pytest.mark.parametrize("corner", [(0.0, 0.0), (64.0, 64.0), (32.0, 10.0)])
def test_reset_accepts_the_whole_picture(corner: tuple[float, float]) -> None:
    world = make_wall()
    world.reset_to(np.array(corner))
    np.testing.assert_array_equal(world.state, corner)


@pytest.mark.parametrize(
    "layout, named",
    [
        ({"wall_x": 32.0, "door_y": 30.0, "door": 3.0}, "'door'"),
        ({"wall_x": 32.0}, "'door_y'"),
        ({"wall_x": 10.0, "door_y": 30.0}, "'wall_x'"),
        ({"wall_x": 32.0, "door_y": 57.0}, "'door_y'"),
        ({"wall_x": float("nan"), "door_y": 30.0}, "'wall_x'"),
    ],
)
def test_set_layout_refuses(layout: dict[str, float], named: str) -> None:
    world = make_wall()
    with pytest.raises(ValueError, match=named):
        world.set_layout(layout)
    assert world.layout == {"wall_x": 32.0, "door_y": 30.0}


def test_random_layouts_cover_their_ranges() -> None:
    rng = np.random.default_rng(0)
    world = WallWorld(WallWorldConfig(layout="random"))
    drawn = [world.sample_layout(rng) for _ in range(2000)]
    assert {layout["wall_x"] for layout in drawn} == set(range(20, 45))
    assert {layout["door_y"] for layout in drawn} == set(range(10, 55))


def test_fixed_layout_draws_nothing() -> None:
    rng = np.random.default_rng(0)
    assert WallWorld(WallWorldConfig()).sample_layout(rng) == {"wall_x": 32.0, "door_y": 30.0}
    assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize("wall_x", [20.0, 44.0])
def test_problems_lie_in_opposite_rooms_with_a_margin(wall_x: float) -> None:
    world, rng = make_wall(wall_x), np.random.default_rng(0)
    problems = np.array([world.sample_problem(rng) for _ in range(500)])
    left, right = problems[..., 0].min(axis=1), problems[..., 0].max(axis=1)
    assert left.min() >= 7.4
    assert left.max() <= wall_x - 6.4
    assert wall_x + 6.4 <= right.min()
    assert right.max() <= 56.6
    assert problems[..., 1].min() >= 7.4
    assert problems[..., 1].max() <= 56.6
    assert 0.4 < np.mean(problems[:, 0, 0] < wall_x) < 0.6
