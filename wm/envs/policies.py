"""Policies that make data in any world: random, correlated in time, wandering, and an expert with noise."""

from __future__ import annotations

import math
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from wm.contracts import Policy, World
from wm.envs.wall import WallWorld
from wm.envs.wall_rule import PIXELS_PER_ACTION, WALL_HALF_THICKNESS

COLLISION_TOLERANCE = 1e-4  # pixels; actions may be rounded to float32 before they are applied
WAYPOINT_REACHED = 2.0  # pixels
DOOR_APPROACH = 2.0  # pixels before and behind the wall's faces where the waypoints of a crossing lie
DOOR_SPREAD = 2.0  # pixels to either side of the door's centre, uniform


class WanderPolicy:
    """A dot that wanders: headings drift from step to step, so actions are correlated in time.

    An episode starts where `sample_problem` starts (in the Wall world: uniform in one of the two rooms, less the
    original's margin), with a uniform heading. Each step turns it by a von Mises angle around 0 and takes a length
    from a truncated normal. In the Wall world

    * a step that collided makes the next heading uniform again: without that the dot grinds along walls;
    * a share `door_fraction` of the episodes first walks through the door (to its near side, its far side, then a
      random place in the other room; heading = bearing + the same von Mises noise) and wanders from there.

    In any other world with two action components it only wanders.

    Args:
        concentration: of the von Mises angles; 1/0.2 turns by about 0.47 rad a step.
        mean_length, std_length: of the step length before truncation, raw action units.
        min_length, max_length: its limits, raw action units.
        door_fraction: share of episodes that head for the door, 0..1.

    Source: the sampler in the library that DINO-WM's Wall comes from (von Mises 1/0.2, lengths N(1, 0.4) in [0.2,
    1.8]). The lengths here are shorter, to give the published data's action std of 0.44 to 0.47; what happens after
    a collision and the way through the door are this project's.
    """

    def __init__(
        self,
        concentration: float = 1 / 0.2,
        mean_length: float = 0.6,
        std_length: float = 0.25,
        min_length: float = 0.1,
        max_length: float = 1.2,
        door_fraction: float = 0.3,
    ) -> None:
        if concentration < 0:
            raise ValueError(f"concentration is {concentration}, expected at least 0")
        if not 0 <= min_length <= mean_length <= max_length:
            raise ValueError(
                f"expected 0 <= min_length <= mean_length <= max_length, got {min_length}, {mean_length}, {max_length}"
            )
        if std_length < 0:
            raise ValueError(f"std_length is {std_length}, expected at least 0")
        if not 0 <= door_fraction <= 1:
            raise ValueError(f"door_fraction is {door_fraction}, expected a number in [0, 1]")
        self.concentration = concentration
        self.mean_length = mean_length
        self.std_length = std_length
        self.min_length = min_length
        self.max_length = max_length
        self.door_fraction = door_fraction
        self._heading = 0.0
        self._unobstructed: np.ndarray | None = None  # where the last action leads in free space
        self._waypoints: list[np.ndarray] = []

    def reset(self, world: World, rng: np.random.Generator) -> None:
        """Put the world in a start state and draw the episode's heading and errand.

        Raises:
            ValueError: the world's actions do not have two components.
        """
        if len(world.action_names) != 2:
            raise ValueError(f"world '{world.name}' has {len(world.action_names)} action components, wandering needs 2")
        start, elsewhere = world.sample_problem(rng)
        world.reset_to(start)
        self._heading = rng.uniform(0, 2 * math.pi)
        self._unobstructed = None
        self._waypoints = []
        if isinstance(world, WallWorld) and rng.uniform() < self.door_fraction:
            self._waypoints = [*_door_waypoints(world, start, rng), elsewhere]

    def act(self, world: World, rng: np.random.Generator) -> np.ndarray:
        """The next action (2,), raw units."""
        position = world.state
        noise = rng.vonmises(0, self.concentration)
        while self._waypoints and np.linalg.norm(self._waypoints[0] - position) < WAYPOINT_REACHED:
            self._waypoints.pop(0)
        if self._waypoints:
            ahead = self._waypoints[0] - position
            self._heading = math.atan2(ahead[1], ahead[0]) + noise
        elif self._collided(position):
            self._heading = rng.uniform(0, 2 * math.pi)
        else:
            self._heading += noise
        action = self._length(rng) * np.array([math.cos(self._heading), math.sin(self._heading)])
        if isinstance(world, WallWorld):
            self._unobstructed = position + PIXELS_PER_ACTION * action
        return action

    def _collided(self, position: np.ndarray) -> bool:
        return self._unobstructed is not None and bool(
            np.abs(position - self._unobstructed).max() > COLLISION_TOLERANCE
        )

    def _length(self, rng: np.random.Generator) -> float:
        if self.min_length == self.max_length:
            return self.mean_length
        while True:
            length = rng.normal(self.mean_length, self.std_length)
            if self.min_length <= length <= self.max_length:
                return length


