"""Planned against recorded actions, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wm.data.normalization import MIN_STD
from wm.evaluation.offline import ClipOutcome
from wm.evaluation.offline_metrics import Estimate, offline_metrics, second_differences
from wm.types import Statistics

NAMES = ("x", "y")
PLAIN = Statistics(np.zeros(2, np.float32), np.ones(2, np.float32))


def outcome(recorded: Any, planned: Any, episode: str = "e/0", **values: Any) -> ClipOutcome:
    """The controls stand still, unless said otherwise; costs are 4 recorded, 1 planned, 8 else."""
    still = np.zeros_like(np.asarray(recorded, float)).tolist()
    acted = {"recorded": recorded, "planned": planned, "other": still, "random": still, **values.pop("actions", {})}
    costs = {"recorded": [4.0], "planned": [1.0], "other": [8.0], "random": [8.0], "mean": [8.0]}
    given = {"costs": costs, "latent_error": [9.0, 1.0], "copy_error": [9.0, 4.0], "plan_s": [None, 2.0], **values}
    return ClipOutcome(f"{episode}@0", episode, [0], acted, **given)


def metrics(*outcomes: ClipOutcome, statistics: Statistics = PLAIN, frameskip: int = 1) -> dict[str, Estimate]:
    found = offline_metrics(outcomes, statistics, NAMES, goal_horizon=5, frameskip=frameskip)
    return {name.removeprefix("plan/offline_").replace("_gh5", ""): value for name, value in found.items()}


def values(*outcomes: ClipOutcome, **given: Any) -> dict[str, float]:
    return {name: estimate.value for name, estimate in metrics(*outcomes, **given).items()}


def test_names_are_metric_names() -> None:
    found = offline_metrics([outcome([[1, 0]] * 3, [[0, 1]] * 3)], PLAIN, NAMES, goal_horizon=5, frameskip=1)
    assert {"plan/offline_cosine_gh5", "plan/offline_mae_gh5/x", "plan/offline_cost_random_gh5"} <= found.keys()
    assert all(name.startswith("plan/offline_") and "_gh5" in name for name in found)


def test_the_page_names_every_metric() -> None:
    page = (Path(__file__).parents[3] / "docs" / "offline.md").read_text(encoding="utf-8")
    for name in values(outcome([[1, 0]] * 3, [[0, 1]] * 3)):
        base = name.split("/")[0]
        for control in ("_other", "_random", "_mean"):
            base = base.removesuffix(control)
        assert f"`{base}`" in page, name


def test_what_was_recorded_is_perfect() -> None:
    record = [[1, 2], [-1, 0.5], [0, 3], [2, 2]]
    found = values(outcome(record, record, actions={"other": (-np.array(record)).tolist()}))
    for name in ("cosine", "cosine_clip", "r2", "r2_clip", "magnitude", "jerk_ratio"):
        assert found[name] == pytest.approx(1), name
    assert found["mae/x"] == found["mae/y"] == 0
    assert (found["cosine_other"], found["cosine_clip_other"]) == pytest.approx((-1, -1))
    assert found["r2_other"] == pytest.approx(-3)  # 1 - |2 r|^2 / |r|^2
    assert found["magnitude_other"] == pytest.approx(1)


def test_direction_magnitude_and_difference_by_hand() -> None:
    found = values(outcome([[3, 4], [0, 2]], [[4, 3], [0, -1]]))
    assert found["cosine"] == pytest.approx((24 / 25 - 1) / 2)
    assert found["cosine_clip"] == pytest.approx((3 * 4 + 6 * 2) / (np.hypot(3, 6) * np.hypot(4, 2)))
    assert found["r2"] == pytest.approx(1 - (1 + 1 + 9) / (25 + 4))
    assert found["magnitude"] == pytest.approx(np.sqrt(26 / 29))
    assert found["mae/x"] == pytest.approx(0.5)
    assert found["mae/y"] == pytest.approx((1 + 3) / 2)


def test_the_mean_action_is_nought_and_units_are_raw_where_they_should_be() -> None:
    """x is 10 +- 2, y 0 +- .5: an offset that every action has shows in no direction."""
    statistics = Statistics(np.array([10, 0], np.float32), np.array([2, 0.5], np.float32))
    found = values(outcome([[12, 0.5]] * 3, [[12, -0.5]] * 3), statistics=statistics)
    assert found["cosine"] == pytest.approx(0)
    assert found["r2"] == pytest.approx(1 - 4 / 2)
    assert (found["mae/x"], found["mae/y"]) == (0, 1)
    assert (found["mae_mean/x"], found["mae_mean/y"]) == (2, 0.5)
    assert not {"cosine_mean", "r2_mean", "jerk_mean"} & found.keys()


def test_a_model_step_is_the_mean_of_its_env_actions() -> None:
    """Two env actions in the other order are the same model step; the jerk sees the order."""
    record, swapped = [[1, 0], [3, 0], [0, 1], [0, 1]], [[3, 0], [1, 0], [0, 1], [0, 1]]
    found = values(outcome(record, swapped), frameskip=2)
    assert (found["cosine"], found["r2"], found["mae/x"]) == pytest.approx((1, 1, 0))
    assert found["jerk_ratio"] == pytest.approx((1 + 1 + 1 + 1) / (25 + 9 + 1 + 1))
    assert values(outcome(record, swapped), frameskip=1)["r2"] < 1


def test_jerk_is_the_mean_squared_second_difference() -> None:
    assert second_differences(np.array([[0.0], [1], [2], [3]])).tolist() == [[0], [0]]
    assert second_differences(np.zeros((2, 3))).shape == (0, 3)
    assert second_differences(np.zeros((1, 3))).shape == (0, 3)
    found = values(outcome([[0, 0], [1, 0], [0, 0]], [[0, 0], [0, 4], [0, 0]]))
    assert (found["jerk_recorded"], found["jerk"], found["jerk_ratio"]) == pytest.approx((4 / 2, 64 / 2, 16))
    assert "jerk" not in values(outcome([[1, 0], [1, 0]], [[0, 1], [0, 1]]))  # two env steps have none


def test_costs_latents_and_seconds() -> None:
    costs = {
        "recorded": [4.0, 2.0],
        "planned": [1.0, 3.0],
        "other": [8.0, 8.0],
        "random": [9.0, 9.0],
        "mean": [7.0, 7.0],
    }
    found = values(
        outcome([[1, 0]] * 2, [[1, 0]] * 2, costs=costs, plan_s=[None, 1.0]),
        outcome([[1, 0]] * 2, [[1, 0]] * 2, costs=costs, plan_s=[3.0, 5.0]),
    )
    assert (found["cost"], found["cost_recorded"], found["cost_ratio"]) == pytest.approx((2, 3, 2 / 3))
    assert found["cheaper"] == 0.5
    assert (found["latent_err"], found["copy_err"], found["copy_ratio"]) == (1, 4, 0.25)
    assert found["plan_s"] == 3
    assert found["plan_s_p95"] == pytest.approx(4.8)


def test_what_stands_still_has_no_direction_and_weighs_nothing() -> None:
    found = values(outcome([[0, 0], [1, 0]], [[1, 0], [1, 0]]), outcome([[0, 0]] * 2, [[0, 0]] * 2))
    assert found["cosine"] == 1
    assert "cosine" not in values(outcome([[0, 0]] * 3, [[1, 0]] * 3))
    assert "r2" not in values(outcome([[0, 0]] * 3, [[1, 0]] * 3))


def test_a_column_that_never_varies_says_nothing() -> None:
    statistics = Statistics(np.zeros(2, np.float32), np.array([1, MIN_STD], np.float32))
    found = values(outcome([[1, 0], [2, 0]], [[1, 5e-6], [2, -5e-6]]), statistics=statistics)
    assert (found["cosine"], found["r2"]) == pytest.approx((1, 1))


def test_intervals_resample_episodes_and_failures_are_counted() -> None:
    good, bad = outcome([[1, 0]] * 3, [[1, 0]] * 3, "e/0"), outcome([[1, 0]] * 3, [[-1, 0]] * 3, "e/1")
    found = metrics(good, bad, ClipOutcome("e/2@0", "e/2", failure="NaN"))
    assert found["failed_clips"].value == 1
    assert found["cosine"].value == 0
    interval = found["cosine"].interval
    assert interval is not None
    assert (interval.low, interval.high) == (-1, 1)
    r2 = found["r2"].interval
    assert r2 is not None
    assert (r2.low, r2.high) == (-3, 1)  # ends in order, although the residual's grow as R2 falls
    assert metrics(good, good)["cosine"].interval is None  # one episode
    assert metrics(ClipOutcome("e/2@0", "e/2", failure="NaN")).keys() == {"failed_clips"}
