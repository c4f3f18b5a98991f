"""The rope and the grains: what pushes do, what a reset keeps, where problems come from."""

from __future__ import annotations

import numpy as np
import pytest

from wm.build import build_world
from wm.config.worlds import GranularWorldConfig, LinearWorldConfig, RopeWorldConfig
from wm.envs.chamfer import chamfer_distance
from wm.envs.demonstrations import make_episodes
from wm.envs.linear import LinearWorld
from wm.envs.push_expert import PushExpert
from wm.envs.push_policy import PushParticlesPolicy
from wm.envs.push_table import PushTableWorld, as_push_table, table_points

NOTHING = np.array([3.0, 3.0, 3.0, 3.0])  # a push in a corner of the table


def rope(**kwargs: object) -> PushTableWorld:
    return as_push_table(build_world(RopeWorldConfig.model_validate({"frame_size": 32, "start_pushes": 1, **kwargs})))


def grains(**kwargs: object) -> PushTableWorld:
    config = {"frame_size": 32, "start_pushes": 1, "num_grains": 16, **kwargs}
    return as_push_table(build_world(GranularWorldConfig.model_validate(config)))


@pytest.fixture(scope="module", params=[rope, grains])
def made(request: pytest.FixtureRequest) -> PushTableWorld:
    return request.param()


@pytest.fixture
def world(made: PushTableWorld) -> PushTableWorld:
    """In its scene."""
    made.reset_to(made.scene_state)
    return made


def particles(world: PushTableWorld) -> np.ndarray:
    return world.state.reshape(-1, 3)


def test_the_scenes_are_the_published_ones() -> None:
    line = particles(rope())
    assert len(line) == 26
    np.testing.assert_allclose(line[[0, -1]], [[0, 0.6, 2.0], [0, 0.6, -0.5]], atol=2e-3)
    world = as_push_table(build_world(GranularWorldConfig()))
    grid = particles(world)
    assert len(grid) == 97
    np.testing.assert_allclose(grid[:, 1], 0.57, atol=2e-3)
    assert np.ptp(grid[:, 0]) + 0.2 == pytest.approx(2.236, abs=0.02)


