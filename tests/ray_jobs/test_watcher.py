"""What a run's worker notes is what the person reads."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from ray_jobs.runtime.progress import Stage
from ray_jobs.runtime.training import _Watcher, collapse

METRICS = {"train/loss": 1.0, "train/steps_per_s": 2.0, "train/time_s": 3.0, "train/epoch": 1.0}


@pytest.mark.parametrize("terminal", [True, False])
def test_notes_are_printed_once_each_with_the_run(terminal: bool) -> None:
    shown, rows = io.StringIO(), []
    stage = Stage(Console(file=shown, force_terminal=terminal, width=40), "train", "steps")
    run: Any = SimpleNamespace(title="align, seed 0", total_steps=10, failure=None)
    watcher = _Watcher([run], lambda run, given: rows.extend(given), stage)
    trial = SimpleNamespace(config={"index": 0})
    stage.start()
    for step, notes in ((1, []), (2, ["the latents have collapsed [1.00]"]), (3, [])):
        watcher.on_trial_result(step, [], trial, {"step": step, "metrics": METRICS, "notes": notes})
    stage.stop()
    text = shown.getvalue().replace("\n", "")
    assert text.count("align, seed 0: the latents have collapsed [1.00]") == 1
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[0]["metrics"] == {"train/loss": 1.0}
    # What a resumed run says again comes without a speed.
    watcher.on_trial_result(4, [], trial, {"step": 4, "metrics": {"val/x": 1.0, "train/epoch": 1.0}})
    assert rows[3] == {"step": 4, "metrics": {"val/x": 1.0}}


def test_only_the_last_validation_counts_in_the_report() -> None:
    collapsed = {"warnings": {"collapsed": "gone", "learnt_nothing": "idle"}}
    assert collapse([{"metrics": {}}, {"warnings": {}}, collapsed, {"metrics": {}}]) == "gone"
    assert collapse([collapsed, {"warnings": {"learnt_nothing": "idle"}}]) == ""
    assert collapse([{"metrics": {}}]) == ""


@pytest.mark.parametrize(
    ("trace", "reason"),
    [
        ("Traceback:\n  File x\nValueError: nine is odd\n", "ValueError: nine is odd"),
        (
            "ray::f()\npydantic_core.ValidationError: 2 errors for X\ndata.groups\n  Input should be\n    For further information",
            "pydantic_core.ValidationError: 2 errors for X",
        ),
        ("killed by the system", "killed by the system"),
        ("", "its processes died"),
    ],
)
def test_the_reason_of_a_failure_is_its_exceptions_line(trace: str, reason: str) -> None:
    run: Any = SimpleNamespace(title="align, seed 0", total_steps=10, failure=None)
    watcher = _Watcher([run], lambda run, given: None, Stage(Console(quiet=True), "train", "steps"))
    watcher.on_trial_error(1, [], SimpleNamespace(config={"index": 0}, get_error=lambda: trace))
    assert run.failure == reason
