"""The Push-T world of DINO-WM: a round pusher and a block of one of seven shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import shapely
from jaxtyping import Float, UInt8

from wm.config.worlds import PushTShape, PushTWorldConfig
from wm.envs.pusht_render import TARGET_POSE, PushTRenderer, agent_radius
from wm.envs.pusht_shapes import BLOCKS, shape_of_number
from wm.envs.pusht_simulator import Bodies, PushTSimulator
from wm.envs.success import pusht_success

TAU = 2 * math.pi
PIXELS_PER_ACTION = 100.0
ACTION_LIMIT = 1.0  # units: what policies keep to; five standard deviations of the published data
COVERED = 0.95  # the share of the green place at which the original's reward is full

# No wall stops the pusher, so a state may lie far outside the picture. What `step` is asked to aim at is bounded more
# closely than what `reset_to` takes, so that every state that a world reaches can be gone back to.
TARGET_BOUND = 1e5  # pixels
STATE_BOUNDS: Mapping[str, float] = {
    "agent_x": 1e6,
    "agent_y": 1e6,
    "block_x": 1e6,
    "block_y": 1e6,
    "angle": 1e6,
    "agent_vx": 1e7,
    "agent_vy": 1e7,
}

# `restore` replays what was done since the world was last put down, so this bounds a snapshot and its cost.
REPLAY_STEPS = 1000  # env steps; from there on the world is put down anew as soon as nothing touches
REPLAY_STEPS_AT_MOST = 2000  # and here in any case

AGENT_RANGE, BLOCK_RANGE = (50.0, 450.0), (100.0, 400.0)  # of starts and goals, pixels, as in the original
ROOM = (8.0, 503.0)  # between the walls
MARGIN = 2.0  # pixels between pusher and block in a start or a goal


class PushTSnapshot(NamedTuple):
    """A Push-T world, whole: how it was put down, and where the pusher was sent since.

    Args:
        shape: number of the block's shape.
        bodies: what was put down.
        settled: whether one substep without control followed, as in `prepare`.
        targets: absolute, pixels, one a step since then.
    """

    shape: float
    bodies: Bodies
    settled: bool
    targets: tuple[tuple[float, float], ...]


class PushTWorld:
    """A block pushed over a table: `World` over seven numbers, with relative actions.

    * Plane: 512 x 512 pixels, x right, y down; the block's place is the origin of its frame (`pusht_shapes`), its angle
      is in [0, 2 pi). State: agent_x, agent_y, block_x, block_y, angle, agent_vx, agent_vy (pixels, radians, pixels a
      second), float64. Proprio: the agent's place and velocity.
    * Actions: (dx, dy) in units of 100 pixels. The pusher is pulled for 0.1 s towards its place at the start of the
      step plus 100 times the action: of a command of 25 pixels, 7.4 are made in the step. As in the original nothing
      is clipped; only a target more than 100,000 pixels away is refused.
    * The walls stop the block and not the pusher, which may leave the picture. Nothing ends an episode. Contacts are
      frictionless, and the block stops when it is let go.
    * Layout: `shape`, a number: 0 T, 1 L, 2 Z, 3 square, 4 I, 5 small_tee, 6 plus.
    * The block's own velocity and the solver's cached contacts are not in the state: after `reset_to` the block is at
      rest. `restore` is exact, by replay. From 1000 steps after it was put down the world puts itself down anew from
      its ten numbers when nothing touches (at 2000 steps in any case), so that a replay is never longer.

    The physics is gym-pusht's with the original's reset, and follows the original bit for bit (tests/golden/worlds).

    Source: Zhou et al. 2024, arXiv 2411.04983, and github.com/gaoyuezhou/dino_wm 0a9492f; Chi et al. 2023, arXiv
    2303.04137.
    """

    name: str = "pusht"
    action_names: tuple[str, ...] = ("dx", "dy")
    state_names: tuple[str, ...] = tuple(STATE_BOUNDS)
    proprio_names: tuple[str, ...] = ("agent_x", "agent_y", "agent_vx", "agent_vy")

    def __init__(self, config: PushTWorldConfig) -> None:
        self.frame_size: int = config.frame_size
        self.action_low, self.action_high = np.full(2, -ACTION_LIMIT), np.full(2, ACTION_LIMIT)
        self._shapes = config.shape
        self._renderer = PushTRenderer(config.frame_size, config.with_target, config.shift)
        self._agent_radius = agent_radius(config.shift)
        self._simulators: dict[PushTShape, PushTSimulator] = {}
        self._shape: PushTShape = self._shapes[0]
        self._put_down(PushTSnapshot(self._shape_number, Bodies(256.0, 400.0, 256.0, 256.0, 0.0), False, ()))

    @property
    def layout(self) -> Mapping[str, float]:
        """`shape`, the number of the block's shape."""
        return {"shape": self._shape_number}

    @property
    def state(self) -> np.ndarray:
        """agent x, y, block x, y, angle in [0, 2 pi), agent velocity x, y: float64 (7,)."""
        return self._state.copy()

    @property
    def proprio(self) -> np.ndarray:
        """agent x, y, and its velocity: float64 (4,)."""
        return self._state[[0, 1, 5, 6]]

    @property
    def agent_radius(self) -> float:
        """The pusher's, pixels."""
        return self._agent_radius

    @property
    def bodies(self) -> Bodies:
        """All ten numbers of the simulator: with the block's velocities, and the angle with its turns."""
        return self._simulator.bodies

    @property
    def target(self) -> tuple[float, float] | None:
        """Where the last step sent the pusher, pixels; None before the first step."""
        return self._targets[-1] if self._targets else None

    @property
    def n_contacts(self) -> int:
        """Contact points per substep of the last step, rounded up; 0 after a reset."""
        return self._simulator.n_contacts

    def set_layout(self, layout: Mapping[str, float]) -> None:
        """Choose the block. It lies where the last one lay, at rest; a layout without `shape` is the configured one.

        Raises:
            ValueError: an entry is unknown, or `shape` is not a shape's number.
        """
        for name in layout:
            if name != "shape":
                raise ValueError(f"layout has an unknown entry '{name}'; the pusht world has shape")
        number = float(layout.get("shape", BLOCKS[self._shapes[0]].number))
        self._shape = shape_of_number(number)
        self._put_down(PushTSnapshot(number, Bodies(*self._state.tolist()), False, ()))

    def reset_to(self, state: np.ndarray) -> None:
        """Put pusher and block down, the block at rest. They may overlap or touch, as in the original.

        Unlike the original's reset (`prepare`) no substep follows: the state is then the one asked for, exactly.

        Raises:
            ValueError: not seven finite numbers, or one is beyond `STATE_BOUNDS`.
        """
        bodies = _bodies_of(state)
        self._put_down(PushTSnapshot(self._shape_number, bodies._replace(angle=_wrapped(bodies.angle)), False, ()))

    def prepare(self, state: np.ndarray) -> None:
        """The original's reset, whole: put down, then one substep of 0.01 s, which moves the pusher on by its velocity.

        The simulator's angle keeps the turns that it is given. Raises what `reset_to` raises.
        """
        self._put_down(PushTSnapshot(self._shape_number, _bodies_of(state), True, ()))

    def step(self, action: np.ndarray) -> np.ndarray:
        """Pull the pusher for 0.1 s towards its place plus 100 pixels times the action; returns the state.

        Raises:
            ValueError: not two finite numbers, or the target is beyond 100,000 pixels.
        """
        dx, dy = _finite_numbers(action, "action", 2)
        x, y = self._simulator.bodies[:2]
        target = x + PIXELS_PER_ACTION * dx, y + PIXELS_PER_ACTION * dy
        if max(abs(target[0]), abs(target[1])) > TARGET_BOUND:
            raise ValueError(
                f"action ({dx:g}, {dy:g}) sends the pusher to ({target[0]:g}, {target[1]:g}), expected a place within "
                f"{TARGET_BOUND:g} pixels"
            )
        self._drive(target)
        return self.state

    def render(self) -> np.ndarray:
        """The current frame, uint8 (frame_size, frame_size, 3), RGB."""
        return self._renderer.frame(self._state, self._shape)

    def render_states(self, states: Float[np.ndarray, "n 7"]) -> UInt8[np.ndarray, "n h w 3"]:
        """Frames of many states at the current layout; the world's own state is not touched."""
        return np.stack([self._renderer.frame(np.asarray(state, np.float64), self._shape) for state in states])

    def sample_layout(self, rng: np.random.Generator) -> Mapping[str, float]:
        """One of the configured shapes, each as likely."""
        return {"shape": float(BLOCKS[self._shapes[rng.integers(len(self._shapes))]].number)}

    def sample_problem(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Start and goal, independent and at rest.

        Each: agent uniform in [50, 450]^2, block in [100, 400]^2, angle in [0, 2 pi), drawn again until the block is
        between the walls and clear of the pusher. (The original draws whole numbers, and keeps what overlaps:
        `sample_original_problem`.)
        """
        return self._sample_state(rng), self._sample_state(rng)

    def sample_near_problem(
        self, rng: np.random.Generator, shift: float = 60.0, turn: float = math.pi / 4
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `sample_problem`, with the goal's block near the start's.

        Args:
            shift: pixels, the radius of the disc from which the block's displacement is drawn, uniformly.
            turn: radians, the largest difference of the angles, uniform.
        """
        start = self._sample_state(rng)

        def near() -> tuple[float, float, float]:
            direction, radius = rng.uniform(0, TAU), shift * math.sqrt(rng.uniform())
            x, y = start[2:4] + radius * np.array([math.cos(direction), math.sin(direction)])
            return float(x), float(y), _wrapped(float(start[4]) + rng.uniform(-turn, turn))

        return start, self._sample_state(rng, near)

    def success(self, state: np.ndarray, goal: np.ndarray) -> bool:
        """Agent and block jointly less than 20 pixels off, the angle less than 20 degrees, on the circle."""
        return pusht_success(state, goal)

    def distance(self, state: np.ndarray, goal: np.ndarray) -> float:
        """Euclidean over all seven numbers, units mixed as in the original, but the angle's difference on the circle."""
        apart = np.abs(np.asarray(state, np.float64) - np.asarray(goal, np.float64))
        turn = apart[4] % TAU
        apart[4] = min(turn, TAU - turn)
        return float(np.linalg.norm(apart))

    def coverage(self, state: np.ndarray, goal: np.ndarray | None = None) -> float:
        """The share of the block's area at the goal's pose that the block of `state` covers, 0..1.

        Args:
            goal: a state; None is the green place.
        """
        block = BLOCKS[self._shape]
        poses = np.asarray(state, np.float64)[2:5], TARGET_POSE if goal is None else np.asarray(goal, np.float64)[2:5]
        here, there = (shapely.union_all(shapely.polygons(block.corners_at(pose))) for pose in poses)
        return float(shapely.area(shapely.intersection(here, there)) / shapely.area(there))

    def reward(self, state: np.ndarray) -> float:
        """The original's, coverage of the green place over 0.95, at most 1: it says nothing about another goal."""
        return min(self.coverage(state) / COVERED, 1.0)

    def snapshot(self) -> PushTSnapshot:
        """How the world was put down and all that was done since: at most 2000 steps."""
        return PushTSnapshot(self._shape_number, self._start.bodies, self._start.settled, tuple(self._targets))

    def restore(self, snapshot: PushTSnapshot) -> None:
        """Go back to a snapshot, of this world or another, by replay: exact, at about a third of a millisecond a step."""
        self._shape = shape_of_number(snapshot.shape)
        self._put_down(snapshot._replace(targets=()))
        for target in snapshot.targets:
            self._simulator.drive(*target)
        if snapshot.targets:
            self._targets = list(snapshot.targets)
            self._read_state()

    def close(self) -> None:
        """Nothing is held."""

    @property
    def _shape_number(self) -> float:
        return float(BLOCKS[self._shape].number)

    def _put_down(self, start: PushTSnapshot) -> None:
        if self._shape not in self._simulators:
            self._simulators[self._shape] = PushTSimulator(BLOCKS[self._shape], self._agent_radius)
        self._simulator = self._simulators[self._shape]
        self._simulator.place(start.bodies)
        self._start, self._targets = start, list[tuple[float, float]]()
        if start.settled:
            self._simulator.settle()
            self._read_state()
        else:  # what was asked for: pymunk keeps the centre of gravity, and rounds on the way there and back
            self._state = _state_of(start.bodies)

    def _drive(self, target: tuple[float, float]) -> None:
        self._simulator.drive(*target)
        self._targets.append(target)
        num_steps, touching = len(self._targets), self._simulator.n_contacts > 0
        if num_steps >= REPLAY_STEPS_AT_MOST or (num_steps >= REPLAY_STEPS and not touching):
            self._put_down(PushTSnapshot(self._shape_number, self._simulator.bodies, False, ()))
        else:
            self._read_state()

    def _read_state(self) -> None:
        self._state = _state_of(self._simulator.bodies)

    def _sample_state(
        self, rng: np.random.Generator, block_pose: Callable[[], tuple[float, float, float]] | None = None
    ) -> np.ndarray:
        block = BLOCKS[self._shape]
        while True:
            agent = rng.uniform(*AGENT_RANGE, size=2)
            pose = np.array(block_pose() if block_pose else [*rng.uniform(*BLOCK_RANGE, size=2), rng.uniform(0, TAU)])
            corners = block.corners_at(pose)
            inside = ROOM[0] < corners.min() and corners.max() < ROOM[1]
            if inside and block.clearance(pose, agent[None])[0] > self._agent_radius + MARGIN:
                return np.array([*agent, *pose, 0.0, 0.0])


def sample_original_problem(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The start and goal that the original draws from a seed: states (7,) whose angles are not wrapped.

    Args:
        seed: of numpy's legacy RandomState; problem n of a published evaluation has seed 99 n + 1.
    """
    rng = np.random.RandomState(seed)

    def draw() -> np.ndarray:
        agent, block = rng.randint(50, 450, size=2), rng.randint(100, 400, size=2)
        return np.array([*agent, *block, rng.randn() * TAU - math.pi, 0.0, 0.0])

    return draw(), draw()


def _state_of(bodies: Bodies) -> np.ndarray:
    x, y, block_x, block_y, angle, vx, vy, *_ = bodies
    return np.array([x, y, block_x, block_y, _wrapped(angle), vx, vy])


def _wrapped(angle: float) -> float:
    return angle % TAU % TAU  # twice: just below 0 the first gives 2 pi itself


def _bodies_of(state: np.ndarray) -> Bodies:
    numbers = _finite_numbers(state, "state", len(STATE_BOUNDS))
    for (name, bound), number in zip(STATE_BOUNDS.items(), numbers, strict=True):
        if abs(number) > bound:
            raise ValueError(f"state '{name}' is {number:g}, expected a number within +-{bound:g}")
    return Bodies(*numbers)


def _finite_numbers(values: np.ndarray, what: str, count: int) -> list[float]:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (count,) or not np.isfinite(array).all():
        raise ValueError(f"{what} is {array.tolist()}, expected {count} finite numbers")
    return array.tolist()
