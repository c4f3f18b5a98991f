"""What a probe is asked for: nothing that one picture cannot show."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from wm.envs.push_table import PushTableWorld
from wm.envs.pusht import PushTWorld
from wm.envs.pusht_shapes import BLOCKS
from wm.envs.robosuite_tasks import TASKS
from wm.evaluation.state_targets import Targets, is_velocity, state_targets, varying


def named(found: Targets) -> dict[str, np.ndarray]:
    return dict(zip(found.names, found.values.T, strict=True))


@pytest.mark.parametrize("name", ["vx", "v", "agent_vx", "joint_vel_3", "qvel0", "velocity", "ball_velocity_x"])
def test_velocities_are_known_by_name(name: str) -> None:
    assert is_velocity(name)


@pytest.mark.parametrize(
    "name", ["x", "joint_pos_1", "gripper_qpos_1", "level", "valve", "state_0", "cube_qx", "vision"]
)
def test_other_names_are_no_velocities(name: str) -> None:
    assert not is_velocity(name)


def test_pusht_has_an_angle_only_where_the_shape_shows_it() -> None:
    rng = np.random.default_rng(0)
    states = rng.uniform(1, 6, (7, 7))
    shapes = np.array([float(BLOCKS[name].number) for name in ("T", "L", "Z", "square", "I", "small_tee", "plus")])
    found = named(state_targets(PushTWorld.state_names, states, "pusht", shapes))
    assert list(found) == ["agent_x", "agent_y", "block_x", "block_y", "cos_angle", "sin_angle"]
    assert np.isfinite(found["cos_angle"]).tolist() == [True, True, False, False, False, True, False]
    np.testing.assert_allclose(found["sin_angle"][:2], np.sin(states[:2, 4]))
    elsewhere = named(state_targets(("x", "theta"), states[:, :2]))
    assert np.isfinite(elsewhere["cos_theta"]).all()


def test_particles_are_a_cloud_in_any_order() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(5, 10, 3)) * [1.0, 0.01, 3.0]
    names = tuple(f"{axis}{i}" for i in range(10) for axis in "xyz")
    found = named(state_targets(names, points.reshape(5, -1), "rope"))
    assert list(found) == ["mean_x", "mean_z", "spread_x", "spread_z", "correlation_xz"]
    np.testing.assert_allclose(found["spread_z"], points[:, :, 2].std(axis=1))
    np.testing.assert_allclose(found["correlation_xz"][0], np.corrcoef(points[0, :, 0], points[0, :, 2])[0, 1])
    shuffled = state_targets(names, points[:, ::-1].reshape(5, -1), "rope")
    np.testing.assert_allclose(shuffled.values, np.stack(list(found.values()), axis=1))
    assert PushTableWorld.proprio_names == ("none",)


@pytest.mark.parametrize(
    "kind, objects",
    [
        ("lift", ["cube_x", "cube_y", "cube_z"]),
        ("can", ["can_x", "can_y", "can_z", "can_point1_x", "can_point1_y", "can_point1_z"]),
        ("square", ["nut_x", "nut_y", "nut_z", "nut_point1_x", "nut_point1_y", "nut_point1_z"]),
        ("stack", ["cube_a_x", "cube_a_y", "cube_a_z", "cube_b_x", "cube_b_y", "cube_b_z"]),
    ],
)
def test_robosuite_objects_are_their_key_points(kind: str, objects: list[str]) -> None:
    names = TASKS[kind].state_names
    states = np.random.default_rng(0).normal(size=(4, len(names)))
    found = named(state_targets(names, states, kind))
    assert list(found)[9:] == objects
    assert list(found)[:9] == [f"joint_pos_{i}" for i in range(1, 8)] + ["gripper_qpos_1", "gripper_qpos_2"]


def test_a_can_that_spins_has_the_same_targets_and_a_fallen_one_others() -> None:
    names = TASKS["can"].state_names
    states = np.zeros((3, len(names)))
    turns = Rotation.from_euler("xyz", [[0, 0, 0], [0, 0, 1.0], [np.pi / 2, 0, 0]])
    states[:, names.index("can_qx") :][:, :4] = turns.as_quat()
    found = state_targets(names, states, "can").values
    np.testing.assert_allclose(found[0], found[1], atol=1e-12)
    assert np.abs(found[0] - found[2]).max() > 0.03


def test_an_unknown_objects_quaternion_and_its_negative_are_one() -> None:
    names = ("box_x", "box_y", "box_z", "box_qx", "box_qy", "box_qz", "box_qw")
    states = np.random.default_rng(0).normal(size=(4, 7))
    flipped = states * [1, 1, 1, -1, -1, -1, -1]
    found = state_targets(names, states)
    assert len(found.names) == 9
    np.testing.assert_allclose(found.values, state_targets(names, flipped).values, atol=1e-12)


def test_what_stands_still_in_a_half_is_left_out() -> None:
    values = np.stack(
        [np.arange(8.0), np.full(8, 3.0), np.r_[np.arange(4.0), np.zeros(4)], [*range(4), *[np.nan] * 4]], 1
    )
    half = np.arange(8) < 4
    assert varying(Targets(("a", "b", "c", "d"), values), half, ~half).names == ("a",)
