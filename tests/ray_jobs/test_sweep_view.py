"""The live table and its plain lines."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from ray_jobs.runtime import sweep_view
from ray_jobs.runtime.placement import Placement
from ray_jobs.runtime.sweep_view import SweepView

PLACEMENT = Placement(2, 2, 1, 0.96, 0.5)


def make(terminal: bool, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> tuple[SweepView, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, width=160, force_terminal=terminal)
    monkeypatch.setattr(sweep_view, "Console", lambda **given: console)
    given = {"num_trials": 4, "finished": 1, "maximize": True, **changes}
    return SweepView(console, "plan/success_rate_gh5", "val/copy_ratio_h5", placement=PLACEMENT, **given), out


def test_plain_lines_say_each_end_and_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    view, out = make(False, monkeypatch)
    monkeypatch.setattr(sweep_view, "_LINE_EVERY_S", 0.0)
    view.known(0, 0.5)
    view.ended(1, "complete", 0.75, 61.0)
    view.ended(2, "failed", note="the loss is nan")
    view.running(3, "seed 0, step 20 of 60", 0.3, 0.412)
    lines = out.getvalue().splitlines()
    assert lines[0] == "  trial 1: complete after 1 min 1 s plan/success_rate_gh5 0.75"
    assert lines[1] == "  trial 2: failed (the loss is nan)"
    assert (
        "3 of 4 trials; trial 3: seed 0, step 20 of 60, val/copy_ratio_h5 0.412; best so far: trial 1 with 0.75"
        in lines[2]
    )
    assert "left" in lines[2]


def test_the_table_shows_state_step_metric_resources_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    view, out = make(True, monkeypatch, maximize=False)
    view.ended(1, "pruned", None, 20.0)
    view.ended(2, "complete", 0.25, 40.0)
    view.running(3, "planning, 2 of 3 problems", 0.95, 0.5)
    view._console.print(view._render())
    text = out.getvalue()
    for word in ("pruned", "complete", "planning, 2 of 3 problems", "0.96 CPU, 0.5 GPU", "0.25", "40.0 s", "left"):
        assert word in text
    view.ended(3, "complete", 0.5, 30.0)
    assert "best so far: trial 2 with 0.25" in view._summary()  # less is better here


def test_the_time_left_is_work_over_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    view, _ = make(False, monkeypatch, num_trials=10, finished=0)
    assert view.left_s is None
    for number in range(4):
        view.ended(number, "complete", 0.5, 60.0)
    assert view.left_s == pytest.approx(6 * 60 / 2)


def test_starting_a_process_says_nothing_about_how_fast_a_trial_works(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(sweep_view.time, "monotonic", lambda: now)
    view, _ = make(False, monkeypatch, num_trials=1, finished=0)
    view.running(0, "starting", 0.0)
    now = 30.0
    view.running(0, "seed 0, step 1 of 100", 0.01)
    assert view.left_s is None
    now = 39.0
    view.running(0, "seed 0, step 10 of 100", 0.10)
    assert view.left_s == pytest.approx(0.9 * (30 + 99))  # not 390
