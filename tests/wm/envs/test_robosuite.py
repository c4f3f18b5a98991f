"""The robosuite worlds against robosuite itself, and what their states, goals and actions mean."""

from __future__ import annotations

import functools
import logging
from typing import Any

import numpy as np
import pytest

from wm.build import build_world
from wm.config.worlds import CanWorldConfig, LiftWorldConfig, SquareWorldConfig, StackWorldConfig
from wm.envs.robosuite_tasks import TASKS

CONFIGS = {"lift": LiftWorldConfig, "can": CanWorldConfig, "square": SquareWorldConfig, "stack": StackWorldConfig}
KINDS = list(CONFIGS)


@functools.cache
def world_of(kind: str, control: str = "osc_pose") -> Any:
    return build_world(CONFIGS[kind](frame_size=64, control=control))


@functools.cache
def robosuite_env(kind: str) -> Any:
    """robosuite's own, without the noise that it adds to the arm's start."""
    world_of(kind)  # chooses the OpenGL and silences robosuite
    import robosuite

    logging.disable(logging.WARNING)
    env = robosuite.make(
        TASKS[kind].env_name,
        robots="Panda",
        has_renderer=False,
        has_offscreen_renderer=False,
        use_camera_obs=False,
        control_freq=20,
        ignore_done=True,
        hard_reset=False,
        initialization_noise=None,
        seed=0,
    )
    logging.disable(logging.NOTSET)
    env.reset()
    return env


def put(env: Any, flat: np.ndarray) -> None:
    """What robomimic does to set a stored state."""
    env.reset()
    env.sim.set_state_from_flattened(flat)
    env.sim.forward()
    for part in env.robots[0].composite_controller.part_controllers.values():
        part.new_update = True  # a new controller would take its first action by the state of the reset


