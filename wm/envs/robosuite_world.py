# pyright: reportAttributeAccessIssue=false
"""robosuite's Lift, Can, Square and Stack with a Panda, as worlds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from wm.config.worlds import RobosuiteWorldConfig
from wm.envs.physics import mujoco
from wm.envs.robosuite_control import JointControl, OscControl, resting_gripper
from wm.envs.robosuite_goals import Poses, read_state, write_state
from wm.envs.robosuite_scene import CONTROL_HZ, Scene, load_scene
from wm.envs.robosuite_tasks import (
    NUM_ARM,
    NUM_FINGERS,
    NUM_PROPRIO,
    POSE_SIZE,
    PROPRIO_NAMES,
    goal_distance,
)

SUBSTEPS = 25  # of 2 ms
JOINT_SLACK = 0.1  # radians that a reset may lie beyond a joint's limit, which is soft
FINGER_SLACK = 0.01  # metres, the same for the fingers
MAX_JOINT_VELOCITY = 50.0  # radians a second
REACH = 5.0  # metres from the origin within which an object may be put
QUATERNION_SLACK = 1e-3
INTEGRATION = mujoco.mjtState.mjSTATE_INTEGRATION
DIVERGED = (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC)


class RobosuiteSnapshot(NamedTuple):
    """A robosuite world, whole.

    Args:
        simulation: MuJoCo's integration state, the solver's warm start included.
        gripper: the fingers' command, (2,).
        model_file: of the demonstration whose model is loaded, or None.
    """

    simulation: np.ndarray
    gripper: np.ndarray
    model_file: str | None


class RobosuiteWorld:
    """A robosuite task: `World` over arm, fingers and objects, 20 actions a second.

    State (23,), float64; 30 in stack: joint positions 7 (rad), finger positions 2 (m; the second is the negative of the
    first when they are even), joint velocities 7 (rad/s), then for each object its position 3 (m, world frame) and
    quaternion 4 (x, y, z, w). Stack has cube_a (red, the upper one) and then cube_b. Proprio is the first 16.

    Actions: see `OscControl` (`control: osc_pose`, 7) and `JointControl` (`control: joint`, 9). What lies beyond
    `action_low` and `action_high` is clipped, as robosuite does.

    The transition is robosuite's (25 substeps of 2 ms, its controller, `lite_physics`), exactly, but for two things:
    the arm's null space is pulled to the home pose without robosuite's random noise (see `OscControl`), and objects
    of the model that take no part (in can: milk, bread, cereal; in square: the round nut) touch nothing. Lift's cube
    has one size, robosuite's draw from seed 0, where robosuite draws one for every hard reset. Frames are robosuite's
    with one sample a pixel and without the floor's faint reflections.

    The named entries are set and read exactly. What they leave out, a reset puts at rest: velocities of objects and
    fingers are 0, the solver starts cold, and the gripper's command is to stay where the fingers are, without force
    (a held object is let go of unless the next actions close the gripper).

    Source: Zhu et al., robosuite, arXiv 2009.12293; robosuite 1.5.2. State layout: WORLDS.md 5.
    """

    proprio_names: tuple[str, ...] = PROPRIO_NAMES

    def __init__(self, config: RobosuiteWorldConfig) -> None:
        """
        Raises:
            UserError: there is no OpenGL library, or MUJOCO_GL names one that is not there.
        """
        self.name: str = config.kind
        self.frame_size: int = config.frame_size
        self._config = config
        self._model_file: str | None = None
        self._open(load_scene(config.kind, config.shift))
        self.action_names: tuple[str, ...] = self._control.action_names
        self.state_names: tuple[str, ...] = self._scene.task.state_names
        self.action_low, self.action_high = self._control.low.copy(), self._control.high.copy()
        start = np.concatenate([self._scene.home, self._scene.open_fingers, np.zeros(NUM_ARM), *self._default_poses()])
        self.reset_to(start)

    def _open(self, scene: Scene) -> None:
        from robosuite.utils.binding_utils import MjSim

        self._scene = scene
        self._sim: Any = MjSim(scene.model)
        self._data: mujoco.MjData = self._sim.data._data
        self._control = {"osc_pose": OscControl, "joint": JointControl}[self._config.control](scene, self._sim)
        self._poses = Poses(self._config.kind, scene)
        self._camera = scene.camera(self._config.camera)

    def _default_poses(self) -> list[np.ndarray]:
        return [pose[[0, 1, 2, 4, 5, 6, 3]] for pose in self._scene.place_items(np.random.default_rng(0))]

    @property
    def layout(self) -> Mapping[str, float]:
        """Nothing: tables, bins and pegs stand where robosuite puts them."""
        return {}

    @property
    def state(self) -> np.ndarray:
        return read_state(self._scene, self._data)

    @property
    def proprio(self) -> np.ndarray:
        """The first 16 entries of the state."""
        return self.state[:NUM_PROPRIO]

    @property
    def hand(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the point between the finger tips is, (3,) m, and how the hand is turned, (3, 3).

        Columns of the rotation: x along the line from one finger to the other, z out of the hand.
        """
        site = self._scene.indices.grip_site
        return np.array(self._data.site_xpos[site]), np.array(self._data.site_xmat[site]).reshape(3, 3)

    def hand_at(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same in another state."""
        return self._poses.hand(np.asarray(state, np.float64))

    @property
    def flat_state(self) -> np.ndarray:
        """robosuite's flattened simulator state: time, qpos, qvel; what its demonstrations store as `states`."""
        return np.concatenate([[self._data.time], self._data.qpos, self._data.qvel])

    @property
    def model_file(self) -> str:
        """The model's XML, what robosuite's demonstrations store as `model_file`."""
        return self._scene.xml

    @property
    def env_info(self) -> Mapping[str, Any]:
        """What robosuite.make would need: name, robot, control rate and arm controller; plain data."""
        controller = {
            key: value
            for key, value in self._scene.env.robots[0].composite_controller_config["body_parts"]["right"].items()
            if isinstance(value, int | float | str | list | dict | None)
        }
        return {
            "env_name": self._scene.task.env_name,
            "robots": "Panda",
            "control_freq": CONTROL_HZ,
            "camera_names": self._config.camera,
            "controller_configs": {"type": "BASIC", "body_parts": {"right": controller}},
        }

    def set_layout(self, layout: Mapping[str, float]) -> None:
        """
        Raises:
            ValueError: it has any entry.
        """
        for name in layout:
            raise ValueError(f"layout has an unknown entry '{name}'; the {self.name} world has none")

    def sample_layout(self, rng: np.random.Generator) -> Mapping[str, float]:
        """Nothing to draw."""
        del rng
        return {}

    def reset_to(self, state: np.ndarray) -> None:
        """Put arm, fingers and objects where the state says; see the class for what it does not say.

        Raises:
            ValueError: a wrong shape, a number that is not finite, or an entry out of its range.
        """
        wanted = self._checked(state)
        write_state(self._scene, self._data, wanted)
        self._start(resting_gripper(wanted[NUM_ARM : NUM_ARM + NUM_FINGERS]))

    def reset_to_flat(self, flat: np.ndarray, model_file: str | None = None, gripper: np.ndarray | None = None) -> None:
        """Put the simulator in a stored state of a robosuite or robomimic demonstration, object velocities included.

        Args:
            flat: time, qpos, qvel of the demonstration's model.
            model_file: the demonstration's model XML (Lift's cube differs in size from one to the next); it stays
                loaded until another one comes. None keeps the present model.
            gripper: the fingers' command (2,) in [-1, 1]; None for the one that holds them without force. robosuite
                itself starts every replay from zeros, half open.

        Raises:
            ValueError: the model does not compile or is of another task, or the size does not fit it.
        """
        scene = self._scene
        if model_file is not None and model_file != scene.xml:
            scene = load_scene(self._config.kind, self._config.shift).with_xml(model_file, self._config.shift)
        values = np.asarray(flat, dtype=np.float64)
        size = 1 + scene.model.nq + scene.model.nv
        if values.shape != (size,):
            raise ValueError(f"flat state has shape {values.shape}, expected ({size},): time, qpos and qvel")
        if not np.isfinite(values).all():
            raise ValueError("flat state has numbers that are not finite")
        self._use(scene, model_file)
        mujoco.mj_resetData(scene.model, self._data)
        self._data.time = values[0]
        self._data.qpos[:] = values[1 : 1 + scene.model.nq]
        self._data.qvel[:] = values[1 + scene.model.nq :]
        fingers = self._data.qpos[scene.indices.finger_qpos]
        self._start(resting_gripper(fingers) if gripper is None else np.array(gripper, dtype=np.float64))

    def step(self, action: np.ndarray) -> np.ndarray:
        """One control step, 50 ms.

        Raises:
            ValueError: a wrong shape or a number that is not finite.
            RuntimeError: the simulation diverged; reset it.
        """
        wanted = np.asarray(action, dtype=np.float64)
        if wanted.shape != self.action_low.shape:
            raise ValueError(f"action has shape {wanted.shape}, expected {self.action_low.shape}")
        if not np.isfinite(wanted).all():
            raise ValueError(f"action is {wanted.tolist()}, expected finite numbers")
        wanted = np.clip(wanted, self.action_low, self.action_high)
        model, data = self._scene.model, self._data
        for substep in range(SUBSTEPS):
            mujoco.mj_step1(model, data)
            if substep == 0:
                self._control.set_goal(wanted)
            self._control.apply()
            mujoco.mj_step2(model, data)
        if any(data.warning[kind].number for kind in DIVERGED):
            raise RuntimeError(f"{self.name}: the simulation diverged")
        self._refresh()
        return self.state

    def render(self) -> np.ndarray:
        """The current frame by the configured camera, uint8 (frame_size, frame_size, 3), RGB.

        Raises:
            UserError: OpenGL is off or cannot start.
        """
        return self._scene.drawing.draw(self._data, self._camera, self.frame_size)

    def render_camera(self, name: str) -> np.ndarray:
        """The same by any camera of the model. Raises ValueError naming them when there is no such one."""
        return self._scene.drawing.draw(self._data, self._scene.camera(name), self.frame_size)

    def sample_problem(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Start: robosuite's own. Goal: a state at rest in which the task is done, with the arm where it ends up.

        Lift: the cube in the gripper, 8 to 16 cm up and within 5 cm. Can: standing in its quarter of the bin. Square:
        down on its peg, turned so that the hand is as at home. Stack: on the lower cube, where that started. In the last
        three the hand is open and 9 to 12 cm above.
        """
        start = self._poses.sample_start(rng)
        return start, self._poses.sample_goal(start, rng)

    def success(self, state: np.ndarray, goal: np.ndarray) -> bool:
        """Whether `distance` is below the task's threshold: 2 cm, in can 2.5. The arm does not count."""
        return self.distance(state, goal) < self._scene.task.threshold

    def distance(self, state: np.ndarray, goal: np.ndarray) -> float:
        """How far the key point of the objects that is farthest off is from its place in the goal, metres.

        Key points: centres of cubes; centre and top of the can; centre and handle of the nut.
        """
        return goal_distance(self._scene.task, np.asarray(state, np.float64), np.asarray(goal, np.float64))

    def task_success(self, state: np.ndarray) -> bool:
        """robosuite's own success of the task, from the state alone; not the same question as `success`."""
        return self._poses.is_done(np.asarray(state, np.float64))

    def snapshot(self) -> RobosuiteSnapshot:
        model, data = self._scene.model, self._data
        simulation = np.empty(mujoco.mj_stateSize(model, INTEGRATION))
        mujoco.mj_getState(model, data, simulation, INTEGRATION)
        return RobosuiteSnapshot(simulation, self._control.gripper.copy(), self._model_file)

    def restore(self, snapshot: RobosuiteSnapshot) -> None:
        """Go back to a snapshot, of this world or another of its kind and control."""
        plain = load_scene(self._config.kind, self._config.shift)
        if snapshot.model_file != self._model_file:
            loaded = snapshot.model_file
            self._use(plain if loaded is None else plain.with_xml(loaded, self._config.shift), loaded)
        model, data = self._scene.model, self._data
        mujoco.mj_resetData(model, data)
        mujoco.mj_setState(model, data, snapshot.simulation, INTEGRATION)
        self._control.gripper = snapshot.gripper.copy()
        self._refresh()

    def close(self) -> None:
        """The model and its GL objects are shared by the process's worlds of this task, and freed with it."""
        if self._model_file is not None:
            self._scene.drawing.close()

    def _use(self, scene: Scene, model_file: str | None) -> None:
        if scene is not self._scene:
            self.close()
            self._open(scene)
            self._model_file = model_file

    def _start(self, gripper: np.ndarray) -> None:
        self._control.gripper = gripper
        mujoco.mj_forward(self._scene.model, self._data)

    def _refresh(self) -> None:
        """After a step MuJoCo's derived quantities lag by one substep: bring up what frames and `hand` are read from."""
        mujoco.mj_kinematics(self._scene.model, self._data)
        mujoco.mj_comPos(self._scene.model, self._data)
        mujoco.mj_camlight(self._scene.model, self._data)

    def _checked(self, state: np.ndarray) -> np.ndarray:
        wanted = np.array(state, dtype=np.float64)
        names = self._scene.task.state_names
        if wanted.shape != (len(names),):
            raise ValueError(f"state has shape {wanted.shape}, expected ({len(names)},)")
        if not np.isfinite(wanted).all():
            raise ValueError(f"state '{names[int(np.argmin(np.isfinite(wanted)))]}' is not finite")
        low, high = self._limits()
        beyond = (wanted < low) | (wanted > high)
        if beyond.any():
            first = int(np.argmax(beyond))
            allowed = f"[{low[first]:g}, {high[first]:g}]"
            raise ValueError(f"state '{names[first]}' is {wanted[first]:g}, expected a number in {allowed}")
        for item, label in enumerate(self._scene.task.labels):
            length = float(np.linalg.norm(wanted[NUM_PROPRIO + POSE_SIZE * item + 3 :][:4]))
            if abs(length - 1) > QUATERNION_SLACK:
                raise ValueError(f"state '{label}_qx' to '{label}_qw' has length {length:g}, expected 1")
        return wanted

    def _limits(self) -> tuple[np.ndarray, np.ndarray]:
        model, indices = self._scene.model, self._scene.indices
        joints = model.jnt_range[indices.arm_joint]
        fingers = np.array([[0.0, 0.04], [-0.04, 0.0]])
        poses = np.tile([REACH, REACH, REACH, 1.1, 1.1, 1.1, 1.1], len(indices.item_qpos))
        velocities = np.full(NUM_ARM, MAX_JOINT_VELOCITY)
        low = [joints[:, 0] - JOINT_SLACK, fingers[:, 0] - FINGER_SLACK, -velocities, -poses]
        high = [joints[:, 1] + JOINT_SLACK, fingers[:, 1] + FINGER_SLACK, velocities, poses]
        return np.concatenate(low), np.concatenate(high)
