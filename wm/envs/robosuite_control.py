# pyright: reportAttributeAccessIssue=false
"""What an action does to the arm: robosuite's controllers, with nothing carried from one episode into the next."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np

from wm.envs.physics import mujoco
from wm.envs.robosuite_scene import Scene
from wm.envs.robosuite_tasks import NUM_ARM

ControlKind = Literal["osc_pose", "joint"]

GRIPPER_SPEED = 0.2  # of robosuite's Panda gripper: its command moves by this much of the half range a step
FINGER_MAX = 0.04  # metres, each finger
JOINT_GAIN = 300.0  # robosuite's upper limit for joint position gains: the arm is there after about three steps

OSC_ACTION_NAMES = ("dx", "dy", "dz", "drx", "dry", "drz", "gripper")
JOINT_ACTION_NAMES = (*(f"joint_{n}" for n in range(1, NUM_ARM + 1)), "finger_1", "finger_2")


class ArmControl(Protocol):
    """One arm in one simulation.

    `gripper` (2,) is all that a control keeps between steps, in [-1, 1] for each finger.
    """

    action_names: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    gripper: np.ndarray

    def set_goal(self, action: np.ndarray) -> None:
        """Take a clipped action; the simulation stands after `step1` of the first substep."""
        ...

    def apply(self) -> None:
        """Write the arm's part of `data.ctrl`, after `step1` of every substep."""
        ...


class OscControl:
    """robosuite's OSC_POSE with delta actions, as in its demonstrations.

    Actions (7,), each in [-1, 1]: translation of the grip site in steps of 5 cm, rotation (axis-angle) in steps of 0.5
    rad, both in the robot's base frame and from where the hand is now; gripper by its sign: 1 closes, -1 opens, 0 keeps.

    robosuite draws the pose to which the arm's spare degree of freedom is pulled when an episode starts, with noise,
    and so keeps it out of reach of a state. Here it is the home pose without the noise.
    """

    action_names: tuple[str, ...] = OSC_ACTION_NAMES

    def __init__(self, scene: Scene, sim: Any) -> None:
        self.low, self.high = -np.ones(7), np.ones(7)
        self.gripper = np.zeros(2)
        self._scene = scene
        self._data = sim.data._data
        self._arm = _robosuite_controller(scene, sim, "OSC_POSE", {})
        self._arm.initial_joint = scene.home
        self._torque_range = scene.model.actuator_ctrlrange[scene.indices.arm_ctrl].T
        low, high = scene.model.actuator_ctrlrange[scene.indices.finger_ctrl].T
        self._finger_middle, self._finger_half = (high + low) / 2, (high - low) / 2

    def set_goal(self, action: np.ndarray) -> None:
        self._arm.new_update = True  # else a new controller's first action goes by the state in which it was made
        self._arm.set_goal(action[:6])
        change = np.array([-1.0, 1.0]) * GRIPPER_SPEED * np.sign(action[6])
        self.gripper = np.clip(self.gripper + change, -1.0, 1.0)
        self._data.ctrl[self._scene.indices.finger_ctrl] = self._finger_middle + self._finger_half * self.gripper

    def apply(self) -> None:
        self._data.ctrl[self._scene.indices.arm_ctrl] = np.clip(self._arm.run_controller(), *self._torque_range)


class JointControl:
    """Absolute joint targets, as the Franka cube-stack log has them.

    Actions (9,): seven joint positions in radians, held until the next action by robosuite's JOINT_POSITION controller
    (critically damped, mass matrix and gravity compensated), then the two fingers' positions in metres, 0 (closed) to
    0.04 each. The log does not say the unit of its gripper commands; metres are what its simulator commands.
    """

    action_names: tuple[str, ...] = JOINT_ACTION_NAMES

    def __init__(self, scene: Scene, sim: Any) -> None:
        limits = scene.model.jnt_range[scene.indices.arm_joint]
        self.low = np.concatenate([limits[:, 0], np.zeros(2)])
        self.high = np.concatenate([limits[:, 1], np.full(2, FINGER_MAX)])
        self.gripper = np.zeros(2)
        self._scene = scene
        self._data = sim.data._data
        changes = {"input_type": "absolute", "kp": JOINT_GAIN, "kp_limits": (0, JOINT_GAIN), "qpos_limits": None}
        self._arm = _robosuite_controller(scene, sim, "JOINT_POSITION", changes)
        self._torque_range = scene.model.actuator_ctrlrange[scene.indices.arm_ctrl].T

    def set_goal(self, action: np.ndarray) -> None:
        self._arm.new_update = True
        self._arm.set_goal(action[:NUM_ARM])
        fingers = action[NUM_ARM:] * np.array([1.0, -1.0])
        self.gripper = resting_gripper(fingers)
        self._data.ctrl[self._scene.indices.finger_ctrl] = fingers

    def apply(self) -> None:
        self._data.ctrl[self._scene.indices.arm_ctrl] = np.clip(self._arm.run_controller(), *self._torque_range)


def resting_gripper(fingers: np.ndarray) -> np.ndarray:
    """The command (2,) that holds the fingers where they are, without force: what a state says about the gripper."""
    return np.clip((np.asarray(fingers) - np.array([1.0, -1.0]) * FINGER_MAX / 2) / (FINGER_MAX / 2), -1.0, 1.0)


def _robosuite_controller(scene: Scene, sim: Any, kind: str, changes: dict[str, Any]) -> Any:
    from robosuite.controllers import controller_factory

    indices, model = scene.indices, scene.model
    limits = model.actuator_ctrlrange[indices.arm_ctrl]
    settings = {**scene.env.robots[0].part_controller_config["right"], **changes}
    settings.update(
        sim=sim,
        joint_indexes={
            "joints": [int(j) for j in indices.arm_joint],
            "qpos": [int(q) for q in indices.arm_qpos],
            "qvel": [int(v) for v in indices.arm_dof],
        },
        actuator_range=(limits[:, 0], limits[:, 1]),
        interpolation=None,
    )
    if kind == "JOINT_POSITION":  # the scales and gains of the pose controller mean nothing here
        settings = {key: value for key, value in settings.items() if key not in ("output_max", "output_min")}
    controller = controller_factory("right", kind, settings)
    controller.reset_goal()
    mujoco.mj_forward(model, sim.data._data)
    base = scene.indices.base_site
    controller.update_origin(np.array(sim.data.site_xpos[base]), np.array(sim.data.site_xmat[base]).reshape(3, 3))
    return controller