@pytest.mark.parametrize("axis, sign", [(0, 1), (0, -1), (1, 1), (1, -1)])
def test_a_push_goes_where_it_says(world: PushTableWorld, axis: int, sign: int) -> None:
    """In the table frame, whose z is the particles' with the sign turned."""
    if world.name == "rope" and axis == 1:  # it lies along z: turn it, to be met from the side
        world.reset_to(particles(world)[:, [2, 1, 0]].ravel())
    aim = table_points(world.state)[len(world.state_names) // 6]
    start, end = aim.copy(), aim.copy()
    start[axis] -= 0.5 * sign
    end[axis] += 0.6 * sign
    before = particles(world)
    world.step(np.concatenate([start, end]))
    moved = particles(world) - before
    moved = moved[np.linalg.norm(moved, axis=1) > 0.1].mean(axis=0)
    along, across = (moved[0], -moved[2])[axis], (-moved[2], moved[0])[axis]
    assert along * sign > 0.2
    assert abs(across) < abs(along)


def test_nothing_is_left_in_front_of_the_pusher(world: PushTableWorld) -> None:
    """At the end of a push the foot's place is free."""
    x, z = table_points(world.state).mean(axis=0)
    end = np.array([x + 0.2, z])
    world.step(np.array([x - 0.8, z, *end]))
    apart = np.linalg.norm(table_points(world.state) - end, axis=1)
    assert apart.min() > 0.12


def test_a_push_that_touches_nothing_changes_nothing(world: PushTableWorld) -> None:
    settled = world.step(NOTHING)
    for action in (NOTHING, np.array([-4.0, 3.9, 3.0, 3.9])):
        np.testing.assert_array_equal(world.step(action), settled)
    assert world.distance(settled, world.scene_state) < 2e-3  # what settling again may shift


def test_actions_are_clipped_at_4(world: PushTableWorld) -> None:
    (x, z) = table_points(world.state).mean(axis=0)
    start = world.snapshot()
    far = world.step(np.array([-1e6, z, x, z]))
    world.restore(start)
    np.testing.assert_array_equal(world.step(np.array([-4.0, z, x, z])), far)
    assert not np.array_equal(far, world.scene_state)


@pytest.mark.parametrize("seed", range(3))
def test_a_start_on_top_parts_what_is_there(world: PushTableWorld, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(4):
        points = table_points(world.state)
        start = points[rng.integers(len(points))] + rng.normal(0, 0.03, 2)
        before = particles(world)
        world.step(np.concatenate([start, start]))
        after = particles(world)
        assert np.linalg.norm(table_points(world.state) - start, axis=1).min() > 0.12
        assert np.linalg.norm(after - before, axis=1).max() < 0.6  # parted, not thrown
        np.testing.assert_allclose(after[:, 1], 0.5 + world.thickness, atol=0.01 if world.name == "rope" else 0.2)


def test_what_is_pushed_over_the_edge_falls_to_the_floor(world: PushTableWorld) -> None:
    for _ in range(5):
        z = table_points(world.state)[:, 1].mean()
        world.step(np.array([-4.0, z, 4.0, z]))
    y = particles(world)[:, 1]
    assert y.min() == pytest.approx(world.thickness, abs=0.01)
    world.reset_to(world.state)


def test_a_reset_leaves_things_where_they_were_asked_for(world: PushTableWorld) -> None:
    lifted = world.scene_state + np.tile([0, 0.3, 0], len(world.state_names) // 3)
    world.reset_to(lifted)
    np.testing.assert_array_equal(world.state, lifted)
    fallen = world.step(NOTHING)  # then they fall
    assert world.distance(fallen, world.scene_state) < 0.02


def test_a_reset_keeps_a_state_rounded_to_float32(world: PushTableWorld) -> None:
    world.step(np.array([-2.0, -0.5, 0.8, 0.2]))
    rounded = world.state.astype(np.float32).astype(np.float64)
    world.reset_to(rounded)
    np.testing.assert_array_equal(world.state, rounded)


def test_going_on_from_a_state_is_near_going_on_from_a_snapshot(world: PushTableWorld) -> None:
    """A state lacks the solver's guesses and the rope's roll: a little is lost, and no more."""
    rng = np.random.default_rng(0)
    policy = PushParticlesPolicy()
    lost, moved = [], []
    for _ in range(6):
        state, snapshot, action = world.state, world.snapshot(), policy.act(world, rng)
        world.reset_to(state)
        from_state = world.step(action)
        world.restore(snapshot)
        from_snapshot = world.step(action)
        lost.append(np.linalg.norm((from_state - from_snapshot).reshape(-1, 3), axis=1).mean())
        moved.append(np.linalg.norm((from_snapshot - state).reshape(-1, 3), axis=1).mean())
    assert np.mean(moved) > 0.2
    assert np.median(lost) < 0.05 * np.mean(moved)


def test_impossible_states_are_named(world: PushTableWorld) -> None:
    def with_entry(name: str, value: float) -> np.ndarray:
        state = world.scene_state.copy()
        state[world.state_names.index(name)] = value
        return state

    for name, value in (("y3", 0.4), ("x2", 11.0), ("z0", -30.0)):
        with pytest.raises(ValueError, match=f"'{name}'.*expected a number in"):
            world.reset_to(with_entry(name, value))
    if world.name == "rope":
        with pytest.raises(ValueError, match=r"key points 4 and 5 .* apart, expected 0.1"):
            world.reset_to(with_entry("x5", 0.3))
        folded = world.scene_state.reshape(-1, 3).copy()
        folded[11:] = folded[9::-1][:15] if len(folded) < 20 else 2 * folded[10] - folded[11:]
        folded[11:, 2] = folded[10, 2] + 0.1 * np.arange(1, len(folded) - 10)
        with pytest.raises(ValueError, match="bends by 180 degrees at key point 10"):
            world.reset_to(folded.ravel())


@pytest.mark.parametrize("world", [rope(), grains(num_grains=97)], ids=["rope", "grains"])
def test_problems(world: PushTableWorld) -> None:
    before = world.state
    for seed in range(4):
        start, goal = world.sample_problem(np.random.default_rng(seed))
        np.testing.assert_array_equal(world.state, before)  # drawing one does not move the world
        assert world.distance(start, world.scene_state) > 0.02
        scene, wanted = world.scene_state.reshape(-1, 3), goal.reshape(-1, 3)
        middle = wanted.mean(axis=0)
        if world.name == "rope":  # the same line, turned and shifted by +-d in both
            turned = scene[0] - scene[-1]
            ended = wanted[0] - wanted[-1]
            assert np.linalg.norm(ended) == pytest.approx(np.linalg.norm(turned), abs=0.01)
            assert -0.05 <= np.arctan2(ended[0], ended[2]) <= np.pi / 2 + 0.05
        else:
            assert 0.59 < np.ptp(wanted[:, 0]) / np.ptp(scene[:, 0]) < 0.91
            shift = middle - scene.mean(axis=0)
            assert abs(abs(shift[0]) - abs(shift[2])) < 0.15
            assert np.abs(shift).max() < 1.1
        world.reset_to(goal)
        world.step(NOTHING)
        assert world.distance(world.state, goal) < 0.02  # goals are settled
        world.reset_to(before)


def test_distance_is_chamfer_and_success_its_threshold(world: PushTableWorld) -> None:
    scene = world.scene_state
    for shift in (0.04, 0.3):
        moved = scene + np.tile([0, shift, 0], len(scene) // 3)
        assert world.distance(scene, moved) == pytest.approx(2 * shift)
        assert world.distance(scene, moved) == chamfer_distance(scene.reshape(-1, 3), moved.reshape(-1, 3))
        assert world.success(scene, moved) is (2 * shift < 0.2)


def test_a_wider_pusher_moves_more() -> None:
    for make, z in ((rope, 0.73), (grains, 1.0)):  # beside the end of the rope, beside the patch
        plain, wide = make(), make(shift="agent_size")
        action = np.array([-1.0, z, 1.0, z])
        moved = [np.linalg.norm((w.step(action) - w.scene_state).reshape(-1, 3), axis=1) for w in (plain, wide)]
        assert moved[0].max() < 0.01
        assert moved[1].max() > 0.02


def test_recorded_episodes_replay(world: PushTableWorld) -> None:
    (episode,) = make_episodes(world, PushParticlesPolicy(), num_episodes=1, num_steps=4, seed=0)
    np.testing.assert_array_equal(episode.states[0], world.scene_state.astype(np.float32))
    world.reset_to(episode.states[0])
    for state, frame, action in zip(episode.states, episode.frames, episode.actions, strict=True):
        np.testing.assert_allclose(world.state, state, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(world.render(), frame)
        world.step(action)
    assert np.linalg.norm((episode.states[-1] - episode.states[0]).reshape(-1, 3), axis=1).mean() > 0.1


def test_policies_need_a_table() -> None:
    world, rng = LinearWorld(LinearWorldConfig()), np.random.default_rng(0)
    for policy in (PushParticlesPolicy(), PushExpert()):
        with pytest.raises(ValueError, match="'linear' is no table"):
            policy.reset(world, rng)
    with pytest.raises(ValueError, match="past"):
        PushParticlesPolicy(past=(2.0, 1.0))


def test_the_expert_approaches_its_goal(world: PushTableWorld) -> None:
    expert = PushExpert(num_candidates=16, num_refined=8)
    before, after = [], []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        expert.reset(world, rng)
        before.append(world.distance(world.state, expert.goal))
        best = before[-1]
        for _ in range(5):
            action = expert.act(world, rng)
            assert (action >= world.action_low).all()
            assert (action <= world.action_high).all()
            world.step(action)
            best = min(best, world.distance(world.state, expert.goal))
        after.append(best)
    assert np.mean(after) < 0.6 * np.mean(before)


def test_the_expert_stops_at_its_goal(world: PushTableWorld) -> None:
    expert, rng = PushExpert(), np.random.default_rng(0)
    expert.reset(world, rng)
    assert not np.array_equal(expert.act(world, rng), NOTHING)
    world.reset_to(expert.goal)
    np.testing.assert_array_equal(expert.act(world, rng), NOTHING)
