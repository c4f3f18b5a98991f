"""The mazes of the point maze world: which cells are open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Self

import numpy as np

Cell = tuple[int, int]  # row, column; the outer wall is row 0 and column 0, so inner cells start at 1

MIN_SIDE, MAX_SIDE = 1, 12  # inner cells along a side
RANDOM_SIDE = 4
RANDOM_WALLS = (3, 7)  # inner cells closed in a random maze, both ends included

UMAZE_ROWS = ("OOO", "##O", "OOO")
MEDIUM_ROWS = ("OO##OO", "OO#OOO", "#OOO##", "OO#OOO", "O#OO#O", "OOO#OO")


class Maze:
    """Inner cells, open or closed, inside a closed outer wall; the open ones are connected over their sides.

    As a layout (`World.layout`) it is `rows` and `columns`, the number of inner cells, and for each row `open_row_1` ..: the sum of
    2 ** (column - 1) over its open cells. The U maze is rows 3, columns 3, open_row_1 7, open_row_2 4, open_row_3 7.

    Args:
        is_open: bool (rows, columns).

    Raises:
        ValueError: fewer than two open cells, or one that cannot be reached from the others.
    """

    def __init__(self, is_open: np.ndarray) -> None:
        self._is_open = np.array(is_open, dtype=bool)
        cells = self.open_cells
        if len(cells) < 2:
            raise ValueError(f"layout has {len(cells)} open cells, expected at least 2")
        reached = self.steps_from(cells[0])
        lost = [cell for cell in cells if cell not in reached]
        if lost:
            raise ValueError(f"layout 'open_row_{lost[0][0]}': cell {lost[0]} cannot be reached from cell {cells[0]}")

    @classmethod
    def from_rows(cls, rows: Sequence[str]) -> Self:
        """From one text per inner row, `#` closed and any other letter open."""
        return cls(np.array([[letter != "#" for letter in row] for row in rows]))

    @classmethod
    def from_layout(cls, layout: Mapping[str, float]) -> Self:
        """Back from a layout. Raises ValueError naming an entry that is unknown, missing or impossible."""
        rows, columns = (_whole(layout, name, MIN_SIDE, MAX_SIDE) for name in ("rows", "columns"))
        names = [f"open_row_{row}" for row in range(1, rows + 1)]
        for name in layout:
            if name not in ("rows", "columns", *names):
                raise ValueError(
                    f"layout has an unknown entry '{name}'; a point maze of {rows} rows has rows, columns and open_row_1..{rows}"
                )
        bits = [_whole(layout, name, 0, 2**columns - 1) for name in names]
        return cls(np.array([[bool(row >> column & 1) for column in range(columns)] for row in bits]))

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """A random maze of 4 x 4: up to 3..7 cells are closed, in random order, each only if the others stay connected."""
        is_open = np.ones((RANDOM_SIDE, RANDOM_SIDE), dtype=bool)
        left = int(rng.integers(*RANDOM_WALLS, endpoint=True))
        for index in rng.permutation(is_open.size):
            if left == 0:
                break
            is_open.flat[index] = False
            try:
                cls(is_open)
                left -= 1
            except ValueError:
                is_open.flat[index] = True
        return cls(is_open)

    def to_layout(self) -> dict[str, float]:
        """What `from_layout` takes."""
        rows, columns = self._is_open.shape
        bits = (self._is_open * 2.0 ** np.arange(columns)).sum(axis=1)
        return {
            "rows": float(rows),
            "columns": float(columns),
            **{f"open_row_{row}": float(bits[row - 1]) for row in range(1, rows + 1)},
        }

    @property
    def sides(self) -> tuple[int, int]:
        """Inner rows and columns."""
        return self._is_open.shape

    @property
    def open_cells(self) -> list[Cell]:
        """Row by row."""
        return [(int(row) + 1, int(column) + 1) for row, column in np.argwhere(self._is_open)]

    @property
    def closed_cells(self) -> list[Cell]:
        """The outer wall's too, row by row."""
        padded = np.pad(self._is_open, 1)
        return [(int(row), int(column)) for row, column in np.argwhere(~padded)]

    def steps_from(self, cell: Cell) -> dict[Cell, int]:
        """Every cell that can be reached from an open one, and the least number of steps to it."""
        steps, frontier = {cell: 0}, [cell]
        while frontier:
            here = frontier.pop(0)
            for there in self.neighbours(here):
                if there not in steps:
                    steps[there] = steps[here] + 1
                    frontier.append(there)
        return steps

    def neighbours(self, cell: Cell) -> Iterator[Cell]:
        """The open cells that share a side with one."""
        rows, columns = self._is_open.shape
        for down, right in ((1, 0), (0, 1), (-1, 0), (0, -1)):
            row, column = cell[0] + down, cell[1] + right
            if 1 <= row <= rows and 1 <= column <= columns and self._is_open[row - 1, column - 1]:
                yield row, column

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Maze) and np.array_equal(self._is_open, other._is_open)

    def __hash__(self) -> int:
        return hash((self._is_open.shape, self._is_open.tobytes()))


def _whole(layout: Mapping[str, float], name: str, low: int, high: int) -> int:
    if name not in layout:
        raise ValueError(f"layout lacks '{name}'")
    value = layout[name]
    if not (low <= value <= high and value == int(value)):
        raise ValueError(f"layout '{name}' is {value}, expected a whole number in {low}..{high}")
    return int(value)


UMAZE = Maze.from_rows(UMAZE_ROWS)
MEDIUM = Maze.from_rows(MEDIUM_ROWS)
