"""The Push-T world against the original's golden numbers, and what is ours about it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from tests.golden.case import GOLDEN, load_case
from tests.golden.worlds_pusht import (
    check_pusht_frames,
    check_pusht_sampling,
    check_pusht_sequence,
    check_pusht_shapes,
    check_pusht_success,
    make_pusht,
)
from wm.config.worlds import PushTWorldConfig
from wm.envs import pusht
from wm.envs.pusht import PushTWorld
from wm.envs.pusht_shapes import BLOCKS
from wm.envs.success import pusht_success

CASE = GOLDEN / "worlds" / "pusht.npz"
SHIFTS = ("light", "colours", "background", "agent_size")
AT_BLOCK = np.array([150.0, 256.0, 270.0, 256.0, 0.5, 0.0, 0.0])  # pushing right from here hits every block
RIGHT = np.array([0.5, 0.0])


def pushed(world: PushTWorld, num_steps: int = 12) -> np.ndarray:
    """The states of a push from the left."""
    world.reset_to(AT_BLOCK)
    return np.array([world.step(RIGHT) for _ in range(num_steps)])


def jammed(world: PushTWorld) -> None:
    """The block driven into the corner, and held there."""
    world.reset_to(np.array([300.0, 300.0, 380.0, 380.0, 0.3, 0.0, 0.0]))
    for _ in range(20):
        world.step(np.array([0.25, 0.22]))


@pytest.mark.parametrize("sequence", range(4))
def test_golden_sequences(sequence: int) -> None:
    check_pusht_sequence(load_case(CASE), sequence)


@pytest.mark.parametrize("check", [check_pusht_frames, check_pusht_sampling, check_pusht_success])
def test_golden_frames_problems_and_success(check) -> None:
    check(load_case(CASE))


def test_golden_shapes() -> None:
    check_pusht_shapes(load_case(GOLDEN / "worlds" / "pusht_shapes.npz"))


def test_this_set_has_one_wrap_fault_and_ours_says_no() -> None:
    a = load_case(CASE).arrays
    world, pairs = make_pusht(), list(zip(a["in/eval_state"], a["in/eval_goal"], strict=True))
    differ = [i for i, (s, g) in enumerate(pairs) if pusht_success(s, g, wrap="original") != world.success(s, g)]
    assert differ == [15]
    assert not world.success(*pairs[15])


def test_a_reset_is_exact_where_the_original_moves_on() -> None:
    world, state = make_pusht(), np.array([100.0, 120.0, 300.0, 310.0, 1.0, 76.0, -20.0])
    world.reset_to(state)
    np.testing.assert_array_equal(world.state, state)
    world.prepare(state)
    np.testing.assert_allclose(world.state - state, [0.76, -0.2, 0, 0, 0, 0, 0], atol=1e-9)


def test_angles_are_wrapped_at_a_reset() -> None:
    world = make_pusht()
    for angle, expected in ((-1.0, 2 * math.pi - 1), (7.0, 7 - 2 * math.pi), (2 * math.pi, 0.0), (-1e-18, 0.0)):
        world.reset_to(np.array([100.0, 100.0, 300.0, 300.0, angle, 0.0, 0.0]))
        assert world.state[4] == pytest.approx(expected)
        assert 0 <= world.state[4] < 2 * math.pi


def test_a_restored_jam_goes_on_exactly_and_a_reset_one_does_not() -> None:
    world, other = make_pusht(), make_pusht()
    jammed(world)
    assert world.n_contacts > 0
    snapshot, state = world.snapshot(), world.state
    expected = np.array([world.step(np.array([0.3, 0.1])) for _ in range(10)])
    other.restore(snapshot)
    np.testing.assert_array_equal([other.step(np.array([0.3, 0.1])) for _ in range(10)], expected)
    other.reset_to(state)
    assert not np.array_equal([other.step(np.array([0.3, 0.1])) for _ in range(10)], expected)


@pytest.mark.parametrize("in_contact", [False, True])
def test_a_snapshot_stays_short_and_exact(monkeypatch: pytest.MonkeyPatch, in_contact: bool) -> None:
    monkeypatch.setattr(pusht, "REPLAY_STEPS", 10)
    monkeypatch.setattr(pusht, "REPLAY_STEPS_AT_MOST", 25)
    world, other = make_pusht(), make_pusht()
    if in_contact:
        jammed(world)
    push = np.array([0.25, 0.22]) if in_contact else np.array([0.05, 0.0])
    lengths = []
    for _ in range(60):
        before, snapshot = world.state, world.snapshot()
        reached = world.step(push)
        other.restore(snapshot)
        np.testing.assert_array_equal(other.state, before)
        np.testing.assert_array_equal(other.step(push), reached)
        lengths.append(len(snapshot.targets))
    assert max(lengths) == (24 if in_contact else 9)


def test_a_frame_is_the_state_s_alone() -> None:
    world, other = make_pusht(frame_size=224), make_pusht(frame_size=224)
    world.reset_to(AT_BLOCK)
    num_marked = 0
    for _ in range(10):
        frame = (world.step(RIGHT), world.render())[1]
        other.reset_to(world.state)
        np.testing.assert_array_equal(other.render(), frame)
        np.testing.assert_array_equal(world.render_states(world.state[None])[0], frame)
        marked = (frame[..., 0] > frame[..., 1].astype(int) + 20).any()  # contacts show in red
        assert marked == (world.n_contacts > 0)
        num_marked += int(marked)
    assert 0 < num_marked < 10


@pytest.mark.parametrize("shape", list(BLOCKS))
def test_problems_are_clear_of_everything(shape: str) -> None:
    world, rng = make_pusht(shape=shape, shift="agent_size"), np.random.default_rng(0)
    for draw in (world.sample_problem, world.sample_near_problem):
        for state in [state for _ in range(20) for state in draw(rng)]:
            world.prepare(state)  # nothing overlaps: the substep moves nothing
            np.testing.assert_allclose(world.state, state, atol=1e-9)
            assert world.step(np.zeros(2)) == pytest.approx(state)


def test_near_problems_are_near() -> None:
    world, rng = make_pusht(), np.random.default_rng(1)
    shifts, turns = [], []
    for _ in range(100):
        start, goal = world.sample_near_problem(rng, shift=40.0, turn=0.5)
        shifts.append(np.linalg.norm(start[2:4] - goal[2:4]))
        turns.append(abs((start[4] - goal[4] + math.pi) % (2 * math.pi) - math.pi))
    assert 30 < max(shifts) <= 40
    assert 0.4 < max(turns) <= 0.5


def test_layouts_name_the_shape() -> None:
    world, rng = make_pusht(shape=("T", "Z", "plus"), frame_size=64), np.random.default_rng(0)
    numbers = [world.sample_layout(rng)["shape"] for _ in range(100)]
    assert {number: numbers.count(number) > 15 for number in set(numbers)} == {0.0: True, 2.0: True, 6.0: True}
    world.reset_to(AT_BLOCK)
    frames = []
    for block in BLOCKS.values():
        world.set_layout({"shape": float(block.number)})
        np.testing.assert_array_equal(world.state, AT_BLOCK)
        frames.append(world.render().tobytes())
    assert len(set(frames)) == 7
    world.set_layout({})  # as of data without shapes
    assert world.layout == {"shape": 0.0}
    with pytest.raises(ValueError, match=r"'shape' is 7.*0 T, 1 L, 2 Z, 3 square, 4 I, 5 small_tee, 6 plus"):
        world.set_layout({"shape": 7})


def test_shapes_move_differently() -> None:
    ends = {shape: tuple(pushed(make_pusht(shape=shape))[-1].tolist()) for shape in BLOCKS}
    assert len(set(ends.values())) == 7
    assert all(abs(end[2] - AT_BLOCK[2]) > 5 for end in ends.values())


def test_the_config_refuses_what_there_is_not() -> None:
    assert PushTWorldConfig(shape="Z") == PushTWorldConfig(shape=("Z",))
    for settings in ({"shape": "X"}, {"shape": ()}, {"shape": ("T", "X")}, {"shift": "camera"}):
        with pytest.raises(ValidationError):
            PushTWorldConfig(**settings)


def test_coverage_and_reward() -> None:
    world = make_pusht()
    at_green = np.array([0, 0, 256, 256, math.pi / 4, 0, 0])
    assert world.coverage(at_green) == pytest.approx(1)
    assert world.reward(at_green) == 1
    away = at_green + np.array([0, 0, 200, 0, 0, 0, 0])
    assert world.coverage(away) == world.reward(away) == 0
    assert world.coverage(away, away) == pytest.approx(1)
    half = make_pusht(shape="square").coverage(np.array([0, 0, 140, 100, 0.0]), np.array([0, 0, 100, 100, 0.0]))
    assert half == pytest.approx(0.5)
    eighth_turn = make_pusht(shape="square").coverage(np.array([0, 0, 9, 9, math.pi / 4]), np.array([0, 0, 9, 9, 0.0]))
    assert eighth_turn == pytest.approx(2 * math.sqrt(2) - 2)  # the octagon that two squares share


def test_distance_goes_round_the_circle() -> None:
    world, goal = make_pusht(), np.array([0, 0, 0, 0, 0.1, 0, 0])
    assert world.distance(np.array([0, 0, 0, 0, 2 * math.pi - 0.1, 0, 0]), goal) == pytest.approx(0.2)
    assert world.success(np.array([0, 0, 0, 0, 2 * math.pi - 0.1, 0, 0]), goal)
    assert world.distance(np.array([3, 0, 0, 4, 0.1, 0, 12]), goal) == pytest.approx(13)


def test_a_command_is_followed_by_less_than_a_third() -> None:
    world = make_pusht()
    world.reset_to(np.array([100.0, 400.0, 300.0, 150.0, 0.0, 0.0, 0.0]))
    assert world.step(np.array([0.25, 0.0]))[0] == pytest.approx(107.4, abs=0.05)
    for _ in range(30):
        world.step(np.zeros(2))
    assert world.state[0] == pytest.approx(110.2, abs=0.05)


def test_actions_are_not_clipped_and_the_pusher_may_leave() -> None:
    world = make_pusht(frame_size=32)
    x = world.state[0]
    assert world.step(np.array([-30.0, 0.0]))[0] < x - 800
    reached = world.state
    world.reset_to(reached)  # and what is reached can be gone back to
    np.testing.assert_array_equal(world.state, reached)
    world.render()
    with pytest.raises(ValueError, match=r"action .* sends the pusher to"):
        world.step(np.array([0.0, 1e300]))
    np.testing.assert_array_equal(world.state, reached)


def test_impossible_states_are_named() -> None:
    world = make_pusht()
    for entry, name in enumerate(world.state_names):
        state = world.state
        state[entry] = 1e9
        with pytest.raises(ValueError, match=f"state '{name}' is 1e\\+09, expected a number within"):
            world.reset_to(state)


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_shift_shows_and_only_the_agent_s_size_is_felt(shift: str) -> None:
    plain, shifted = make_pusht(frame_size=64), make_pusht(frame_size=64, shift=shift)
    states, others = pushed(plain), pushed(shifted)
    assert np.array_equal(states, others) == (shift != "agent_size")
    plain.reset_to(AT_BLOCK)
    shifted.reset_to(AT_BLOCK)
    assert (plain.render() != shifted.render()).any(axis=-1).sum() > 10


def test_the_green_place_can_be_left_out() -> None:
    with_it, without = make_pusht(frame_size=96), make_pusht(frame_size=96, with_target=False)
    frames = [world.render().astype(int) for world in (with_it, without)]
    greenish = [((f[..., 1] > f[..., 0] + 40) & (f[..., 1] > f[..., 2] + 40)).sum() for f in frames]
    assert greenish[0] > 50
    assert greenish[1] == 0
