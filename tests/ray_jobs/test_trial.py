"""How a trial asks for its workers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import ray.train.torch

from ray_jobs.runtime.trial import fit_workers
from wm.config.platform import ResourcesConfig

POLL = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"


@pytest.mark.parametrize(("given", "used"), [(None, "0.2"), ("7", "7")])
def test_reports_do_not_wait_for_ray_trains_own_poll(
    given: str | None, used: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker waits until its last report was taken, and Ray Train takes them when it polls: every 2 s unless told otherwise."""
    from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE

    seen: list[str | None] = []

    class Trainer:
        def __init__(self, *given: Any, **named: Any) -> None: ...

        def fit(self) -> None:
            seen.append(os.environ.get(POLL))

    monkeypatch.setattr(ray.train.torch, "TorchTrainer", Trainer)
    monkeypatch.setattr("ray_jobs.runtime.trial.TuneReportCallback", ray.train.UserCallback)  # it wants a Tune session
    monkeypatch.setenv(POLL, given or "")  # remembered, so that what is set below is undone
    if given is None:
        monkeypatch.delenv(POLL)
    fit_workers(lambda config: None, {}, ResourcesConfig(), "cpu", "run", str(tmp_path))
    assert seen == [used]
    assert POLL in ENV_VARS_TO_PROPAGATE  # to the controller, which polls
