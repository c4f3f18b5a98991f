# pyright: reportAttributeAccessIssue=false
"""States seen apart from the running world: where the hand is in one, whether its task is done, and goals at rest."""

from __future__ import annotations

import math

import numpy as np

from wm.envs.physics import mujoco
from wm.envs.robosuite_control import FINGER_MAX
from wm.envs.robosuite_scene import Scene
from wm.envs.robosuite_tasks import (
    NUM_ARM,
    NUM_FINGERS,
    NUM_PROPRIO,
    POSE_SIZE,
    hand_has_left,
    is_in_can_bin,
    is_lifted,
    is_on_peg,
    position,
    rotation,
)

ABSENT_PLACE = (10.0, 10.0, 10.0, 1.0, 0.0, 0.0, 0.0)  # where robosuite puts what takes no part
HOME_NOISE = 0.02  # radians, robosuite's standard deviation of the arm's start
SETTLE_STEPS = 150  # of 2 ms, with the arm held where it is
IK_STEPS = 200
IK_DAMPING = 1e-4
IK_HOMING = 0.1
IK_ERROR = 1e-3  # metres and radians, together
HOME_YAW = math.pi / 2  # of the line between the fingers in the home pose

LIFT_HEIGHT = (0.08, 0.16)  # metres by which the goal's cube is above where it started
LIFT_SHIFT = 0.05  # metres to either side in x and y
RETREAT = {"can": 0.12, "square": 0.1, "stack": 0.09}  # metres between the hand and what it has put down
NUT_HANDLE = 0.054  # metres from the nut's centre, along its x
BIN_MARGIN = 0.04  # metres between the can's centre and the edges of its quarter
UPRIGHT_REACH = 0.775  # metres from the robot's base at which the hand can still point straight down
WRIST_HEIGHT = 0.21  # metres from the finger tips; beyond that reach the hand is tilted about them
FULL_REACH = 0.83  # metres; the far half of the can's quarter is beyond it
NEIGHBOUR = 0.1  # metres; an open finger reaches 5 cm from the middle of what is gripped
STACK_SHIFT = 0.005  # metres off the lower cube's middle, standard deviation
MAX_TRIES = 20