@functools.cache
def problems(kind: str, count: int = 6) -> list[tuple[np.ndarray, np.ndarray]]:
    return [world_of(kind).sample_problem(np.random.default_rng(seed)) for seed in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_robosuites(kind: str) -> None:
    world, env = world_of(kind), robosuite_env(kind)
    world.reset_to(problems(kind)[0][0])
    flat = world.flat_state
    flat[1:8] = world_of(kind)._scene.home
    world.reset_to_flat(flat, gripper=np.zeros(2))
    put(env, flat)
    actions = np.random.default_rng(5).uniform(-1.2, 1.2, size=(15, 7))
    actions[:, 2] -= 0.5  # down, to the table and the objects
    # Where other objects lie on the floor, their contacts are in the solver with the rest: rounding differs.
    atol = 0.0 if not TASKS[kind].absent else 1e-6
    arm_and_items = [*range(1, 10), *(1 + q + k for q in world._scene.indices.item_qpos for k in range(7))]
    for action in actions:
        world.step(action)
        env.step(action)
        ours, theirs = world.flat_state, env.sim.get_state().flatten()
        np.testing.assert_allclose(ours[arm_and_items], theirs[arm_and_items], rtol=0, atol=atol)


@pytest.mark.parametrize("kind", KINDS)
def test_task_success_is_robosuites(kind: str) -> None:
    world, env, rng = world_of(kind), robosuite_env(kind), np.random.default_rng(0)
    said = []
    for start, goal in problems(kind):
        states = [start, goal]
        for _ in range(12):  # the object moved about its goal, and the hand with it or not
            state = goal.copy()
            state[16:19] += rng.normal(scale=[0.02, 0.02, 0.08 if kind == "lift" else 0.02])
            if rng.uniform() < 0.3:
                state[:7] = start[:7]
            states.append(state)
        for height in (0.0, 0.03, 0.045):  # the hand at the object, its fingers open or closed on it
            arm = world._poses._reach(goal[16:19] + np.array([0, 0, height]), world.hand_at(goal)[1])
            for opening in (0.039, 0.0195):
                if arm is not None:
                    states.append(np.concatenate([arm, [opening, -opening], goal[9:]]))
        for state in states:
            world.reset_to(state)
            env.sim.set_state_from_flattened(world.flat_state)
            env.sim.forward()
            said.append(world.task_success(state))
            assert said[-1] == bool(env._check_success())
    assert 0.1 < np.mean(said) < 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_state_is_robosuites_observation(kind: str) -> None:
    world, env = world_of(kind), robosuite_env(kind)
    world.reset_to(problems(kind)[1][1])
    put(env, world.flat_state)
    seen = env._get_observations(force_update=True)
    proprio = np.concatenate([seen[f"robot0_{key}"] for key in ("joint_pos", "gripper_qpos", "joint_vel")])
    np.testing.assert_allclose(world.proprio, proprio, rtol=0, atol=1e-12)
    items = [np.concatenate([seen[f"{item}_pos"], seen[f"{item}_quat"]]) for item in TASKS[kind].items]
    np.testing.assert_allclose(world.state[16:], np.concatenate(items), rtol=0, atol=1e-12)
    np.testing.assert_allclose(world.hand[0], seen["robot0_eef_pos"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_goals_are_done_and_starts_are_not(kind: str) -> None:
    world = world_of(kind)
    for start, goal in problems(kind):
        assert world.task_success(goal)
        assert not world.task_success(start)
        assert not world.success(start, goal)
        assert (goal[9:16] == 0).all()
        np.testing.assert_allclose(world.hand_at(start)[0], [-0.1, 0, 1.01], atol=0.15)


@pytest.mark.parametrize("kind", KINDS)
def test_goals_are_at_rest(kind: str) -> None:
    world = world_of(kind)
    for _start, goal in problems(kind)[:3]:
        world.reset_to(goal)
        for _ in range(6):
            world.step(np.array([0, 0, 0, 0, 0, 0, 1.0 if kind == "lift" else 0.0]))
        assert world.distance(world.state, goal) < 0.005
        assert world.task_success(world.state)


def test_the_hand_keeps_clear_of_the_other_cube() -> None:
    from wm.envs.robosuite_goals import clear_grip_yaw

    yaw, tight = 0.3, np.array([0.0, 0.06, 0.0])
    near, turned = (clear_grip_yaw(yaw, neighbour) for neighbour in (4 * tight, tight))
    assert abs(near - turned) == pytest.approx(np.pi / 2)
    assert abs(np.sin(near)) > abs(np.sin(turned))  # its fingers would have been on the neighbour's side


def test_distance_is_of_the_point_that_moved_most() -> None:
    _, goal = problems("square")[0]
    turned = goal.copy()
    quarter = np.pi / 4  # about z, after the goal's own turn
    z, w = goal[21:23]
    turned[21:23] = z * np.cos(quarter) + w * np.sin(quarter), w * np.cos(quarter) - z * np.sin(quarter)
    assert world_of("square").distance(turned, goal) == pytest.approx(0.054 * np.sqrt(2), rel=1e-3)  # the handle
    assert not world_of("square").success(turned, goal)
    moved = goal.copy()
    moved[16] += 0.019
    assert world_of("square").success(moved, goal)
    moved[16] += 0.002
    assert not world_of("square").success(moved, goal)
    moved[:16] += 1.0  # the arm does not count
    assert world_of("square").distance(moved, goal) == pytest.approx(0.021)


def test_stack_counts_both_cubes() -> None:
    _, goal = problems("stack")[0]
    for entry in (16, 23):
        moved = goal.copy()
        moved[entry] += 0.03
        assert world_of("stack").distance(moved, goal) == pytest.approx(0.03)


def test_a_fallen_can_is_not_at_its_goal() -> None:
    _, goal = problems("can")[0]
    fallen = goal.copy()
    fallen[19:23] = np.sqrt(0.5), 0, 0, np.sqrt(0.5)
    assert not world_of("can").success(fallen, goal)


def test_gripper_closes_opens_and_stays() -> None:
    world = world_of("lift")
    world.reset_to(problems("lift")[0][0])
    opening = {}
    for sign in (1.0, -1.0, 0.0):
        for _ in range(20):
            world.step(np.array([0, 0, 0, 0, 0, 0, sign]))
        opening[sign] = world.state[7]
    assert opening[1.0] < 0.002
    assert opening[-1.0] > 0.038
    assert opening[0.0] == pytest.approx(opening[-1.0], abs=1e-3)


def test_pose_actions_move_the_hand_their_way() -> None:
    world, (start, _) = world_of("lift"), problems("lift")[0]
    for axis in range(3):
        world.reset_to(start)
        before = world.hand[0]
        for _ in range(5):
            world.step(np.eye(7)[axis])
        moved = world.hand[0] - before
        assert moved[axis] > 0.03
        assert np.abs(np.delete(moved, axis)).max() < 0.01


def test_actions_beyond_the_range_are_clipped() -> None:
    world, (start, _) = world_of("lift"), problems("lift")[0]
    world.reset_to(start)
    clipped = world.step(np.array([1, -1, 1, 1, -1, 1, 1.0]))
    world.reset_to(start)
    np.testing.assert_array_equal(world.step(np.array([9, -2, 1.5, 30, -1.01, 2, 5.0])), clipped)


def test_joint_targets_are_reached() -> None:
    world, (start, goal) = world_of("lift", "joint"), problems("lift")[0]
    world.reset_to(start)
    action = np.concatenate([goal[:7], [0.01, 0.03]])
    for _ in range(30):
        world.step(action)
    np.testing.assert_allclose(world.state[:7], goal[:7], atol=0.01)
    np.testing.assert_allclose(world.state[7:9], [0.01, -0.03], atol=1e-3)


def test_a_snapshot_in_the_middle_of_a_grasp_is_exact() -> None:
    world, fresh = world_of("stack"), build_world(StackWorldConfig(frame_size=64))
    _, goal = problems("stack")[0]
    held = goal.copy()
    held[7:9] = 0.0199, -0.0199
    held[16:19] = world.hand_at(goal)[0]
    world.reset_to(held)
    rng = np.random.default_rng(0)
    for _ in range(8):
        world.step(np.append(rng.uniform(-1, 1, 6), 1.0))
    assert np.linalg.norm(world.state[16:19] - world.hand[0]) < 0.02  # it has the cube
    snapshot = world.snapshot()
    actions = np.column_stack([rng.uniform(-1, 1, (8, 6)), [1, 1, 1, 0, 0, 0, -1, -1]])
    expected = [world.step(action) for action in actions]
    for place in (world, fresh):
        place.restore(snapshot)
        np.testing.assert_array_equal([place.step(action) for action in actions], expected)


@pytest.mark.parametrize(
    ("entry", "value", "words"),
    [
        (0, 3.1, r"'joint_pos_1' is 3.1, expected a number in \[-2.9973, 2.9973\]"),
        (7, 0.2, "'gripper_qpos_1' is 0.2"),
        (9, 1e3, "'joint_vel_1' is 1000"),
        (18, -9.0, "'cube_z' is -9"),
        (22, 0.2, "'cube_qx' to 'cube_qw' has length"),
    ],
)
def test_reset_names_what_is_impossible(entry: int, value: float, words: str) -> None:
    world, (start, _) = world_of("lift"), problems("lift")[0]
    start = start.copy()
    start[entry] = value
    with pytest.raises(ValueError, match=words):
        world.reset_to(start)
