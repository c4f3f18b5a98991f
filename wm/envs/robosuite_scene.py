# pyright: reportAttributeAccessIssue=false
"""robosuite's models, built once for a process: the task's compiled model, its placement of objects, its XML."""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from wm.envs.physics import mujoco
from wm.envs.robosuite_models import BASE_SITE, current_model
from wm.envs.robosuite_render import Drawing, prepare_model
from wm.envs.robosuite_shift import apply_shift
from wm.envs.robosuite_tasks import NUM_ARM, TASKS, Task, TaskKind

CONTROL_HZ = 20
CONSTRUCTION_SEED = 0  # of robosuite's model building: in lift it decides the size of the cube, 4.3 x 4.1 x 4.0 cm
JOINT_PREFIX, FINGER_PREFIX = "robot0_joint", "gripper0_right_finger_joint"
ARM_ACTUATOR, FINGER_ACTUATOR = "robot0_torq_j", "gripper0_right_gripper_finger_joint"
GRIP_SITE = "gripper0_right_grip_site"
FINGER_PADS = ("gripper0_right_finger1_pad_collision", "gripper0_right_finger2_pad_collision")

_placement_lock = threading.Lock()


class Indices:
    """Where the robot and the objects are in a model's arrays; found by name."""

    def __init__(self, model: mujoco.MjModel, task: Task) -> None:
        def joint(name: str) -> tuple[int, int]:
            found = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name)
            if found < 0:
                raise ValueError(f"the model has no joint '{name}': it is not of the task {task.env_name} with a Panda")
            return int(model.jnt_qposadr[found]), int(model.jnt_dofadr[found])

        arm = [joint(f"{JOINT_PREFIX}{number}") for number in range(1, NUM_ARM + 1)]
        fingers = [joint(f"{FINGER_PREFIX}{number}") for number in (1, 2)]
        self.arm_qpos, self.arm_dof = (np.array(column) for column in zip(*arm, strict=True))
        self.finger_qpos, self.finger_dof = (np.array(column) for column in zip(*fingers, strict=True))
        self.arm_joint = np.array([_find(model, "JOINT", f"{JOINT_PREFIX}{n}") for n in range(1, NUM_ARM + 1)])
        self.arm_ctrl = np.array([_find(model, "ACTUATOR", f"{ARM_ACTUATOR}{n}") for n in range(1, NUM_ARM + 1)])
        self.finger_ctrl = np.array([_find(model, "ACTUATOR", f"{FINGER_ACTUATOR}{n}") for n in (1, 2)])
        self.item_qpos = tuple(joint(f"{item}_joint0")[0] for item in task.items)
        self.item_dof = tuple(joint(f"{item}_joint0")[1] for item in task.items)
        self.absent_qpos = tuple(joint(f"{item}_joint0")[0] for item in task.absent)
        self.item_geoms = tuple(_geoms_of(model, f"{item}_main") for item in task.items)
        self.pads = tuple(_find(model, "GEOM", pad) for pad in FINGER_PADS)
        self.grip_site = _find(model, "SITE", GRIP_SITE)
        self.base_site = _find(model, "SITE", BASE_SITE)