class Poses:
    """A simulation of its own in which states are looked at.

    Args:
        kind: the world's.
    """

    def __init__(self, kind: str, scene: Scene) -> None:
        self._kind = kind
        self._scene = scene
        self._data = mujoco.MjData(scene.model)

    def hand(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) and rotation (3, 3) of the point between the finger tips: x along the line between them."""
        write_state(self._scene, self._data, state)
        mujoco.mj_kinematics(self._scene.model, self._data)
        return self._hand()

    def is_done(self, state: np.ndarray) -> bool:
        """The task's own rule, from the state alone: contacts are those of a forwarded simulation."""
        scene, at = self._scene, position(state, 0)
        match self._kind:
            case "lift":
                return is_lifted(float(at[2]), scene.table_height)
            case "can":
                corner, size = scene.body_position("bin2"), scene.env.bin_size
                return is_in_can_bin(at, corner, size) and hand_has_left(self.hand(state)[0], at)
            case "square":
                on_peg = is_on_peg(at, scene.body_position("peg1"), scene.table_height)
                return on_peg and hand_has_left(self.hand(state)[0], at)
            case _:
                return is_lifted(float(at[2]), scene.table_height) and self._stacked(state)

    def sample_start(self, rng: np.random.Generator) -> np.ndarray:
        """robosuite's own start: objects as its sampler places them (1 to 2 cm above the table), the arm at home with noise."""
        scene = self._scene
        arm = scene.home + HOME_NOISE * rng.standard_normal(NUM_ARM)
        items = [np.concatenate([pose[:3], pose[4:], pose[3:4]]) for pose in scene.place_items(rng)]
        return np.concatenate([arm, scene.open_fingers, np.zeros(NUM_ARM), *items])

    def sample_goal(self, start: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A state at rest in which the task of `start` is done, the hand where it ends up after doing it.

        Raises:
            RuntimeError: none was found, which does not happen from the starts above.
        """
        for _ in range(MAX_TRIES):
            items, hand, turned, grips = self._draw_goal(start, rng)
            arm = self._reach(hand, turned)
            if arm is None:
                continue
            opening = self._grip_opening() if grips else FINGER_MAX
            state = np.concatenate([arm, [opening, -opening], np.zeros(NUM_ARM), *items])
            state = self._settle(state, grips)
            if self.is_done(state):
                return state
        raise RuntimeError(f"{self._kind}: no goal found in {MAX_TRIES} tries")

    def _draw_goal(
        self, start: np.ndarray, rng: np.random.Generator
    ) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, bool]:
        """Poses of the objects, where the hand is and how it is turned, and whether it holds the first object."""
        scene, at = self._scene, position(start, 0)
        yaw = math.atan2(*rotation(start, 0)[1::-1, 0])
        match self._kind:
            case "lift":
                shift = [*rng.uniform(-LIFT_SHIFT, LIFT_SHIFT, size=2), rng.uniform(*LIFT_HEIGHT)]
                at = at + shift
                return [_pose(at, yaw)], at, grip_rotation(nearest_grip_yaw(yaw, math.pi / 2)), True
            case "can":
                at = self._draw_can_place(at, rng)
                turned = self._stretch(grip_rotation(HOME_YAW + self._bearing(at)), at)
                return [_pose(at, yaw)], raised(at, RETREAT["can"]), turned, False
            case "square":
                turn, hand_turn = nut_turn(yaw)
                at = np.array([*scene.body_position("peg1")[:2], at[2]])
                handle = at + NUT_HANDLE * np.array([math.cos(turn), math.sin(turn), 0.0])
                turned = self._stretch(grip_rotation(HOME_YAW + hand_turn), handle)
                return [_pose(at, turn)], raised(handle, RETREAT["square"]), turned, False
            case _:
                lower = position(start, 1)
                yaw_b = math.atan2(*rotation(start, 1)[1::-1, 0])
                height = self._half_height(0) + self._half_height(1)
                off = STACK_SHIFT * rng.standard_normal(2)
                at = lower + np.array([*off, height])
                hand = raised(at, RETREAT["stack"])
                turned = grip_rotation(clear_grip_yaw(yaw, lower - position(start, 0)))
                return [_pose(at, yaw), _pose(lower, yaw_b)], hand, turned, False

    def _bearing(self, at: np.ndarray) -> float:
        """Direction from the robot's base, radians from the world's x."""
        base = self._scene.body_position("robot0_base")
        return math.atan2(at[1] - base[1], at[0] - base[0])

    def _stretch(self, turned: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Swing the fingers out as far as a place at the end of the arm's reach asks for."""
        beyond = float(np.linalg.norm(at[:2] - self._scene.body_position("robot0_base")[:2])) - UPRIGHT_REACH
        return tilt(turned, self._bearing(at), math.asin(max(0.0, beyond) / WRIST_HEIGHT))

    def _draw_can_place(self, at: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Uniform over the part of the can's quarter that the arm can reach."""
        scene = self._scene
        corner, base = scene.body_position("bin2"), scene.body_position("robot0_base")
        quarter = np.asarray(scene.env.bin_size[:2]) / 2
        height = at[2] - scene.env.bin1_pos[2] + corner[2]
        while True:
            place = rng.uniform(corner[:2] + BIN_MARGIN, corner[:2] + quarter - BIN_MARGIN)
            if np.linalg.norm(place - base[:2]) <= FULL_REACH:
                return np.array([*place, height])

    def _reach(self, hand: np.ndarray, turned: np.ndarray) -> np.ndarray | None:
        """Arm joints (7,) that put the hand there: damped least squares from home; None when it cannot."""
        scene, model, data = self._scene, self._scene.model, self._data
        indices = scene.indices
        mujoco.mj_resetData(model, data)
        data.qpos[indices.arm_qpos] = scene.home
        limits = model.jnt_range[indices.arm_joint]
        jacobian = np.zeros((6, model.nv))
        for _ in range(IK_STEPS):
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            at, rotated = self._hand()
            error = np.concatenate([hand - at, rotation_vector(turned @ rotated.T)])
            if np.linalg.norm(error) < IK_ERROR:
                return np.array(data.qpos[indices.arm_qpos])
            mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], indices.grip_site)
            J = jacobian[:, indices.arm_dof]
            inverse = J.T @ np.linalg.inv(J @ J.T + IK_DAMPING * np.eye(6))
            spare = IK_HOMING * (scene.home - data.qpos[indices.arm_qpos])  # keeps the elbow off its limits
            change = inverse @ error + spare - inverse @ (J @ spare)
            change *= min(1.0, 0.3 / float(np.abs(change).max()))
            data.qpos[indices.arm_qpos] = np.clip(data.qpos[indices.arm_qpos] + change, limits[:, 0], limits[:, 1])
        return None

    def _settle(self, state: np.ndarray, grips: bool) -> np.ndarray:
        """Let the objects come to rest, and the fingers close if they grip, while the arm stays where it is."""
        scene, model, data = self._scene, self._scene.model, self._data
        indices = scene.indices
        write_state(scene, data, state)
        data.ctrl[indices.finger_ctrl] = [0.0, 0.0] if grips else [FINGER_MAX, -FINGER_MAX]
        held = indices.item_qpos[0]
        pose = np.array(data.qpos[held : held + POSE_SIZE])
        for step in range(SETTLE_STEPS):
            mujoco.mj_step(model, data)
            data.qpos[indices.arm_qpos] = state[:NUM_ARM]
            data.qvel[indices.arm_dof] = 0
            if grips and step < SETTLE_STEPS / 2:  # until the fingers have it
                data.qpos[held : held + POSE_SIZE] = pose
                data.qvel[indices.item_dof[0] : indices.item_dof[0] + 6] = 0
        settled = read_state(scene, data)
        settled[NUM_ARM + NUM_FINGERS : NUM_PROPRIO] = 0
        return settled

    def _stacked(self, state: np.ndarray) -> bool:
        """robosuite's Stack: the upper cube touches the lower one, and not both fingers."""
        scene, data = self._scene, self._data
        write_state(scene, data, state)
        mujoco.mj_forward(scene.model, data)
        upper, lower = scene.indices.item_geoms[:2]
        pairs = [{int(a), int(b)} for a, b in data.contact.geom[: data.ncon]]
        touches_lower = any(pair & upper and pair & lower for pair in pairs)
        held = all(any(pad in pair and pair & upper for pair in pairs) for pad in scene.indices.pads)
        return touches_lower and not held

    def _hand(self) -> tuple[np.ndarray, np.ndarray]:
        site = self._scene.indices.grip_site
        return np.array(self._data.site_xpos[site]), np.array(self._data.site_xmat[site]).reshape(3, 3)

    def _half_height(self, item: int) -> float:
        return float(max(self._scene.model.geom_size[geom, 2] for geom in self._scene.indices.item_geoms[item]))

    def _grip_opening(self) -> float:
        """Just wide enough for the first object at any of its sides."""
        geoms = self._scene.indices.item_geoms[0]
        return float(max(self._scene.model.geom_size[geom, :2].max() for geom in geoms)) + 0.001


