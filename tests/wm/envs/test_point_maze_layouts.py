"""Mazes and their layouts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from wm.envs.point_maze_layouts import MEDIUM, UMAZE, Maze

U_LAYOUT = {"rows": 3.0, "columns": 3.0, "open_row_1": 7.0, "open_row_2": 4.0, "open_row_3": 7.0}


def test_the_u_as_numbers() -> None:
    assert UMAZE.to_layout() == U_LAYOUT
    assert Maze.from_layout(U_LAYOUT) == UMAZE
    assert UMAZE.open_cells == [(1, 1), (1, 2), (1, 3), (2, 3), (3, 1), (3, 2), (3, 3)]
    assert len(UMAZE.closed_cells) == 25 - 7
    assert {(2, 1), (2, 2), (0, 0), (4, 4)} <= set(UMAZE.closed_cells)


def test_medium_and_an_oblong_maze() -> None:
    assert MEDIUM.sides == (6, 6)
    assert len(MEDIUM.open_cells) == 26
    oblong = Maze.from_rows(["OOOOO", "#O##O"])
    assert oblong.sides == (2, 5)
    assert Maze.from_layout(oblong.to_layout()) == oblong
    assert oblong != UMAZE


def test_steps_are_the_shortest() -> None:
    steps = UMAZE.steps_from((1, 1))
    assert steps == {(1, 1): 0, (1, 2): 1, (1, 3): 2, (2, 3): 3, (3, 3): 4, (3, 2): 5, (3, 1): 6}
    assert set(UMAZE.neighbours((3, 3))) == {(2, 3), (3, 2)}


def test_random_mazes_are_connected_varied_and_the_generator_s() -> None:
    rng = np.random.default_rng(0)
    mazes = [Maze.draw(rng) for _ in range(200)]
    assert all(Maze.from_layout(maze.to_layout()) == maze for maze in mazes)  # which refuses what is not connected
    assert len(set(mazes)) > 190
    closed = [16 - len(maze.open_cells) for maze in mazes]
    assert set(closed) == {3, 4, 5, 6, 7}
    every = np.sum(
        [[(row, column) in maze.open_cells for row in range(1, 5) for column in range(1, 5)] for maze in mazes], axis=0
    )
    assert every.min() > 60  # no cell is always a wall
    assert every.max() < 200  # or never
    assert Maze.draw(np.random.default_rng(7)) == Maze.draw(np.random.default_rng(7))


@pytest.mark.parametrize(
    "change, said",
    [
        ({"open_row_4": 1.0}, "unknown entry 'open_row_4'"),
        ({"wall_x": 1.0}, "unknown entry 'wall_x'"),
        ({"open_row_2": 8.0}, "'open_row_2' is 8.0, expected a whole number in 0..7"),
        ({"open_row_2": 0.5}, "'open_row_2' is 0.5"),
        ({"open_row_2": float("nan")}, "'open_row_2' is nan"),
        ({"open_row_2": 0.0}, r"'open_row_3': cell \(3, 1\) cannot be reached from cell \(1, 1\)"),
        ({"rows": 0.0}, "'rows' is 0.0, expected a whole number in 1..12"),
        ({"rows": 4.0}, "layout lacks 'open_row_4'"),
        ({"open_row_1": 0.0, "open_row_2": 0.0, "open_row_3": 1.0}, "1 open cells, expected at least 2"),
    ],
)
def test_impossible_layouts_are_named(change: Mapping[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Maze.from_layout({**U_LAYOUT, **change})


def test_missing_entries_are_named() -> None:
    for name in U_LAYOUT:
        with pytest.raises(ValueError, match=f"lacks '{name}'|unknown entry"):
            Maze.from_layout({other: value for other, value in U_LAYOUT.items() if other != name})
