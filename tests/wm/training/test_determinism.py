"""Strict inside, as before outside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests.wm.data.samples import inputs
from wm.training.determinism import deterministic
from wm.training.reporter import NullReporter

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def settings() -> tuple[object, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        os.environ.get(WORKSPACE),
    )


@pytest.mark.parametrize("before", [None, ":16:8"])
def test_set_inside_and_restored(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    if before is not None:
        monkeypatch.setenv(WORKSPACE, before)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    outside = settings()
    with pytest.raises(KeyError), deterministic(True):  # noqa: PT012
        assert settings() == (True, False, True, False, before or ":4096:8")
        raise KeyError
    assert settings() == outside
    with deterministic(False):
        assert settings() == outside


def test_a_run_is_trained_inside(tmp_path: Path) -> None:
    seen: list[bool] = []
    for wanted in (False, True):
        run = inputs(tmp_path / str(wanted), train__deterministic=wanted)

        def batches(start: int, run=run):  # type: ignore[no-untyped-def]
            seen.append(torch.are_deterministic_algorithms_enabled())
            return run.local_batches(start)

        run.training(NullReporter(), batches, keep_checkpoints=False).run()
    assert seen == [False, True]
    assert not torch.are_deterministic_algorithms_enabled()
