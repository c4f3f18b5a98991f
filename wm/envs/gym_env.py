"""Any world as a gymnasium environment, alone or several in processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv

from wm.contracts import World

FPS = 10


class WorldEnv(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """A world under gymnasium's interface. A reset draws a layout, a start and a goal from the environment's generator.

    Observations are {"visual": uint8 (H, W, 3), "proprio": float64 (Dp,)}, actions are raw, float64 (A,), within `action_low` and
    `action_high`. The reward is minus the world's distance to the goal. `info` holds `state`, `goal`, `distance`, `success`, and
    `layout` as numbers in the order of its names.

    Args:
        world: what is simulated; closed with the environment.
        max_steps: an episode is truncated after so many.
        end_on_success: whether an episode terminates when the goal is met.
        render_mode: `rgb_array`, or None; observations have pictures either way.
    """

    def __init__(
        self,
        world: World,
        *,
        max_steps: int = 300,
        end_on_success: bool = True,
        render_mode: Literal["rgb_array"] | None = None,
    ) -> None:
        if max_steps < 1:
            raise ValueError(f"max_steps is {max_steps}, expected at least 1")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode is {render_mode!r}, expected 'rgb_array' or None")
        self.metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": FPS}
        self.render_mode = render_mode
        self.world = world
        self.max_steps = max_steps
        self.end_on_success = end_on_success
        side = world.frame_size
        self.observation_space = gymnasium.spaces.Dict(  # pyright: ignore[reportAttributeAccessIssue]
            {
                "visual": gymnasium.spaces.Box(0, 255, (side, side, 3), np.uint8),
                "proprio": gymnasium.spaces.Box(-np.inf, np.inf, (len(world.proprio_names),), np.float64),
            }
        )
        self.action_space = gymnasium.spaces.Box(world.action_low, world.action_high, dtype=np.float64)
        self._goal: np.ndarray | None = None
        self._num_steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: of the generator that draws this and later episodes.
            options: `layout`, `state` and `goal` replace what would be drawn.

        Raises:
            ValueError: another option, or an impossible value of one.
        """
        super().reset(seed=seed)
        given = dict(options or {})
        unknown = sorted(set(given) - {"layout", "state", "goal"})
        if unknown:
            raise ValueError(f"reset has no option {', '.join(unknown)}; it has layout, state and goal")
        layout = self.world.sample_layout(self.np_random)
        self.world.set_layout(given.get("layout", layout))
        start, goal = self.world.sample_problem(self.np_random)
        if "goal" in given:  # tried, so that an impossible goal is refused here
            self.world.reset_to(np.asarray(given["goal"], np.float64))
            goal = self.world.state
        self.world.reset_to(np.asarray(given.get("state", start), np.float64))
        self._goal = np.asarray(goal, np.float64)
        self._num_steps = 0
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Apply one raw action.

        Raises:
            ValueError: not finite, of another shape or outside the action space.
            gymnasium.error.ResetNeeded: before the first reset.
        """
        if self._goal is None:
            raise gymnasium.error.ResetNeeded("reset the environment before its first step")
        self.world.step(self._checked(action))
        self._num_steps += 1
        info = self._info()
        terminated = bool(self.end_on_success and info["success"])
        return self._observation(), -info["distance"], terminated, self._num_steps >= self.max_steps, info

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The current frame, uint8 (H, W, 3); None without a render mode."""
        return None if self.render_mode is None else self.world.render()

    def close(self) -> None:
        """Close the world."""
        self.world.close()

    def _checked(self, action: np.ndarray) -> np.ndarray:
        space = self.action_space
        assert isinstance(space, gymnasium.spaces.Box)
        values = np.asarray(action, np.float64)
        if values.shape != space.shape:
            raise ValueError(f"action has shape {values.shape}, expected {space.shape}")
        if not np.isfinite(values).all():
            raise ValueError(f"action is {values.tolist()}, expected finite numbers")
        outside = np.flatnonzero((values < space.low) | (values > space.high))
        if outside.size:
            first = int(outside[0])
            raise ValueError(
                f"action '{self.world.action_names[first]}' is {values[first]:g}, "
                f"expected a number in [{space.low[first]:g}, {space.high[first]:g}]"
            )
        return values

    def _observation(self) -> dict[str, np.ndarray]:
        return {"visual": self.world.render(), "proprio": self.world.proprio}

    def _info(self) -> dict[str, Any]:
        assert self._goal is not None
        state = self.world.state
        return {
            "state": state,
            "goal": self._goal.copy(),
            "distance": float(self.world.distance(state, self._goal)),
            "success": bool(self.world.success(state, self._goal)),
            "layout": np.array(list(self.world.layout.values()), np.float64),
        }


def vector_env(makes: Sequence[Callable[[], WorldEnv]]) -> AsyncVectorEnv:
    """Environments in processes of their own, stepped together; a fresh interpreter each, since OpenGL does not survive a fork.

    Args:
        makes: each makes one environment; sent to its process by cloudpickle.
    """
    return AsyncVectorEnv(list(makes), context="spawn")