def write_state(scene: Scene, data: mujoco.MjData, state: np.ndarray) -> None:
    """Put a state vector into a simulation that is otherwise as new: what the vector lacks is at rest."""
    indices = scene.indices
    mujoco.mj_resetData(scene.model, data)
    data.qpos[indices.arm_qpos] = state[:NUM_ARM]
    data.qpos[indices.finger_qpos] = state[NUM_ARM : NUM_ARM + NUM_FINGERS]
    data.qvel[indices.arm_dof] = state[NUM_ARM + NUM_FINGERS : NUM_PROPRIO]
    for item, address in enumerate(indices.item_qpos):
        x, y, z, qx, qy, qz, qw = state[NUM_PROPRIO + POSE_SIZE * item :][:POSE_SIZE]
        data.qpos[address : address + POSE_SIZE] = x, y, z, qw, qx, qy, qz
    for address in indices.absent_qpos:
        data.qpos[address : address + POSE_SIZE] = ABSENT_PLACE


def read_state(scene: Scene, data: mujoco.MjData) -> np.ndarray:
    """The state vector of a simulation, float64."""
    indices, qpos = scene.indices, data.qpos
    parts = [qpos[indices.arm_qpos], qpos[indices.finger_qpos], data.qvel[indices.arm_dof]]
    for address in indices.item_qpos:
        pose = qpos[address : address + POSE_SIZE]
        parts += [pose[:3], pose[4:], pose[3:4]]
    return np.concatenate(parts)


