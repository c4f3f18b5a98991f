"""The point maze world of D4RL and DINO-WM: a ball that is pushed through a maze."""

# pyright: reportAttributeAccessIssue=false
# mujoco is a compiled module without stubs.

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from wm.config.worlds import PointMazeShift, PointMazeWorldConfig
from wm.envs.mujoco_camera import MujocoCamera, View
from wm.envs.physics import mujoco
from wm.envs.point_maze_layouts import MEDIUM, UMAZE, Maze
from wm.envs.point_maze_model import HALF_CELL, build_model, camera_view, centre_of
from wm.envs.success import point_maze_success, state_distance

SUBSTEPS = 5  # of 0.01 s
MAX_SPEED = 5.0  # units/s per component, before a step
MIN_CLEARANCE = (
    0.02  # the ball's middle stays this far from walls, units; its radius is 0.1, and hits press it in by up to 0.07
)
START_CLEARANCE = 0.2  # of starts and goals, along x or y
START_SPEED = 5.2262554  # units/s, each component
_LOW = 0.5  # where the original begins to draw positions


class PointMazeSnapshot(NamedTuple):
    """A point maze world, whole: the solver keeps nothing from step to step."""

    maze: Maze
    state: tuple[float, float, float, float]


class PointMazeWorld:
    """The ball in the maze: `World` over (x, y, vx, vy), actions = force on x and y as a share of the motors', -1..1.

    One step is 0.05 s: velocity is clipped to 5 units/s, then the action to 1, then MuJoCo makes five steps; the velocity after a step
    may exceed 5. State and proprio are the same four numbers, units and units/s. A cell is one unit; x counts along the rows of `Maze`
    and y along its columns. In the picture x grows to the right and y downwards.

    A new world, and one whose ball would be in a wall of the new layout, has the ball at rest in the middle of the first open cell.
    `layout: random` begins with the maze that `default_rng(0)` draws.

    Shifts: `light` (dim, a warm lamp from the side), `colours` (of ball and walls), `background` (floor), `camera` (tilted and
    turned by 15 degrees), `agent_size` (the ball half as large again, seen and felt; its mass is kept, so only hits change).

    Source: D4RL, arXiv 2004.07219; Zhou et al. 2024, arXiv 2411.04983, and github.com/gaoyuezhou/dino_wm 0a9492f. The numbers are
    those of the original's model in MuJoCo 3.9. Differences: no warm start of the solver (1e-14); every maze is seen from above
    its middle, where the original looks at the median of the geoms' positions (the same in the U maze).
    """

    name: str = "point_maze"
    action_names: tuple[str, ...] = ("force_x", "force_y")
    state_names: tuple[str, ...] = ("x", "y", "vx", "vy")
    proprio_names: tuple[str, ...] = ("x", "y", "vx", "vy")

    def __init__(self, config: PointMazeWorldConfig) -> None:
        self.frame_size: int = config.frame_size
        self.action_low, self.action_high = np.full(2, -1.0), np.full(2, 1.0)
        self._shift: PointMazeShift = config.shift
        self._layout_is_random = config.layout == "random"
        self._maze = {"umaze": UMAZE, "medium": MEDIUM, "random": Maze.draw(np.random.default_rng(0))}[config.layout]
        self._camera: MujocoCamera | None = None
        self._build()
        self._put_in_first_cell()

    @property
    def layout(self) -> Mapping[str, float]:
        """The maze, as `Maze.from_layout` takes it: rows, columns and one bit pattern a row."""
        return self._maze.to_layout()

    @property
    def state(self) -> np.ndarray:
        """(x, y, vx, vy), float64 (4,), units and units/s."""
        return np.concatenate([self._data.qpos, self._data.qvel])

    @property
    def proprio(self) -> np.ndarray:
        """The same as `state`."""
        return self.state

    def set_layout(self, layout: Mapping[str, float]) -> None:
        """Rebuild the maze. The ball stays where it is, or goes to the first open cell if that is now in a wall.

        Raises:
            ValueError: an entry is unknown, missing or impossible, or a cell cannot be reached.
        """
        maze = Maze.from_layout(layout)
        if maze == self._maze:
            return
        state, self._maze = self.state, maze
        self._build()
        if _clearance(self._walls, state[0], state[1]) >= MIN_CLEARANCE:
            self._put(state)
        else:
            self._put_in_first_cell()

    def reset_to(self, state: np.ndarray) -> None:
        """Put the ball at (x, y) with velocity (vx, vy); velocities beyond 5 are clipped by the next step, as in the original.

        Raises:
            ValueError: not four finite numbers, or (x, y) in a wall.
        """
        numbers = _finite(state, len(self.state_names), "state")
        x, y = numbers[:2]
        for name, value, side in (("x", x, self._maze.sides[0]), ("y", y, self._maze.sides[1])):
            low, high = centre_of((1, 1))[0] - HALF_CELL, centre_of((side, 1))[0] + HALF_CELL
            if not low <= value <= high:
                raise ValueError(
                    f"state '{name}' is {value:g}, outside the maze; expected a number in [{low:g}, {high:g}]"
                )
        if _clearance(self._walls, x, y) < MIN_CLEARANCE:
            raise ValueError(
                f"state (x, y) = ({x:g}, {y:g}) is in a wall, expected at least {MIN_CLEARANCE:g} from each"
            )
        self._put(numbers)

    def step(self, action: np.ndarray) -> np.ndarray:
        """Push for 0.05 s; what lies beyond -1..1 is clipped, as in the original.

        Raises:
            ValueError: not two finite numbers.
        """
        force = _finite(action, len(self.action_names), "action")
        np.clip(self._data.qvel, -MAX_SPEED, MAX_SPEED, out=self._data.qvel)
        self._data.ctrl[:] = np.clip(force, -1, 1)
        mujoco.mj_step(self._model, self._data, SUBSTEPS)
        return self.state

    def render(self) -> np.ndarray:
        """The maze from above, uint8 (frame_size, frame_size, 3), RGB.

        As in the published data, which was stored bottom row first: x grows to the right and y downwards.

        Raises:
            UserError: no OpenGL works here.
        """
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        if self._camera is None:
            self._camera = MujocoCamera(self._model, self.frame_size, self._view())
        return self._camera.picture(self._data)

    def sample_layout(self, rng: np.random.Generator) -> Mapping[str, float]:
        """The maze that there is; with `layout: random` a new one of 4 x 4 cells (`Maze.draw`)."""
        return Maze.draw(rng).to_layout() if self._layout_is_random else self.layout

    def sample_problem(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Start and goal, drawn as the original draws them, with velocities; a goal reached from the outset is drawn again."""
        start = goal = _draw_state(rng, self._maze)
        while self.success(start, goal):
            goal = _draw_state(rng, self._maze)
        return start, goal

    def success(self, state: np.ndarray, goal: np.ndarray) -> bool:
        """Whether the ball is less than half a unit from the goal, at any speed."""
        return point_maze_success(state, goal)

    def distance(self, state: np.ndarray, goal: np.ndarray) -> float:
        """Euclidean over all four numbers, the original's measure."""
        return state_distance(state, goal)

    def snapshot(self) -> PointMazeSnapshot:
        """Maze and state."""
        x, y, vx, vy = self.state.tolist()
        return PointMazeSnapshot(self._maze, (x, y, vx, vy))

    def restore(self, snapshot: PointMazeSnapshot) -> None:
        """Go back to a snapshot, of this world or another."""
        if snapshot.maze != self._maze:
            self._maze = snapshot.maze
            self._build()
        self._put(np.array(snapshot.state))

    def close(self) -> None:
        """Free what the renderer holds."""
        if self._camera is not None:
            self._camera.close()

    def _build(self) -> None:
        self._model = build_model(self._maze, self._shift, self.frame_size)
        self._data = mujoco.MjData(self._model)
        self._walls = np.array([centre_of(cell) for cell in self._maze.closed_cells])
        if self._camera is not None:  # same textures: it draws the new maze too
            self._camera.view = self._view()

    def _view(self) -> View:
        return camera_view(self._model, self._maze, self._shift)

    def _put(self, state: np.ndarray) -> None:
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:], self._data.qvel[:] = state[:2], state[2:]

    def _put_in_first_cell(self) -> None:
        self._put(np.array([*centre_of(self._maze.open_cells[0]), 0, 0]))


