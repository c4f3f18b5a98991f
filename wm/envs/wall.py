"""The Wall world of DINO-WM: a dot, a wall across the plane, and the door in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from wm.config.worlds import WallWorldConfig
from wm.envs.wall_render import DOT_STD, is_black, render_batch
from wm.envs.wall_rule import (
    BORDER_HIGH,
    BORDER_LOW,
    DOOR_HALF_HEIGHT,
    IMAGE_SIZE,
    PIXELS_PER_ACTION,
    WALL_HALF_THICKNESS,
    next_position,
)
from wm.envs.wall_shift import render_shifted

FIXED_LAYOUT: Mapping[str, float] = {"wall_x": 32.0, "door_y": 30.0}
RANDOM_WALL_X = (20, 44)  # whole numbers, both ends included
RANDOM_DOOR_Y = (10, 54)
ACTION_LIMIT = 1.8  # half pixels, the longest step of the original's sampler
SUCCESS_DISTANCE = 4.5  # pixels, exclusive
FLOAT_MAX = float(np.finfo(np.float64).max)
START_MARGIN = 2 * DOT_STD  # starts and goals keep this far from border and wall

# A layout is possible when both rooms have somewhere to start in and the door lies between the borders.
WALL_X_RANGE = (
    BORDER_LOW + 2 * START_MARGIN + WALL_HALF_THICKNESS,
    BORDER_HIGH - 2 * START_MARGIN - WALL_HALF_THICKNESS,
)
DOOR_Y_RANGE = (BORDER_LOW + DOOR_HALF_HEIGHT, BORDER_HIGH - DOOR_HALF_HEIGHT)


class WallSnapshot(NamedTuple):
    """A Wall world, whole."""

    x: float
    y: float
    wall_x: float
    door_y: float


class WallWorld:
    """The point, the wall and the door: `World` over (x, y), actions (dx, dy) in half pixels.

    The transition is the original's (see `wall_rule`); state and proprio are the same two numbers, in pixels 0..64,
    x right and y down. A new world has the fixed layout and the dot in the middle of the left room; `layout: random`
    only changes what `sample_layout` draws, and `shift` only how it looks.

    Source: Zhou et al. 2024, arXiv 2411.04983, and github.com/gaoyuezhou/dino_wm 0a9492f.
    """

    name: str = "wall"
    action_names: tuple[str, ...] = ("dx", "dy")
    state_names: tuple[str, ...] = ("x", "y")
    proprio_names: tuple[str, ...] = ("x", "y")

    def __init__(self, config: WallWorldConfig) -> None:
        self.frame_size: int = config.frame_size
        # What the data's policy keeps to; the original clips nothing, and neither does `step`.
        self.action_low, self.action_high = np.full(2, -ACTION_LIMIT), np.full(2, ACTION_LIMIT)
        self._layout_is_random = config.layout == "random"
        self._shift = config.shift
        self._wall_x, self._door_y = FIXED_LAYOUT["wall_x"], FIXED_LAYOUT["door_y"]
        self._x = (BORDER_LOW + self._wall_x - WALL_HALF_THICKNESS) / 2
        self._y = (BORDER_LOW + BORDER_HIGH) / 2

    @property
    def layout(self) -> Mapping[str, float]:
        """`wall_x` and `door_y`, the centres of wall and door in pixels."""
        return {"wall_x": self._wall_x, "door_y": self._door_y}

    @property
    def state(self) -> np.ndarray:
        """(x, y), float64 (2,), pixels."""
        return np.array([self._x, self._y])

    @property
    def proprio(self) -> np.ndarray:
        """The same as `state`."""
        return self.state

    def set_layout(self, layout: Mapping[str, float]) -> None:
        """Move wall and door. The dot stays where it is, even if that is now inside the wall: reset it afterwards.

        Raises:
            ValueError: an entry is unknown, missing, or leaves a room or the door without space.
        """
        for name in layout:
            if name not in FIXED_LAYOUT:
                raise ValueError(f"layout has an unknown entry '{name}'; the wall world has wall_x and door_y")
        for name, (low, high) in (("wall_x", WALL_X_RANGE), ("door_y", DOOR_Y_RANGE)):
            if name not in layout:
                raise ValueError(f"layout lacks '{name}'")
            if not low <= layout[name] <= high:
                raise ValueError(f"layout '{name}' is {layout[name]}, expected a number in [{low:g}, {high:g}]")
        self._wall_x, self._door_y = float(layout["wall_x"]), float(layout["door_y"])

    def reset_to(self, state: np.ndarray) -> None:
        """Put the dot at (x, y); anywhere in the picture is allowed, inside the wall too, as in the original.

        Raises:
            ValueError: not two finite numbers in [0, 64].
        """
        x, y = _two_finite_numbers(state, "state")
        if not (0 <= x <= IMAGE_SIZE - 1 and 0 <= y <= IMAGE_SIZE - 1):
            raise ValueError(f"state ({x:g}, {y:g}) is outside the picture, expected both in [0, {IMAGE_SIZE - 1}]")
        self._x, self._y = x, y

    def step(self, action: np.ndarray) -> np.ndarray:
        """Move by one action (dx, dy) in half pixels; no size is clipped.

        Raises:
            ValueError: not two numbers that are finite in pixels too.
        """
        dx, dy = _two_finite_numbers(action, "action", largest=FLOAT_MAX / PIXELS_PER_ACTION)
        self._x, self._y = next_position(self._x, self._y, dx, dy, self._wall_x, self._door_y)
        return self.state

    def render(self) -> np.ndarray:
        """The current frame, uint8 (frame_size, frame_size, 3), RGB."""
        return self.render_states(self.state[None])[0]

    def render_states(self, states: Float[np.ndarray, "n 2"]) -> UInt8[np.ndarray, "n h w 3"]:
        """Frames of many states at the current layout; the world's own state is not touched."""
        if self._shift != "none":
            return render_shifted(states, is_black(self._wall_x, self._door_y), self.frame_size, self._shift)
        return render_batch(states, self._wall_x, self._door_y, self.frame_size)

    def sample_layout(self, rng: np.random.Generator) -> Mapping[str, float]:
        """The fixed layout; with `layout: random` independent whole numbers, wall_x in 20..44 and door_y in 10..54."""
        if not self._layout_is_random:
            return dict(FIXED_LAYOUT)
        return {
            "wall_x": float(rng.integers(*RANDOM_WALL_X, endpoint=True)),
            "door_y": float(rng.integers(*RANDOM_DOOR_Y, endpoint=True)),
        }

    def sample_problem(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Start and goal, each uniform in a room less its margin: opposite rooms, a coin says which is which."""
        return _draw_problem(rng, self._wall_x)

    def success(self, state: np.ndarray, goal: np.ndarray) -> bool:
        """Whether the dot is less than 4.5 pixels from the goal."""
        return self.distance(state, goal) < SUCCESS_DISTANCE

    def distance(self, state: np.ndarray, goal: np.ndarray) -> float:
        """Euclidean, pixels."""
        return float(np.linalg.norm(np.asarray(state, dtype=np.float64) - np.asarray(goal, dtype=np.float64)))

    def snapshot(self) -> WallSnapshot:
        """Position and layout."""
        return WallSnapshot(self._x, self._y, self._wall_x, self._door_y)

    def restore(self, snapshot: WallSnapshot) -> None:
        """Go back to a snapshot, of this world or another."""
        self._x, self._y, self._wall_x, self._door_y = snapshot

    def close(self) -> None:
        """Nothing is held."""


def sample_original_problem(seed: int, wall_x: float, door_y: float) -> tuple[np.ndarray, np.ndarray]:
    """The start and goal that the original draws from a seed: the published planning problems.

    Args:
        seed: of numpy's legacy RandomState; problem n of a published evaluation has seed 99 n + 1.
        wall_x: centre of the wall, pixels.
        door_y: centre of the door; the original's draw does not depend on it.
    """
    del door_y
    return _draw_problem(np.random.RandomState(seed), wall_x)


def _draw_problem(rng: np.random.Generator | np.random.RandomState, wall_x: float) -> tuple[np.ndarray, np.ndarray]:
    """Start and goal in opposite rooms. The order of the draws is the original's; the coin swaps the two x only."""
    low, high = BORDER_LOW + START_MARGIN, BORDER_HIGH - START_MARGIN
    wall_margin = WALL_HALF_THICKNESS + START_MARGIN
    start_x = rng.uniform(low, wall_x - wall_margin)
    goal_x = rng.uniform(wall_x + wall_margin, high)
    start_y = rng.uniform(low, high)
    goal_y = rng.uniform(low, high)
    if rng.uniform() < 0.5:
        start_x, goal_x = goal_x, start_x
    return np.array([start_x, start_y]), np.array([goal_x, goal_y])


def _two_finite_numbers(values: np.ndarray, what: str, largest: float = FLOAT_MAX) -> tuple[float, float]:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (2,):
        raise ValueError(f"{what} has shape {array.shape}, expected (2,)")
    if not (np.abs(array) <= largest).all():
        raise ValueError(f"{what} is {array.tolist()}, expected finite numbers")
    return float(array[0]), float(array[1])
