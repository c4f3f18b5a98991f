"""Models of demonstrations that robosuite 1.4 recorded: the same states and frames as with those of 1.5."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from wm.build import build_world
from wm.config.catalogue import config_of, world_kinds
from wm.envs.robosuite_models import current_model
from wm.envs.robosuite_world import RobosuiteWorld

NOT_OLD = "right_center|eef_target"  # sites and bodies that came with 1.5


def old_model(xml: str) -> str:
    """A model of 1.5 as 1.4 would have written it, on somebody else's machine."""
    text = xml.replace("gripper0_right_", "gripper0_").replace("fixed_mount0_", "mount0_")
    text = re.sub(r'file="[^"]*/robosuite/models/assets/', 'file="/home/ann/robosuite/robosuite/models/assets/', text)
    text = text.replace("/assets/bases/", "/assets/mounts/")
    root = ElementTree.fromstring(text)
    for parent in list(root.iter()):
        for child in list(parent):
            if re.search(NOT_OLD, child.get("name", "")):
                parent.remove(child)
    return ElementTree.tostring(root, encoding="unicode")


def test_a_model_of_today_is_left_alone() -> None:
    xml = '<mujoco><worldbody><joint name="gripper0_right_finger_joint1" /></worldbody></mujoco>'
    assert current_model(xml) is xml


def test_what_is_no_xml_is_said() -> None:
    with pytest.raises(ValueError, match="model_file is no XML"):
        current_model('<mujoco><joint name="gripper0_finger_joint1">')


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lift", "can", "square", "stack"])
def test_old_and_new_models_give_the_same(kind: str) -> None:
    config = config_of(world_kinds(), kind, {"frame_size": 64}, "world", "kind")
    world, other = build_world(config), build_world(config)
    assert isinstance(world, RobosuiteWorld)
    assert isinstance(other, RobosuiteWorld)
    world.reset_to(world.sample_problem(np.random.default_rng(1))[0])
    for _ in range(4):
        world.step(np.full(7, 0.3))
    xml = old_model(world.model_file)
    assert "gripper0_right" not in xml.replace("gripper0_right_gripper", "").replace("gripper0_rightfinger", "")
    flat, state = world.flat_state, world.state
    world.reset_to_flat(flat)
    other.reset_to_flat(flat, model_file=xml)
    np.testing.assert_array_equal(other.flat_state, flat)
    np.testing.assert_allclose(other.state, state, atol=1e-12)
    np.testing.assert_array_equal(other.render_camera("robot0_eye_in_hand"), world.render_camera("robot0_eye_in_hand"))
    np.testing.assert_allclose(other.hand[0], world.hand[0], atol=1e-9)
    for value in (0.5, -0.5):
        np.testing.assert_allclose(other.step(np.full(7, value)), world.step(np.full(7, value)), atol=1e-6)
