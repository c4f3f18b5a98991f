"""What actions pass through before anything moves: boxes and lengths by hand, every change counted."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from wm.build_planning import build_limits
from wm.config.errors import UserError
from wm.config.limits import DeltaLimitConfig, LimitConfig, PositionLimitConfig, VelocityLimitConfig
from wm.planning.limits import ActionLimits

ACTIONS, PROPRIO = ("dx", "dy", "gripper"), ("x", "y", "z")


def limits(**configs: LimitConfig) -> ActionLimits:
    return build_limits(configs, ACTIONS, PROPRIO)


def apply(
    of: ActionLimits, action: list[float], previous: list[float] | None = None, at: tuple[float, ...] = (0, 0, 0)
):
    before = None if previous is None else np.array(previous)
    return of(np.array(action, dtype=float), before, np.array(at, dtype=float)).tolist()


def test_velocity_keeps_the_direction() -> None:
    of = limits(slow=VelocityLimitConfig(max_norm=1.0, actions=("dx", "dy")))
    assert apply(of, [3, 4, 9]) == pytest.approx([0.6, 0.8, 9])
    assert apply(of, [0.3, 0.4, 9]) == [0.3, 0.4, 9]
    assert of.clamped == {"slow": 1}


def test_delta_is_measured_from_what_was_executed() -> None:
    of = limits(smooth=DeltaLimitConfig(max_change=0.5))
    assert apply(of, [9, -9, 9]) == [9, -9, 9]  # nothing came before
    assert apply(of, [1, 1, 0.2], [0, 2, 0]) == [0.5, 1.5, 0.2]
    assert of.clamped == {"smooth": 1}


@pytest.mark.parametrize("kind", ["workspace", "joint"])
def test_positions_stay_in_their_box(kind: str) -> None:
    config = PositionLimitConfig(
        kind=kind, actions=("dx", "dy"), positions=("x", "z"), low=(-1.0, 0.0), high=(1.0, 2.0), scale=0.5
    )
    of = limits(box=config)
    assert apply(of, [4, -1, 7], at=(0, 9, 1)) == [2, -1, 7]  # .5 * 2 = 1, the border; 1 - .5 is inside
    assert apply(of, [1, 1, 7], at=(0, 9, 1)) == [1, 1, 7]
    # From outside only back, and no jump.
    assert apply(of, [1, 0, 7], at=(3, 9, 1)) == [0, 0, 7]
    assert apply(of, [-1, 0, 7], at=(3, 9, 1)) == [-1, 0, 7]
    assert of.clamped == {"box": 2}


def test_limits_follow_one_another_and_each_counts_its_own() -> None:
    of = limits(smooth=DeltaLimitConfig(max_change=1.0), slow=VelocityLimitConfig(max_norm=1.0))
    assert apply(of, [5, 0, 0], [1, 0, 0]) == [1, 0, 0]
    assert of.clamped == {"smooth": 1, "slow": 1}


def barrier(margin: float):
    """A control barrier function in one dimension: x may shrink its distance to 1 by at most `margin` of it."""

    def nearest_safe(action, previous, proprio):
        return np.minimum(action, [margin * (1 - proprio[0]), np.inf, np.inf])

    return nearest_safe


def test_a_barrier_function_has_the_same_shape() -> None:
    from wm.config.limits import CustomLimitConfig

    config = CustomLimitConfig(target=f"{__name__}:barrier", config={"margin": 0.5})
    of = limits(barrier=config) if __name__.startswith("tests") else ActionLimits({"barrier": barrier(0.5)})
    assert apply(of, [1, 0, 0], at=(0, 0, 0)) == [0.5, 0, 0]
    assert apply(of, [0.1, 0, 0], at=(0, 0, 0)) == [0.1, 0, 0]
    assert of.clamped == {"barrier": 1}


def test_a_limit_that_breaks_is_named() -> None:
    of = ActionLimits({"bad": lambda action, previous, proprio: action * np.nan})
    with pytest.raises(ValueError, match=r"plan\.limits\.bad returned"):
        apply(of, [1, 0, 0])


def test_names_that_the_world_lacks() -> None:
    with pytest.raises(UserError, match=r"plan\.limits\.slow\.actions: no 'griper' here.*gripper"):
        limits(slow=VelocityLimitConfig(max_norm=1.0, actions=("griper",)))
    with pytest.raises(UserError, match=r"plan\.limits\.box\.positions: no 'w' here"):
        limits(box=PositionLimitConfig(positions=("w",), actions=("dx",), low=(0.0,), high=(1.0,)))


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [((0.0, 1.0), (1.0,), "one entry of each"), ((1.0,), (1.0,), "low must be below high; for x they are 1 and 1")],
)
def test_boxes_that_make_no_sense(low: tuple[float, ...], high: tuple[float, ...], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        PositionLimitConfig(positions=("x",), low=low, high=high)
