"""The door to MLflow: one run for one identity, each number once."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.tracking import PARENT, Tracker, flatten, redacted
from wm.config.platform import TrackingConfig


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    return Tracker(TrackingConfig(), tmp_path_factory.mktemp("mlflow"), "experiment")


def test_the_same_identity_is_the_same_run(tracker: Tracker) -> None:
    parent = tracker.open_run("p", "one")
    child = tracker.open_run("c", "abc", parent=parent.run_id, tags={"variant": "align"}, params={"a": 1})
    again = tracker.open_run("c", "abc", parent=parent.run_id)
    assert again.run_id == child.run_id
    other = tracker.open_run("p", "two")
    assert tracker.open_run("c", "abc", parent=other.run_id).run_id != child.run_id
    run = tracker.client.get_run(child.run_id)
    assert run.data.tags[PARENT] == parent.run_id
    assert run.data.params == {"a": "1"}


def test_rows_given_twice_are_recorded_once(tracker: Tracker) -> None:
    rows = [{"step": step, "metrics": {"loss": 1.0 / (step + 1)}} for step in (0, 20, 40)]
    log = tracker.open_run("r", "rows")
    log.rows(rows[:2])
    log.rows(rows)
    tracker.open_run("r", "rows").rows([*rows, {"step": 60, "metrics": {"loss": 0.5}}])
    history = tracker.client.get_metric_history(log.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(0, 1.0), (20, 1 / 21), (40, 1 / 41), (60, 0.5)]


def test_status_and_long_params(tracker: Tracker, tmp_path: Path) -> None:
    log = tracker.open_run("s", "status", params={"long": "x" * 10_000})
    (tmp_path / "a.txt").write_text("a", encoding="utf-8")
    log.artifact(tmp_path / "a.txt", "folder")
    log.finish("KILLED")
    run = tracker.client.get_run(log.run_id)
    assert run.info.status == "KILLED"
    assert len(run.data.params["long"]) == 6000
    assert tracker.open_run("s", "status").run_id == log.run_id
    assert tracker.client.get_run(log.run_id).info.status == "RUNNING"


def test_passwords_are_not_shown() -> None:
    assert redacted("postgresql://user:secret@host/db") == "postgresql://...@host/db"
    assert redacted("sqlite:///a@b.db") == "sqlite://...@b.db"
    assert redacted("http://host:5000") == "http://host:5000"


def test_flatten() -> None:
    assert flatten({"a": {"b": {"c": 1}}, "d": [1, 2], "e": None}) == {"a.b.c": 1, "d": [1, 2], "e": None}
