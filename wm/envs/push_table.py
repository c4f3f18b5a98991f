"""A table, things on it, and a pusher that one action moves once from a start to an end: what rope and granular share."""

# pyright: reportAttributeAccessIssue=false
# mujoco is a compiled module without stubs.

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from wm.envs.chamfer import chamfer_distance
from wm.envs.physics import mujoco
from wm.envs.push_path import REACH, SPEED, Push, Pusher, braking_steps, clear_way, make_push, random_push
from wm.envs.push_render import TableCamera
from wm.envs.push_scene import PARKED, STEP_S, TABLE_HALF_X, TABLE_HALF_Z, TABLE_HEIGHT

# Chamfer distance, units, exclusive: key points are 10 mm from the goal's on average, each way (the rope's radius).
# Settling again shifts a state by 0.0005 (0.003 at most), an action that is 1 mm off by 0.03 (0.09); of 24 problems of
# each world the nearest start was 0.38 from its goal, the median one 1.7 (rope) and 0.76 (grains).
SUCCESS_DISTANCE = 0.2
END_LIMIT = 3.0  # of the ends a policy asks for: what is pushed there is still on the table
PUSHER_DOFS = 4  # x, y, z, yaw: the first of qpos and qvel
GROWING_STEPS, PARTING_STEPS = 60, 80  # in which the foot gains its full depth, and things come clear of it
PARTING_SOFTNESS_S = 0.03  # of contacts meanwhile: what is in its middle is moved out, not shot out
LEAST_LIFT = 0.2  # units above the table, after a push
AIR = 0.02  # kept between pusher and objects while the simulation stands still

# Settling ends when no key point has moved faster than REST_SPEED in two chunks of steps.
REST_SPEED = 0.02  # units/s
SETTLE_CHUNK = 10
MAX_SETTLE_CHUNKS = 40  # 2 s

SAME_STATE = 1e-5  # units; a state asked for within this of what the bodies can take up is kept as it was asked for
FAR = 10.0  # units; no key point of a state may be further out or higher
SINK = 0.05  # units that a key point may be lower than it can lie


class PushTableSnapshot(NamedTuple):
    """A table world, whole: MuJoCo's integration state, the reported state, and whether everything has come to rest."""

    physics: np.ndarray
    state: np.ndarray
    at_rest: bool