class RandomPolicy:
    """Independent normal actions, from where `sample_problem` starts.

    Args:
        std: of every action component, raw units.
    """

    def __init__(self, std: float = 0.5) -> None:
        if std < 0:
            raise ValueError(f"std is {std}, expected at least 0")
        self.std = std

    def reset(self, world: World, rng: np.random.Generator) -> None:
        """Put the world in a start state."""
        world.reset_to(world.sample_problem(rng)[0])

    def act(self, world: World, rng: np.random.Generator) -> np.ndarray:
        """The next action (A,), raw units."""
        return rng.normal(0, self.std, size=len(world.action_names))


@runtime_checkable
class ActionSampler(Protocol):
    """A world whose uniform actions would mostly miss: it draws its own, such as pushes that begin beside the object."""

    def sample_action(self, rng: np.random.Generator) -> np.ndarray:
        """A raw env action (A,) worth trying in the current state."""
        ...


class RangePolicy:
    """Independent actions in the world's range, from where `sample_problem` starts.

    Args:
        distribution: `uniform` over the range (or the world's own `sample_action`, see `ActionSampler`), or `normal` around
            its middle, clipped to it.
        std: of `normal`, as a share of half the range.
    """

    def __init__(self, distribution: Literal["uniform", "normal"] = "uniform", std: float = 0.5) -> None:
        if std < 0:
            raise ValueError(f"std is {std}, expected at least 0")
        self.distribution = distribution
        self.std = std

    def reset(self, world: World, rng: np.random.Generator) -> None:
        """Put the world in a start state."""
        world.reset_to(world.sample_problem(rng)[0])

    def act(self, world: World, rng: np.random.Generator) -> np.ndarray:
        """The next action (A,), raw units."""
        if self.distribution == "normal":
            return _in_range(world, self.std * rng.normal(size=len(world.action_names)))
        if isinstance(world, ActionSampler):
            return world.sample_action(rng)
        return rng.uniform(world.action_low, world.action_high)


class SmoothPolicy:
    """Actions correlated in time: Ornstein-Uhlenbeck noise around the middle of the range, clipped to it.

    x' = c x + sqrt(1 - c^2) std n with c = exp(-1 / time_constant) and n normal, so that x has `std` at every step. An episode
    starts where `sample_problem` starts.

    Args:
        time_constant: env steps after which the correlation has fallen to 1/e.
        std: of x, as a share of half the range.
    """

    def __init__(self, time_constant: float = 5.0, std: float = 0.5) -> None:
        if time_constant <= 0:
            raise ValueError(f"time_constant is {time_constant}, expected more than 0")
        if std < 0:
            raise ValueError(f"std is {std}, expected at least 0")
        self.std = std
        self.kept = math.exp(-1 / time_constant)
        self._noise = np.zeros(0)

    def reset(self, world: World, rng: np.random.Generator) -> None:
        """Put the world in a start state and draw the first noise."""
        world.reset_to(world.sample_problem(rng)[0])
        self._noise = self.std * rng.normal(size=len(world.action_names))

    def act(self, world: World, rng: np.random.Generator) -> np.ndarray:
        """The next action (A,), raw units."""
        action = _in_range(world, self._noise)
        fresh = math.sqrt(1 - self.kept**2) * self.std
        self._noise = self.kept * self._noise + fresh * rng.normal(size=self._noise.shape)
        return action


class NoisyPolicy:
    """Another policy's actions plus independent normal noise, clipped to the world's range.

    Args:
        policy: whose actions; its `goal` is this one's.
        std: of the noise, as a share of half the range.
    """

    def __init__(self, policy: Policy, std: float = 0.2) -> None:
        if std < 0:
            raise ValueError(f"std is {std}, expected at least 0")
        self.policy = policy
        self.std = std

    @property
    def goal(self) -> np.ndarray | None:
        """The state (S,) that the policy tries to reach, if it has one."""
        return getattr(self.policy, "goal", None)

    def reset(self, world: World, rng: np.random.Generator) -> None:
        """As the policy does."""
        self.policy.reset(world, rng)

    def act(self, world: World, rng: np.random.Generator) -> np.ndarray:
        """The next action (A,), raw units."""
        action = self.policy.act(world, rng)
        half = (world.action_high - world.action_low) / 2
        return np.clip(action + self.std * half * rng.normal(size=action.shape), world.action_low, world.action_high)


def _in_range(world: World, share: np.ndarray) -> np.ndarray:
    """-1..1 -> the world's action range; what lies beyond is clipped."""
    low, high = world.action_low, world.action_high
    return (low + high) / 2 + (high - low) / 2 * np.clip(share, -1, 1)


def _door_waypoints(world: WallWorld, start: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A place before the door and one behind it, seen from `start`, at the same height within the door."""
    wall_x, door_y = world.layout["wall_x"], world.layout["door_y"]
    reach = math.copysign(WALL_HALF_THICKNESS + DOOR_APPROACH, start[0] - wall_x)
    height = door_y + rng.uniform(-DOOR_SPREAD, DOOR_SPREAD)
    return np.array([wall_x + reach, height]), np.array([wall_x - reach, height])
