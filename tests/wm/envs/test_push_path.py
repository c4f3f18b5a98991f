"""Where a push goes, by hand; the chamfer distance, by hand; the rule of random pushes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wm.envs.chamfer import chamfer_distance
from wm.envs.push_path import BRAKING, NO_PUSH, SPEED, Pusher, braking_steps, clear_way, make_push, random_push

STICK = Pusher(0.1, 0.1, round=True)
BOARD = Pusher(half_width=0.5, half_depth=0.1, round=False)


def test_chamfer_by_hand() -> None:
    first = np.array([[0.0, 0, 0], [1, 0, 0]])
    second = np.array([[0.0, 0, 3], [1, 0, 3], [1, 4, 3]])
    # From first: 3 and 3. From second: 3, 3 and 5. Neither squared nor halved.
    assert chamfer_distance(first, second) == pytest.approx(3 + 11 / 3)
    assert chamfer_distance(second, first) == pytest.approx(3 + 11 / 3)
    assert chamfer_distance(first, first[::-1]) == 0


def test_make_push_clips_and_points() -> None:
    push = make_push(np.array([-9.0, 1, 2, 1]))
    np.testing.assert_array_equal(push.start, [-4, 1])
    np.testing.assert_array_equal(push.direction, [1, 0])
    assert push.length == 6
    np.testing.assert_array_equal(make_push(np.ones(4)).direction, [0, 1])  # no length: the original's choice


def test_clear_way_by_hand() -> None:
    push = make_push(np.array([0.0, 0, 3, 0]))
    point = np.array([[2.0, 0.3]])
    assert clear_way(push, BOARD, point, clearance=0.1) == pytest.approx(2 - 0.1 - 0.1)
    assert clear_way(push, STICK, point, clearance=0.1) is None  # passes 0.3 to the side
    assert clear_way(push, STICK, point, clearance=0.25) == pytest.approx(2 - 0.1 - 0.25)
    assert clear_way(push, STICK, np.array([[0.1, 0.0], [2.0, 0.0]]), clearance=0.1) == 0  # lands on the first
    assert clear_way(push, STICK, np.array([[-1.0, 0.0], [4.0, 0.0]]), clearance=0.1) is None  # behind, and beyond


@given(st.floats(0, 8), st.floats(0.001, 0.02))
def test_braking_ends_at_the_end_and_slows_down(length: float, step_s: float) -> None:
    places = np.concatenate([[0.0], braking_steps(length, step_s)])
    assert places[-1] == pytest.approx(length)
    speeds = np.diff(places) / step_s
    assert (speeds <= SPEED + 1e-9).all()
    assert (speeds > 0).all()
    rest = length - places[:-1]
    assert (speeds <= np.maximum(np.sqrt(2 * BRAKING * rest), BRAKING * step_s) + 1e-6).all()


def test_random_pushes_follow_the_rule() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(-1, 1, (30, 2)), [[3.5, 3.5]]])  # one lies far from the rest
    starts = []
    for _ in range(300):
        start, end = random_push(points, rng).reshape(2, 2)
        starts.append(start)
        assert (np.abs(start) <= 4).all()
        assert (np.abs(end) < 1.5).all()
        assert np.linalg.norm(points - start, axis=1).min() > 0.2
        # The line goes through a particle whose x lies 1 before the end's.
        aims = points[np.abs(np.abs(end[0] - points[:, 0]) - 1) < 1e-9]
        along = (aims - start) @ np.array([start[1] - end[1], end[0] - start[0]]) / np.linalg.norm(end - start)
        assert np.abs(along).min() < 1e-9
    assert np.std(starts, axis=0).min() > 1.5


def test_random_push_gives_up_without_touching_anything() -> None:
    np.testing.assert_array_equal(random_push(np.full((5, 2), 3.9), np.random.default_rng(0)), NO_PUSH)
