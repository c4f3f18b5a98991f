"""The summary holds the metrics' numbers; a clip's figure draws what was planned and recorded."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.figures import to_png
from experiments.offline_figures import draw_clip, draw_summary, summary_frame
from tests.wm.evaluation.test_offline_metrics import NAMES, PLAIN, outcome
from wm.evaluation.offline_metrics import offline_metrics

OUTCOMES = {
    5: [outcome([[1, 0], [2, 0], [0, 1]], [[1, 1], [2, 0], [0, 2]], f"e/{number}") for number in range(3)],
    3: [outcome([[1, 0], [2, 0], [0, 1]], [[1, 0], [2, 0], [0, 1]], "e/0")],
}


def test_the_summary_is_the_metrics() -> None:
    metrics = {}
    for horizon, group in OUTCOMES.items():
        metrics |= offline_metrics(group, PLAIN, NAMES, goal_horizon=horizon, frameskip=1)
    group = {5: [*OUTCOMES[5]], 3: OUTCOMES[3]}
    frame = summary_frame(group, metrics, PLAIN, 1)
    assert [(bar.goal_horizon, bar.who) for bar in frame.cosines] == [
        (5, "planned"),
        (3, "planned"),
    ]  # controls stand still
    assert frame.cosines[0].value == metrics["plan/offline_cosine_gh5"].value
    assert frame.cosines[0].low is not None
    assert frame.cosines[1].low is None  # one episode
    assert {(bar.who, bar.value) for bar in frame.costs if bar.goal_horizon == 3} == {
        ("recorded", 4),
        ("planned", 1),
        ("other", 8),
        ("random", 8),
        ("mean", 8),
    }
    assert frame.errors["model, recorded actions"].tolist() == [9, 1]
    assert frame.points[:6].tolist() == [[1, 1], [0, 1], [2, 2], [0, 0], [0, 0], [1, 2]]
    assert (frame.num_clips, frame.num_episodes) == (4, 3)


def test_a_figure_for_all_and_one_for_a_clip() -> None:
    one = OUTCOMES[5][0]
    figure = draw_clip(one, NAMES, 1)
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(NAMES)
    recorded, planned = figure.axes[1].lines[:2]
    assert np.asarray(recorded.get_ydata()).tolist() == [0, 0, 1, 1]
    assert np.asarray(planned.get_ydata()).tolist() == [1, 0, 2, 2]
    assert to_png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("horizons", [[5], [3, 5]])
def test_the_summary_is_drawn_whatever_is_missing(horizons: list[int]) -> None:
    group = {horizon: [outcome([[1, 0], [2, 0]], [[0, 0], [0, 0]])] for horizon in horizons}
    metrics = offline_metrics(group[5], PLAIN, NAMES, goal_horizon=5, frameskip=1)
    assert "plan/offline_cosine_gh5" not in metrics
    for each in group.values():
        each[0].latent_error[:], each[0].copy_error[:] = [], []
        each[0].latent_error.extend([1.0] * 5)
        each[0].copy_error.extend([1.0] * 5)
    assert to_png(draw_summary(summary_frame(group, metrics, PLAIN, 1))).startswith(b"\x89PNG")
