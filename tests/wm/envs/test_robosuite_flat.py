"""Stored robosuite states and the models they belong to."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from wm.build import build_world
from wm.config.worlds import LiftWorldConfig, StackWorldConfig
from wm.envs.robosuite_world import RobosuiteWorld


@pytest.fixture(scope="module")
def world() -> RobosuiteWorld:
    made = build_world(LiftWorldConfig(frame_size=64))
    assert isinstance(made, RobosuiteWorld)
    return made


def larger_cube(model_file: str) -> str:
    """The model as another demonstration might have it: its cube 6 cm wide."""
    changed, count = re.subn(r'size="[^"]*"(?=[^>]*name="cube_g0)', 'size="0.03 0.03 0.03"', model_file)
    assert count == 2
    return changed


def test_a_flat_state_comes_back(world: RobosuiteWorld) -> None:
    world.reset_to(world.sample_problem(np.random.default_rng(0))[0])
    for _ in range(3):  # the cube falls: it has a velocity that the state vector lacks
        world.step(np.zeros(7))
    flat, state, frame = world.flat_state, world.state, world.render()
    assert np.abs(flat[-6:]).max() > 0
    world.reset_to(world.sample_problem(np.random.default_rng(1))[0])
    world.reset_to_flat(flat)
    np.testing.assert_array_equal(world.flat_state, flat)
    np.testing.assert_array_equal(world.state, state)
    np.testing.assert_array_equal(world.render(), frame)


def test_a_demonstrations_model_is_loaded(world: RobosuiteWorld) -> None:
    start, _ = world.sample_problem(np.random.default_rng(0))
    world.reset_to(start)
    plain, flat, own = world.render(), world.flat_state, world.model_file
    other = build_world(LiftWorldConfig(frame_size=64))
    assert isinstance(other, RobosuiteWorld)
    other.reset_to_flat(flat, model_file=larger_cube(own))
    assert (other.render() != plain).any()
    for _ in range(12):
        other.step(np.zeros(7))
    assert other.state[18] == pytest.approx(0.8 + 0.03, abs=1e-3)  # it rests on the table
    assert world.model_file == own
    np.testing.assert_array_equal(world.render(), plain)

    snapshot = other.snapshot()
    world.restore(snapshot)  # the model travels with it
    np.testing.assert_array_equal(world.step(np.ones(7)), other.step(np.ones(7)))
    other.reset_to_flat(flat, model_file=own)
    np.testing.assert_array_equal(other.render(), plain)
    world.reset_to_flat(flat, model_file=own)


def test_robosuite_reads_the_model_and_the_state(world: RobosuiteWorld) -> None:
    from tests.wm.envs.test_robosuite import robosuite_env

    world.reset_to(world.sample_problem(np.random.default_rng(3))[1])
    env = robosuite_env("lift")
    env.reset_from_xml_string(world.model_file)
    env.sim.set_state_from_flattened(world.flat_state)
    env.sim.forward()
    np.testing.assert_array_equal(env.sim.data.body_xpos[env.cube_body_id], world.state[16:19])
    assert env._check_success()


def test_what_does_not_fit_is_refused(world: RobosuiteWorld) -> None:
    flat = world.flat_state
    with pytest.raises(ValueError, match=r"flat state has shape \(31,\), expected \(32,\)"):
        world.reset_to_flat(flat[:-1])
    with pytest.raises(ValueError, match="not finite"):
        world.reset_to_flat(np.full_like(flat, np.nan))
    with pytest.raises(ValueError, match="model_file does not compile"):
        world.reset_to_flat(flat, model_file="<mujoco>")
    stack = build_world(StackWorldConfig(frame_size=64))
    assert isinstance(stack, RobosuiteWorld)
    with pytest.raises(ValueError, match="has no joint 'cube_joint0': it is not of the task Lift"):
        world.reset_to_flat(flat, model_file=stack.model_file)
    np.testing.assert_array_equal(world.flat_state, flat)


def test_env_info_is_plain_data(world: RobosuiteWorld) -> None:
    info = json.loads(json.dumps(world.env_info))
    assert info["env_name"] == "Lift"
    assert info["controller_configs"]["body_parts"]["right"]["type"] == "OSC_POSE"