class Scene:
    """One task's model with one shift, shared by all worlds of the process that have them; nothing in it changes.

    Args:
        env: robosuite's environment, kept for its placement sampler and its controller settings.
        model: compiled.
        xml: what it was compiled from, in robosuite's own form: what its demonstrations store as `model_file`.
    """

    def __init__(self, task: Task, env: Any, model: mujoco.MjModel, xml: str) -> None:
        self.task = task
        self.env = env
        self.model = model
        self.xml = xml
        self.indices = Indices(model, task)
        self.drawing = Drawing(model)
        self.table_height = float(env.table_offset[2]) if hasattr(env, "table_offset") else float(env.bin1_pos[2])

    @property
    def home(self) -> np.ndarray:
        """Joint positions (7,) from which robosuite starts an episode, before its noise."""
        return np.array(self.env.robots[0].robot_model.init_qpos, dtype=np.float64)

    @property
    def open_fingers(self) -> np.ndarray:
        """Finger positions (2,) at which robosuite starts an episode."""
        return np.array(self.env.robots[0].gripper["right"].init_qpos, dtype=np.float64)

    def body_position(self, name: str) -> np.ndarray:
        """Where a body that does not move is, (3,); it must hang directly on the world."""
        return np.array(self.model.body_pos[_find(self.model, "BODY", name)])

    def camera(self, name: str) -> int:
        """Raises ValueError, naming what there is, when the model lacks it."""
        found = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_CAMERA, name)
        if found < 0:
            cameras = [mujoco.mj_id2name(self.model, mujoco.mjtObj.mjOBJ_CAMERA, i) for i in range(self.model.ncam)]
            raise ValueError(f"camera is '{name}', expected one of {', '.join(cameras)}")
        return found

    def place_items(self, rng: np.random.Generator) -> list[np.ndarray]:
        """robosuite's own draw of where the objects start: per object position 3 and quaternion 4 (w, x, y, z)."""
        with _placement_lock:
            sampler = self.env.placement_initializer
            for one in (sampler, *getattr(sampler, "samplers", {}).values()):
                one.rng = rng
            placed = sampler.sample()
        return [np.concatenate([placed[item][0], placed[item][1]]).astype(np.float64) for item in self.task.items]

    def with_xml(self, xml: str, shift: str) -> Scene:
        """The same task with the model of a demonstration (its `model_file`, of robosuite 1.4 or 1.5), whose objects may differ in
        size.

        Raises:
            ValueError: MuJoCo cannot compile it, or it is of another task.
        """
        try:
            model = mujoco.MjModel.from_xml_string(self.env.edit_model_xml(current_model(xml)))
        except (ValueError, SyntaxError) as error:
            raise ValueError(f"model_file does not compile: {str(error).splitlines()[0]}") from error
        _place_fixtures(model, self.model)
        _silence_absent(model, self.task)
        prepare_model(model)
        apply_shift(model, shift)
        return Scene(self.task, self.env, model, xml)


@functools.lru_cache(maxsize=4)  # some 200 MB each
def load_scene(kind: TaskKind, shift: str) -> Scene:
    """The task's scene, built at the first call (half a second) and shared afterwards."""
    task = TASKS[kind]
    if shift != "none":
        plain = load_scene(kind, "none")
        model = copy.copy(plain.model)
        apply_shift(model, shift)
        return Scene(task, plain.env, model, plain.xml)
    env = _make_env(task.env_name)
    model = env.sim.model._model
    _silence_absent(model, task)
    prepare_model(model)
    return Scene(task, env, model, env.model.get_xml())


def _make_env(env_name: str) -> Any:
    with _quiet():
        import robosuite
        from robosuite.utils.log_utils import ROBOSUITE_DEFAULT_LOGGER

        ROBOSUITE_DEFAULT_LOGGER.setLevel(logging.ERROR)
        return robosuite.make(
            env_name,
            robots="Panda",
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
            control_freq=CONTROL_HZ,
            hard_reset=False,
            ignore_done=True,
            seed=CONSTRUCTION_SEED,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """robosuite warns at import of packages that nobody here needs, and sets MUJOCO_GL to egl over what was chosen."""
    level, chosen = logging.root.manager.disable, os.environ.get("MUJOCO_GL")
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)
        if chosen is not None:
            os.environ["MUJOCO_GL"] = chosen


def _find(model: mujoco.MjModel, what: str, name: str) -> int:
    found = mujoco.mj_name2id(model, getattr(mujoco.mjtObj, f"mjOBJ_{what}"), name)
    if found < 0:
        raise ValueError(f"the model has no {what.lower()} '{name}'")
    return found


def _geoms_of(model: mujoco.MjModel, body: str) -> frozenset[int]:
    """Geoms of a body and of those that hang on it."""
    root = _find(model, "BODY", body)
    bodies = {root}
    for child in range(root + 1, model.nbody):
        if model.body_parentid[child] in bodies:
            bodies.add(child)
    return frozenset(geom for geom in range(model.ngeom) if model.geom_bodyid[geom] in bodies)


def _place_fixtures(model: mujoco.MjModel, placed: mujoco.MjModel) -> None:
    """Bins and the shades of what belongs in them are put in place by robosuite after compiling: do the same."""
    for body in range(placed.nbody):
        name = mujoco.mj_id2name(placed, mujoco.mjtObj.mjOBJ_BODY, body)
        if name and (name.startswith("Visual") or name in ("bin1", "bin2")):
            here = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name)
            if here >= 0:
                model.body_pos[here] = placed.body_pos[body]
                model.body_quat[here] = placed.body_quat[body]


def _silence_absent(model: mujoco.MjModel, task: Task) -> None:
    """What takes no part touches nothing: its contacts, far away on the floor, cost time and are no part of the state."""
    for item in task.absent:
        for geom in _geoms_of(model, f"{item}_main"):
            model.geom_contype[geom] = model.geom_conaffinity[geom] = 0