def raised(at: np.ndarray, height: float) -> np.ndarray:
    """A place (3,) that is `height` metres above another."""
    return at + np.array([0.0, 0.0, height])


def grip_rotation(yaw: float) -> np.ndarray:
    """The hand pointing straight down, the line between its fingers at `yaw` from the world's x."""
    c, s = math.cos(yaw), math.sin(yaw)
    return np.array([[c, s, 0.0], [s, -c, 0.0], [0.0, 0.0, -1.0]])


def tilt(turned: np.ndarray, bearing: float, angle: float) -> np.ndarray:
    """A hand's rotation with the fingers swung out by `angle` towards `bearing` (both radians)."""
    axis = np.array([math.sin(bearing), -math.cos(bearing), 0.0])
    quat, matrix = np.zeros(4), np.zeros(9)
    mujoco.mju_axisAngle2Quat(quat, axis, angle)
    mujoco.mju_quat2Mat(matrix, quat)
    return matrix.reshape(3, 3) @ turned


def nearest_grip_yaw(yaw: float, period: float) -> float:
    """Of yaw plus any number of periods, the one nearest to the hand's at home."""
    return HOME_YAW + (yaw - HOME_YAW + period / 2) % period - period / 2


def nut_turn(yaw: float) -> tuple[float, float]:
    """How the nut goes onto its peg, of the four ways that fit: the nut's yaw, and the hand's from home, radians.

    Never with the handle away from the robot, which is out of reach. The hand's turn stays within 105 degrees on the
    way from a nut at `yaw`, gripped across its handle: the wrist does not go round.
    """
    yaw = (yaw + math.pi) % (2 * math.pi) - math.pi
    if abs(yaw) > math.radians(75):
        return math.pi, 0.0
    side = math.copysign(math.pi / 2, yaw)
    return side, side


def clear_grip_yaw(yaw: float, neighbour: np.ndarray) -> float:
    """A yaw of the hand for a cube at `yaw`: near home, unless a neighbour (where it lies from the cube) is in the way."""
    near = nearest_grip_yaw(yaw, math.pi / 2)
    other = near - math.copysign(math.pi / 2, near - HOME_YAW)
    bearing = math.atan2(neighbour[1], neighbour[0])
    blocked = np.linalg.norm(neighbour[:2]) < NEIGHBOUR and abs(math.cos(near - bearing)) > abs(
        math.cos(other - bearing)
    )
    return other if blocked else near


def rotation_vector(matrix: np.ndarray) -> np.ndarray:
    """Axis times angle (3,), radians, of a rotation matrix."""
    quat, vector = np.zeros(4), np.zeros(3)
    mujoco.mju_mat2Quat(quat, np.ascontiguousarray(matrix).ravel())
    mujoco.mju_quat2Vel(vector, quat, 1.0)
    return vector


def _pose(at: np.ndarray, yaw: float) -> np.ndarray:
    """Position and quaternion (x, y, z, w) of an object that stands upright."""
    return np.array([*at, 0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)])