def sample_original_problem(seed: int, maze: Maze = UMAZE) -> tuple[np.ndarray, np.ndarray]:
    """The start and goal that the original draws from a seed: the published planning problems.

    Args:
        seed: of numpy's legacy RandomState; problem n of a published evaluation has seed 99 n + 1.
        maze: the original has this rule for the U maze only; here it is put in terms of walls.
    """
    rng = np.random.RandomState(seed)
    return _draw_state(rng, maze), _draw_state(rng, maze)


def _draw_state(rng: np.random.Generator | np.random.RandomState, maze: Maze) -> np.ndarray:
    """Uniform over positions that are `START_CLEARANCE` from every wall along x or y, then over velocities."""
    walls = np.array([centre_of(cell) for cell in maze.closed_cells])
    high_x, high_y = (side + 0.1 for side in maze.sides)
    while True:
        x, y = rng.uniform(_LOW, high_x), rng.uniform(_LOW, high_y)
        if np.abs(walls - (x, y)).max(axis=1).min() - HALF_CELL >= START_CLEARANCE:
            return np.array([x, y, *rng.uniform(-START_SPEED, START_SPEED, size=2)])


def _clearance(walls: np.ndarray, x: float, y: float) -> float:
    """Distance from a point to the nearest wall, 0 in one; walls (n, 2) are middles of cells."""
    return float(np.linalg.norm(np.maximum(np.abs(walls - (x, y)) - HALF_CELL, 0), axis=1).min())


def _finite(values: np.ndarray, size: int, what: str) -> np.ndarray:
    array = np.array(values, dtype=np.float64)
    if array.shape != (size,):
        raise ValueError(f"{what} has shape {array.shape}, expected ({size},)")
    if not np.isfinite(array).all():
        raise ValueError(f"{what} is {array.tolist()}, expected finite numbers")
    return array
