"""Pictures of the robosuite worlds: right, and right again after other worlds have come and gone."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from wm.build import build_world
from wm.config.worlds import CanWorldConfig, LiftWorldConfig, StackWorldConfig

SIZE = 64


def test_frames_survive_worlds_that_come_and_go() -> None:
    configs = [LiftWorldConfig(frame_size=SIZE), StackWorldConfig(frame_size=SIZE)]
    worlds = [build_world(config) for config in configs]
    expected = [world.render() for world in worlds]
    import mujoco

    from wm.envs.robosuite_render import Drawing

    model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
    data = mujoco.MjData(model)
    bad = 0
    foreign = [mujoco.Renderer(model, SIZE, SIZE) for _ in range(6)]
    for number in range(60):
        match number % 3:
            case 0:  # one of ours, its GL objects collected while another's are in use
                model.vis.global_.offwidth = model.vis.global_.offheight = SIZE
                passing: Any = Drawing(
                    mujoco.MjModel.from_xml_string("<mujoco><worldbody><camera/></worldbody></mujoco>")
                )
                passing.draw(mujoco.MjData(passing._model), 0, SIZE)
            case 1:  # mujoco's own, with a GL context of its own
                passing = mujoco.Renderer(model, SIZE, SIZE)
                passing.update_scene(data)
                passing.render()
            case _:
                passing = build_world(configs[number % 2])
                passing.render()
        del passing
        if number % 10 == 5:
            worlds[number % 2].render()
            foreign.pop().close()  # frees its objects in whatever context is current: right after a frame, ours
        gc.collect()
        bad += bool((worlds[number % 2].render() != expected[number % 2]).any())
    assert bad == 0


@pytest.mark.parametrize("config", [CanWorldConfig(frame_size=96), LiftWorldConfig(frame_size=96)])
def test_frames_are_robosuites(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixel for pixel, when robosuite takes one sample a pixel and no reflections."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # robosuite takes an empty one for a number
    world: Any = build_world(config)
    world.reset_to(world.sample_problem(np.random.default_rng(0))[0])
    import mujoco
    from robosuite.utils.binding_utils import MjRenderContextOffscreen

    from tests.wm.envs.test_robosuite import robosuite_env

    env = robosuite_env(config.kind)
    env.sim.set_state_from_flattened(world.flat_state)
    env.sim.model.vis.quality.offsamples = 0
    context = MjRenderContextOffscreen(env.sim, device_id=0)
    context.vopt.geomgroup[0] = 0
    context.scn.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
    theirs = env.sim.render(width=96, height=96, camera_name="agentview")[::-1]
    ours = world.render()
    context.gl_ctx.make_current()  # else it frees the GL objects of our worlds: the trap itself
    env.sim._render_context_offscreen = None
    del context
    gc.collect()
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(world.render(), ours)


@pytest.mark.parametrize("shift", ["light", "colours", "background", "camera"])
def test_shifts_change_the_picture_and_nothing_else(shift: str) -> None:
    plain = build_world(StackWorldConfig(frame_size=SIZE))
    shifted = build_world(StackWorldConfig(frame_size=SIZE, shift=shift))  # pyright: ignore[reportArgumentType]
    start, _ = plain.sample_problem(np.random.default_rng(0))
    for world in (plain, shifted):
        world.reset_to(start)
    before = plain.render()
    changed = (np.abs(before.astype(int) - shifted.render()).max(axis=2) > 8).mean()
    assert changed > (0.002 if shift == "colours" else 0.1)
    for action in np.random.default_rng(0).uniform(-1, 1, size=(4, 7)):
        np.testing.assert_array_equal(plain.step(action), shifted.step(action))
    plain.reset_to(start)
    np.testing.assert_array_equal(plain.render(), before)  # the plain world's model was not touched


@pytest.mark.parametrize("camera", ["agentview", "frontview", "birdview", "robot0_eye_in_hand"])
def test_cameras(camera: str) -> None:
    world = build_world(LiftWorldConfig(frame_size=SIZE, camera=camera))  # pyright: ignore[reportArgumentType]
    other = build_world(LiftWorldConfig(frame_size=SIZE, camera="frontview" if camera == "agentview" else "agentview"))
    other.reset_to(world.state)
    assert world.render().std() > 5
    assert (world.render() != other.render()).mean() > 0.3


def test_a_larger_world_after_a_smaller_one() -> None:
    small, large = (build_world(LiftWorldConfig(frame_size=size)) for size in (32, 100))
    large.reset_to(small.state)
    before = small.render()
    assert large.render().shape == (100, 100, 3)
    np.testing.assert_array_equal(small.render(), before)