class PushTableWorld(ABC):
    """Things on a table that a pusher moves: `World` over key points, one action = one whole push.

    Frames: a key point is (x, y, z) in units of 100 mm, y up, the table's top at y = 0.5, 7 x 9 units around the
    origin. Actions are in the table frame, whose z is the key points' z with the sign turned.

    An action (x_start, z_start, x_end, z_end) lowers the pusher at the start, moves it straight to the end, lifts it and
    takes it away; then everything settles. What it is lowered on is parted, not pressed. Each number is clipped to
    [-4, 4], further than the table reaches in x (3.5): what is pushed over an edge falls to the floor (y = 0) and
    cannot be reached any more. Time stands still between actions, and while the pusher is on its way to the first thing
    that it can touch. Velocities are zero whenever a state can be seen, so the key points are the whole state, but for how
    far a rope has rolled.

    Differences from the original (NVIDIA Flex, a robot arm): bodies of MuJoCo instead of particles; the pusher is its foot
    alone, moves at 1.5 units/s (there 1/300 unit a step), brakes at the end, and may start on top of things; starts and goals
    are settled; nothing of a robot is in the picture.

    Source: Zhou et al. 2024, arXiv 2411.04983, and github.com/gaoyuezhou/dino_wm 0a9492f, env/deformable_env.
    """

    name: str
    action_names: tuple[str, ...] = ("x_start", "z_start", "x_end", "z_end")
    proprio_names: tuple[str, ...] = ("none",)
    thickness: float  # half of it: from a key point's centre to the surface
    chained: bool  # key points that follow each other keep their distance
    reach: float  # from a key point to the furthest surface it stands for, seen from above

    def __init__(self, xml: str, num_points: int, pusher: Pusher, frame_size: int, start_pushes: int) -> None:
        self.frame_size: int = frame_size
        self.state_names: tuple[str, ...] = tuple(f"{axis}{i}" for i in range(num_points) for axis in "xyz")
        limits = np.array([REACH, REACH, END_LIMIT, END_LIMIT])
        self.action_low, self.action_high = -limits, limits
        self.pusher: Pusher = pusher
        self._start_pushes = start_pushes
        self._model: Any = mujoco.MjModel.from_xml_string(xml)
        self._data: Any = mujoco.MjData(self._model)
        self._foot: int = self._model.geom("foot").id
        self._camera: TableCamera | None = None
        self._state = np.zeros(3 * num_points)
        self._at_rest = False
        self.scene_state: np.ndarray = self._settled(self._scene())
        self.reset_to(self.scene_state)

    # ---- what a world of this kind says of itself ----

    @abstractmethod
    def _scene(self) -> Float[np.ndarray, "n 3"]:
        """Key points of the start that every recording has, before it settles."""

    @abstractmethod
    def _draw_goal(self, rng: np.random.Generator) -> Float[np.ndarray, "n 3"]:
        """Key points of a goal, before it settles."""

    @abstractmethod
    def _pose(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "q"]:
        """The bodies' qpos for key points in MuJoCo's frame. Raises ValueError when there is none."""

    @abstractmethod
    def _points(self) -> Float[np.ndarray, "n 3"]:
        """The key points of the bodies as they are, in MuJoCo's frame."""

    # ---- World ----

    @property
    def layout(self) -> Mapping[str, float]:
        """Empty: there is nothing to move."""
        return {}

    @property
    def state(self) -> np.ndarray:
        """x, y, z of every key point, float64 (3 n,), units of 100 mm."""
        return self._state.copy()

    @property
    def proprio(self) -> np.ndarray:
        """One zero, as in the original: between actions the pusher is away."""
        return np.zeros(1)

    def set_layout(self, layout: Mapping[str, float]) -> None:
        """This world has no layout.

        Raises:
            ValueError: the layout has an entry.
        """
        for name in layout:
            raise ValueError(f"layout has an unknown entry '{name}'; the {self.name} world has none")

    def reset_to(self, state: np.ndarray) -> None:
        """Put the key points where `state` has them, at rest. Nothing moves before the next action, which first lets them settle.

        What the bodies can take up within 1e-5 (a state seen before, or one rounded to float32) is kept to the last bit.

        Raises:
            ValueError: not 3 n finite numbers, a point beyond 10 units, inside table or floor, or one that the bodies cannot take up.
        """
        state = _finite_vector(state, len(self.state_names), "state")
        points = state.reshape(-1, 3)
        self._check_places(points)
        pose = self._pose(_to_mujoco(points))
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:] = self._with_pusher(pose)
        self._read_state()
        if np.abs(self._state - state).max() < SAME_STATE:
            self._state = state
        self._at_rest = False

    def step(self, action: np.ndarray) -> np.ndarray:
        """One whole push (x_start, z_start, x_end, z_end), each clipped to [-4, 4]; returns the settled state.

        Raises:
            ValueError: not four finite numbers.
            RuntimeError: the simulation flew apart; the world is as it was before the action.
        """
        push = make_push(_finite_vector(action, len(self.action_names), "action"))
        before = self.snapshot()
        if not self._at_rest:
            self._settle()
        points = self._points()
        clear = clear_way(push, self.pusher, points[:, :2], self.reach + AIR)
        if clear is not None:
            self._push(push, clear, top=float(points[:, 2].max()) + self.thickness)
            self._settle()
        if not (np.abs(self._state) <= FAR).all():  # NaN too
            self.restore(before)
            raise RuntimeError(f"the {self.name} world flew apart under action {np.asarray(action).tolist()}")
        return self.state

    def render(self) -> np.ndarray:
        """The current frame, uint8 (frame_size, frame_size, 3), RGB: from above at 45 degrees, no pusher in it.

        Raises:
            UserError: no OpenGL works here.
        """
        return self.render_states(self._state[None])[0]

    def render_states(self, states: Float[np.ndarray, "n s"]) -> UInt8[np.ndarray, "n h w 3"]:
        """Frames of many states, each drawn from its key points alone; the world's own state is not touched."""
        if self._camera is None:
            self._camera = TableCamera(self._model, self.frame_size)
        poses = (self._pose(_to_mujoco(state.reshape(-1, 3))) for state in np.asarray(states, dtype=np.float64))
        return np.stack([self._camera.draw(self._with_pusher(pose)) for pose in poses])

    def sample_layout(self, rng: np.random.Generator) -> Mapping[str, float]:
        """Always the empty layout; draws nothing."""
        return {}

    def sample_problem(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Start: the scene after `start_pushes` random pushes. Goal: the scene, transformed and settled.

        The published starts are steps of recorded random episodes; the world's own state is not touched.
        """
        before = self.snapshot()
        self.reset_to(self.scene_state)
        for _ in range(self._start_pushes):
            self.step(random_push(table_points(self._state), rng))
        start = self.state
        goal = self._settled(self._draw_goal(rng))
        self.restore(before)
        return start, goal

    def success(self, state: np.ndarray, goal: np.ndarray) -> bool:
        """Whether the chamfer distance is below 0.2 (see SUCCESS_DISTANCE). The original asks for less than 0, which is never true."""
        return self.distance(state, goal) < SUCCESS_DISTANCE

    def distance(self, state: np.ndarray, goal: np.ndarray) -> float:
        """Chamfer distance of the key points, units: see `chamfer_distance`."""
        first, second = (np.asarray(one, dtype=np.float64).reshape(-1, 3) for one in (state, goal))
        return chamfer_distance(first, second)

    def snapshot(self) -> PushTableSnapshot:
        """MuJoCo's integration state (poses, velocities, the solver's guesses), the state and whether it is at rest."""
        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        physics = np.zeros(mujoco.mj_stateSize(self._model, kind))
        mujoco.mj_getState(self._model, self._data, physics, kind)
        return PushTableSnapshot(physics, self.state, self._at_rest)

    def restore(self, snapshot: PushTableSnapshot) -> None:
        """Go back to a snapshot, of this world or of another of the same config."""
        mujoco.mj_setState(self._model, self._data, snapshot.physics, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_kinematics(self._model, self._data)
        self._state, self._at_rest = snapshot.state.copy(), snapshot.at_rest

    def close(self) -> None:
        """Free the picture's buffers."""
        if self._camera is not None:
            self._camera.close()
            self._camera = None

    # ---- the simulation ----

    def _push(self, push: Push, clear: float, top: float) -> None:
        """Down, along and up, from `clear` units on the way; `top` is the highest point of what lies about."""
        yaw = float(np.arctan2(push.direction[1], push.direction[0]))
        if clear == 0:  # otherwise it comes down where nothing is
            self._part(push.start, yaw)
        along = clear + braking_steps(push.length - clear, STEP_S)
        self._move(np.column_stack([push.start + along[:, None] * push.direction, np.zeros(len(along))]), yaw)
        heights = np.arange(0, max(LEAST_LIFT, top - TABLE_HEIGHT + AIR), SPEED * STEP_S)
        self._move(np.column_stack([np.tile(push.end, (len(heights), 1)), heights]), yaw)

    def _part(self, start: Float[np.ndarray, "2"], yaw: float) -> None:
        """Come down among things, or on top of them: like a pointed tip, which parts them. A blunt one would press them into
        the table, and the solver would have no answer."""
        size, softness = self._model.geom_size[self._foot], self._model.geom_solref[self._foot]
        depth, stiff_s = float(size[0]), float(softness[0])
        place = np.append(start, 0.0)[None]
        softness[0] = PARTING_SOFTNESS_S
        try:
            for step in range(PARTING_STEPS):
                size[0] = depth * min(1.0, (step + 1) / GROWING_STEPS)
                self._move(place, yaw)
        finally:
            size[0], softness[0] = depth, stiff_s

    def _move(self, path: Float[np.ndarray, "t 3"], yaw: float) -> None:
        """Take the pusher along a path above the table, one simulator step a point, whatever resists it."""
        if not len(path):
            return
        data, model = self._data, self._model
        path = path + np.array([0, 0, TABLE_HEIGHT])
        velocities = np.diff(path, axis=0, append=path[-1:]) / STEP_S  # contacts feel the pusher's speed, too
        for place, velocity in zip(path, velocities, strict=True):
            data.qpos[:3], data.qpos[3] = place, yaw
            data.qvel[:3], data.qvel[3] = velocity, 0
            mujoco.mj_step(model, data)

    def _settle(self) -> None:
        """Pusher away; let everything come to rest, then call what is left of its speed zero."""
        data = self._data
        last, quiet = self._points(), 0
        for _ in range(MAX_SETTLE_CHUNKS):
            data.qpos[:] = self._with_pusher(data.qpos[PUSHER_DOFS:])
            data.qvel[:PUSHER_DOFS] = 0
            mujoco.mj_step(self._model, data, SETTLE_CHUNK)
            mujoco.mj_kinematics(self._model, data)
            points = self._points()
            speed = np.linalg.norm(points - last, axis=1).max() / (SETTLE_CHUNK * STEP_S)
            last = points
            quiet = 0 if speed > REST_SPEED else quiet + 1  # NaN counts as quiet
            if quiet == 2:
                break
        pose = data.qpos[PUSHER_DOFS:].copy()
        mujoco.mj_resetData(self._model, data)
        data.qpos[:] = self._with_pusher(pose)
        self._read_state()
        self._at_rest = True

    def _settled(self, points: Float[np.ndarray, "n 3"]) -> np.ndarray:
        """The state that key points come to rest in; the world is left in it."""
        self.reset_to(points.ravel())
        self._settle()
        return self.state

    def _read_state(self) -> None:
        mujoco.mj_kinematics(self._model, self._data)
        self._state = _from_mujoco(self._points()).ravel()

    def _with_pusher(self, pose: Float[np.ndarray, "q"]) -> Float[np.ndarray, "p"]:
        return np.concatenate([PARKED, pose])

    def _check_places(self, points: Float[np.ndarray, "n 3"]) -> None:
        for i, (x, y, z) in enumerate(points):
            for axis, value in zip("xyz", (x, y, z), strict=True):
                if abs(value) > FAR:
                    raise ValueError(f"state '{axis}{i}' is {value:g}, expected a number in [-{FAR:g}, {FAR:g}]")
            above_table = abs(x) < TABLE_HALF_X and abs(z) < TABLE_HALF_Z
            least = (TABLE_HEIGHT if above_table else 0) + self.thickness - SINK
            if y < least:
                raise ValueError(
                    f"state 'y{i}' is {y:g}, expected a number in [{least:g}, {FAR:g}] at x {x:g}, z {z:g}"
                )


def as_push_table(world: object) -> PushTableWorld:
    """The same world. Raises ValueError when it is no table with things to push."""
    if not isinstance(world, PushTableWorld):
        raise ValueError(
            f"world '{getattr(world, 'name', world)}' is no table with things to push: expected rope or granular"
        )
    return world


def table_points(state: np.ndarray) -> Float[np.ndarray, "n 2"]:
    """The key points of a state from above, in the table frame of the actions: (x, -z)."""
    return state.reshape(-1, 3)[:, [0, 2]] * [1, -1]


def _to_mujoco(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    return points[:, [0, 2, 1]] * [1, -1, 1]


def _from_mujoco(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    return points[:, [0, 2, 1]] * [1, 1, -1]


def _finite_vector(values: np.ndarray, size: int, what: str) -> np.ndarray:
    array = np.array(values, dtype=np.float64)
    if array.shape != (size,):
        raise ValueError(f"{what} has shape {array.shape}, expected ({size},)")
    if not np.isfinite(array).all():
        raise ValueError(
            f"{what} has entries that are not finite numbers: {np.flatnonzero(~np.isfinite(array))[:5].tolist()}"
        )
    return array
