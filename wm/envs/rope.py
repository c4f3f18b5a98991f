"""A rope on a table, pushed by a stick: the rope world of DINO-WM, in MuJoCo."""

# pyright: reportAttributeAccessIssue=false
# mujoco is a compiled module without stubs.

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from wm.config.worlds import RopeWorldConfig
from wm.envs.physics import mujoco
from wm.envs.push_path import Pusher
from wm.envs.push_scene import TABLE_HEIGHT, UNSEEN_GROUP, Look, scene_xml, shifted_look, shifted_pusher
from wm.envs.push_table import PushTableWorld

NUM_LINKS = 25
LINK = 0.1  # units of 100 mm: 2.5 from the first to the last key point
RADIUS = 0.1
MASS = 0.25
FRICTION = 0.2  # between the original's 0.1 of bodies and 0.25 of particles
STIFFNESS = 0.3  # of each of a joint's two hinges, torque per radian: friction holds gentle bends, sharp ones open
DAMPING = 0.1
MAX_BEND = np.radians(35)  # of a hinge
NEIGHBOURS = 3  # links this near along the rope touch even when it is straight, and do not collide
STICK = Pusher(half_width=0.1, half_depth=0.1, round=True)
STICK_HEIGHT = 1.0
LOOK = Look(objects="0.80 0.33 0.15")

LENGTH_TOLERANCE = 0.05  # of a link's length, in a state that is asked for
MOST_BEND = np.radians(70)  # between links, in a state that is asked for
FAR_END = 2.0  # z of the scene's first key point
GOAL_TURN = np.pi / 2
GOAL_SHIFT = 1.0


class RopeWorld(PushTableWorld):
    """A rope of 25 capsules, pushed by a stick: key points are its two ends and the 24 joints.

    Joints are universal: two hinges with a spring each, no twist. What the key points do not tell is how far the rope has
    rolled about its own line; a reset takes it as not rolled, which changes nothing that is seen.

    The scene lies along z, from 2.0 to -0.5 at x = 0 (the original's mesh has its corner at (0, 0.5, 2.0), turned by 90
    degrees; it is also dropped with a tilt of 10). Goals: the scene turned by U(0, 90) degrees about the origin, then x and z
    shifted by the same |U(-1, 1)|, each with a sign of its own.
    """

    name: str = "rope"
    thickness: float = RADIUS
    chained: bool = True
    reach: float = RADIUS + LINK / 2

    def __init__(self, config: RopeWorldConfig) -> None:
        pusher = shifted_pusher(STICK, config.shift)
        excludes = "".join(
            f'<exclude body1="link{i}" body2="link{j}"/>'
            for i in range(NUM_LINKS)
            for j in range(i + 2, min(NUM_LINKS, i + NEIGHBOURS + 1))
        )
        xml = scene_xml(
            _chain(),
            excludes,
            pusher=pusher,
            pusher_height=STICK_HEIGHT,
            look=shifted_look(LOOK, config.shift),
            friction=FRICTION,
            rolling=0.0,
        )
        super().__init__(xml, NUM_LINKS + 1, pusher, config.frame_size, config.start_pushes)

    def _scene(self) -> Float[np.ndarray, "n 3"]:
        along = FAR_END - LINK * np.arange(NUM_LINKS + 1)
        return np.column_stack([np.zeros_like(along), np.full_like(along, TABLE_HEIGHT + RADIUS), along])

    def _draw_goal(self, rng: np.random.Generator) -> Float[np.ndarray, "n 3"]:
        turn = rng.uniform(0, GOAL_TURN)
        shift = rng.uniform(0, GOAL_SHIFT) * rng.choice([-1.0, 1.0], size=2)
        x, y, z = self.scene_state.reshape(-1, 3).T
        turned_x = np.cos(turn) * x + np.sin(turn) * z
        turned_z = np.cos(turn) * z - np.sin(turn) * x
        return np.column_stack([turned_x + shift[0], y, turned_z + shift[1]])

    def _pose(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "q"]:
        steps = np.diff(points, axis=0)
        lengths = np.linalg.norm(steps, axis=1)
        for i, length in enumerate(lengths):
            if abs(length - LINK) > LENGTH_TOLERANCE * LINK:
                raise ValueError(
                    f"state has key points {i} and {i + 1} {length:g} apart, expected {LINK:g} within {LENGTH_TOLERANCE:.0%}"
                )
        directions = steps / lengths[:, None]
        bends = np.arccos(np.clip((directions[1:] * directions[:-1]).sum(axis=1), -1, 1))
        if bends.max() > MOST_BEND:
            joint = int(bends.argmax()) + 1
            raise ValueError(
                f"state bends by {np.degrees(bends.max()):.0f} degrees at key point {joint}, "
                f"expected at most {np.degrees(MOST_BEND):.0f}"
            )
        frame = _first_frame(directions[0])
        pose = [*points[0], *_quaternion(frame)]
        for direction in directions[1:]:
            x, y, z = frame.T @ direction
            yaw, pitch = np.arctan2(y, x), -np.arcsin(np.clip(z, -1, 1))
            pose += [yaw, pitch]
            frame = frame @ _turn(yaw, pitch)
        return np.array(pose)

    def _points(self) -> Float[np.ndarray, "n 3"]:
        first = self._model.body("link0").id
        nodes = self._data.xpos[first : first + NUM_LINKS]
        end = nodes[-1] + LINK * self._data.xmat[first + NUM_LINKS - 1].reshape(3, 3)[:, 0]
        return np.vstack([nodes, end])


def _chain() -> str:
    """Nested bodies, each along its own x. A capsule meets stick and rope, a ball within it meets the table: half the contacts."""
    hinge = f'stiffness="{STIFFNESS}" damping="{DAMPING}" limited="true" range="-{MAX_BEND} {MAX_BEND}"'
    joints = f'<joint axis="0 0 1" {hinge}/><joint axis="0 1 0" {hinge}/>'
    geoms = (
        f'<geom type="capsule" fromto="0 0 0 {LINK} 0 0" size="{RADIUS}" mass="{MASS / NUM_LINKS}" friction="{FRICTION}" '
        f'contype="2" conaffinity="2" material="object"/>'
        f'<geom type="sphere" pos="{LINK / 2} 0 0" size="{RADIUS}" mass="0" friction="{FRICTION}" '
        f'contype="0" conaffinity="1" group="{UNSEEN_GROUP}"/>'
    )
    chain = ""
    for i in reversed(range(NUM_LINKS)):
        place = f'<body name="link{i}" pos="{LINK if i else 0} 0 0">'
        chain = f"{place}{joints if i else '<freejoint/>'}{geoms}{chain}</body>"
    return chain


def _first_frame(direction: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """Columns x, y, z: x along the link, z as far up as it goes."""
    up = np.array([0.0, 0.0, 1.0]) if abs(direction[2]) < 0.99 else np.array([1.0, 0.0, 0.0])
    side = np.cross(up, direction)
    side /= np.linalg.norm(side)
    return np.column_stack([direction, side, np.cross(direction, side)])


def _turn(yaw: float, pitch: float) -> Float[np.ndarray, "3 3"]:
    """Rotation about z, then about the new y."""
    a, b, c, d = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    return np.array([[a * c, -b, a * d], [b * c, a, b * d], [-d, 0.0, c]])


def _quaternion(frame: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "4"]:
    result = np.zeros(4)
    mujoco.mju_mat2Quat(result, frame.ravel())
    return result
