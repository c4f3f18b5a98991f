"""A linear world: s' = A s + B a, whose best plan is known in closed form."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, UInt8

from wm.config.worlds import LinearWorldConfig

TURN = 0.1  # scale of the rotation per step, radians
DECAY_RANGE = (0.9, 0.97)  # how much of each axis is kept per step; all below 1, so A is stable
ACTION_GAIN = 0.2  # a unit action moves the state by this much
SAMPLE_BOUND = 0.8  # starts and goals are uniform in [-0.8, 0.8]^S
VIEW_BOUND = 1.0  # the picture shows [-1, 1]^2
SUCCESS_DISTANCE = 0.1  # state units, exclusive
DOT_STD = 1 / 32  # of the picture's side
WHITE = 255.0


class LinearWorld:
    """s' = A s + B a with A, B drawn from the config's seed: `World` without units, walls or layouts.

    A = R diag(decay) with R a rotation and decay < 1, so every state shrinks unless it is pushed; B = 0.2 Q with the
    columns of Q orthonormal. A new world is at the origin.

    Args:
        config: frame size and the seed of A and B.
        state_dim: S, at least 2; the picture shows the first two components, x right and y down.
        action_dim: number of action components A, at most S.
    """

    name: str = "linear"

    def __init__(self, config: LinearWorldConfig, state_dim: int = 2, action_dim: int = 2) -> None:
        if state_dim < 2 or not 1 <= action_dim <= state_dim:
            raise ValueError(
                f"state_dim is {state_dim} and action_dim {action_dim}, "
                "expected state_dim >= 2 and 1 <= action_dim <= state_dim"
            )
        self.frame_size: int = config.frame_size
        self.action_names: tuple[str, ...] = tuple(f"a{i}" for i in range(action_dim))
        self.state_names: tuple[str, ...] = tuple(f"s{i}" for i in range(state_dim))
        self.proprio_names: tuple[str, ...] = self.state_names
        self.action_low, self.action_high = -np.ones(action_dim), np.ones(action_dim)
        rng = np.random.default_rng(config.seed)
        self.transition: Float[np.ndarray, "s s"] = _rotation(rng, state_dim) * rng.uniform(
            *DECAY_RANGE, size=state_dim
        )
        self.control: Float[np.ndarray, "s a"] = ACTION_GAIN * np.linalg.qr(rng.normal(size=(state_dim, action_dim)))[0]
        self._state = np.zeros(state_dim)

    @property
    def layout(self) -> Mapping[str, float]:
        """Empty: there is nothing to move."""
        return {}

    @property
    def state(self) -> np.ndarray:
        """s, float64 (S,)."""
        return self._state.copy()

    @property
    def proprio(self) -> np.ndarray:
        """The same as `state`."""
        return self.state

    def set_layout(self, layout: Mapping[str, float]) -> None:
        """This world has no layout.

        Raises:
            ValueError: the layout has an entry.
        """
        for name in layout:
            raise ValueError(f"layout has an unknown entry '{name}'; the linear world has none")

    def reset_to(self, state: np.ndarray) -> None:
        """Any finite state is possible.

        Raises:
            ValueError: not S finite numbers.
        """
        self._state = _finite_vector(state, len(self.state_names), "state")

    def step(self, action: np.ndarray) -> np.ndarray:
        """Apply one action and return the new state.

        Raises:
            ValueError: not A finite numbers, or so large that the state would not be finite.
        """
        action = _finite_vector(action, len(self.action_names), "action")
        with np.errstate(over="ignore", invalid="ignore"):
            following = self.transition @ self._state + self.control @ action
        self._state = _finite_vector(following, len(self.state_names), "state after the action")
        return self.state

    def render(self) -> np.ndarray:
        """The current frame, uint8 (frame_size, frame_size, 3), RGB."""
        return self.render_states(self.state[None])[0]

    def render_states(self, states: Float[np.ndarray, "n s"]) -> UInt8[np.ndarray, "n h w 3"]:
        """A red dot on white for each state; outside [-1, 1]^2 it stays at the picture's edge."""
        shown = np.clip(states[:, :2], -VIEW_BOUND, VIEW_BOUND)
        centres = (shown / VIEW_BOUND + 1) / 2 * (self.frame_size - 1)
        squared = (np.arange(self.frame_size) - centres[..., None]) ** 2
        across, down = np.moveaxis(np.exp(-squared / (2 * (DOT_STD * self.frame_size) ** 2)), 1, 0)
        frames = np.full((len(states), self.frame_size, self.frame_size, 3), WHITE, dtype=np.uint8)
        frames[..., 1:] = np.rint(WHITE * (1 - down[:, :, None] * across[:, None, :]))[..., None]
        return frames

    def sample_layout(self, rng: np.random.Generator) -> Mapping[str, float]:
        """Always the empty layout; draws nothing."""
        return {}

    def sample_problem(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Start and goal, independent and uniform in [-0.8, 0.8]^S."""
        start, goal = rng.uniform(-SAMPLE_BOUND, SAMPLE_BOUND, size=(2, len(self.state_names)))
        return start, goal

    def success(self, state: np.ndarray, goal: np.ndarray) -> bool:
        """Whether the state is less than 0.1 from the goal."""
        return self.distance(state, goal) < SUCCESS_DISTANCE

    def distance(self, state: np.ndarray, goal: np.ndarray) -> float:
        """Euclidean."""
        return float(np.linalg.norm(np.asarray(state, dtype=np.float64) - np.asarray(goal, dtype=np.float64)))

    def snapshot(self) -> np.ndarray:
        """The state."""
        return self.state

    def restore(self, snapshot: np.ndarray) -> None:
        """Go back to a snapshot."""
        self._state = np.array(snapshot, dtype=np.float64)

    def close(self) -> None:
        """Nothing is held."""

    def best_plan(self, state: np.ndarray, goal: np.ndarray, horizon: int) -> Float[np.ndarray, "horizon a"]:
        """The actions whose last state is nearest to the goal; among those the ones of least sum of squares.

        s_H = A^H s + C a with C = [A^(H-1) B, ..., A B, B], so a = C^+ (goal - A^H s).

        Args:
            state: start (S,).
            goal: wanted last state (S,).
            horizon: number of actions H, at least 1.
        """
        if horizon < 1:
            raise ValueError(f"horizon is {horizon}, expected at least 1")
        state = _finite_vector(state, len(self.state_names), "state")
        goal = _finite_vector(goal, len(self.state_names), "goal")
        effects = [self.control]
        for _ in range(horizon - 1):
            effects.insert(0, self.transition @ effects[0])
        undriven = np.linalg.matrix_power(self.transition, horizon) @ state
        actions = np.linalg.pinv(np.concatenate(effects, axis=1)) @ (goal - undriven)
        return actions.reshape(horizon, -1)


def _rotation(rng: np.random.Generator, size: int) -> Float[np.ndarray, "s s"]:
    """A random orthogonal matrix near the identity: the Cayley transform of a skew matrix."""
    square = TURN * rng.normal(size=(size, size))
    skew = (square - square.T) / 2
    return np.linalg.solve(np.eye(size) + skew, np.eye(size) - skew)


def _finite_vector(values: np.ndarray, size: int, what: str) -> np.ndarray:
    array = np.array(values, dtype=np.float64)
    if array.shape != (size,):
        raise ValueError(f"{what} has shape {array.shape}, expected ({size},)")
    if not np.isfinite(array).all():
        raise ValueError(f"{what} is {array.tolist()}, expected finite numbers")
    return array
