"""A run that has collapsed, or learnt nothing, says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.wm.data.samples import inputs, train
from tests.wm.training.test_loop import newest
from wm.models.world_model import WorldModel
from wm.training.loop import Training
from wm.training.reporter import ListReporter
from wm.training.verdict import config_warnings, training_warnings

HEALTHY = {"val/effective_rank": 5.0, "val/latent_std_min": 0.2, "val/copy_ratio_h1": 0.4, "val/copy_ratio_h5": 0.7}
START = {"val/effective_rank": 6.0, "val/latent_std_min": 0.5}


@pytest.mark.parametrize(
    ("metrics", "at_start", "expected"),
    [
        ({}, START, set()),
        ({"val/effective_rank": 1.51}, START, set()),
        ({"val/effective_rank": 1.49}, START, {"collapsed"}),
        ({"val/effective_rank": 1.2}, {**START, "val/effective_rank": 1.9}, set()),  # it never had more
        ({"val/latent_std_min": 0.0051}, START, set()),
        ({"val/latent_std_min": 0.0049}, START, {"collapsed"}),
        ({"val/latent_std_min": 0.0}, {**START, "val/latent_std_min": 0.0}, set()),  # a channel that was always dead
        ({"val/effective_rank": 1.0, "val/latent_std_min": 0.0}, {}, set()),  # nothing to compare with
        ({"val/copy_ratio_h1": 1.2}, START, set()),  # better than copying somewhere
        ({"val/copy_ratio_h1": 1.0, "val/copy_ratio_h5": 1.3}, START, {"learnt_nothing"}),
        ({"val/copy_ratio_h1": float("nan"), "val/copy_ratio_h5": float("inf")}, START, {"learnt_nothing"}),
    ],
)
def test_thresholds(metrics: dict[str, float], at_start: dict[str, float], expected: set[str]) -> None:
    found = training_warnings({**HEALTHY, **metrics}, at_start)
    assert found.keys() == expected
    assert all("\n" not in text for text in found.values())
    assert training_warnings({"train/loss": 1.0}, at_start) == {}


def collapsing(training: Training, at_step: int) -> Training:
    """From `at_step` on, validation sees a projection that maps every token to one point."""
    validate, seen = training.validate, []
    assert validate is not None

    def broken(model: WorldModel) -> Any:
        seen.append(1)
        if len(seen) >= at_step:
            with torch.no_grad():
                for parameter in model.projection.parameters():
                    parameter.mul_(1e-4)
        return validate(model)

    return replace(training, validate=broken)


def test_a_collapsed_model_is_called_so_once(tmp_path: Path) -> None:
    run, reporter = inputs(tmp_path, "align", train__epochs=3, train__ema_decay=0.5), ListReporter()
    history = collapsing(run.training(reporter, run.local_batches), at_step=2).run()
    warned = [row["warnings"].keys() for row in history]
    assert "collapsed" not in warned[0]
    assert "collapsed" in warned[1]
    assert "collapsed" in warned[2]
    said = [note for note in reporter.notes if "collapsed" in note]
    assert len(said) == 1
    assert "at the start" in said[0]
    checkpoint = newest(run)
    assert checkpoint.history == history
    assert checkpoint.health_at_start["val/latent_std_min"] > 0


def test_a_model_that_copies_worse_than_nothing_is_called_so(tmp_path: Path) -> None:
    run, reporter = inputs(tmp_path, "align", train__epochs=1, train__optimizer__predictor_lr=1e-9), ListReporter()
    history = train(run, reporter)
    assert history[-1]["metrics"]["val/copy_ratio_h1"] > 1
    assert history[-1]["metrics"]["val/copy_ratio_h3"] > 1
    assert "learnt_nothing" in history[-1]["warnings"]
    assert any("repeating the last frame" in note for note in reporter.notes)


@pytest.mark.parametrize(
    ("alignment", "warned"),
    [
        ({"kind": "infonce"}, True),
        ({"kind": "infonce", "similarity": "neg_l2"}, False),
        ({"kind": "state_mse"}, False),
    ],
)
def test_cosine_of_a_short_state_is_warned_of(alignment: dict[str, Any], warned: bool, tmp_path: Path) -> None:
    """Wall's state is x, y: a cosine would only know its direction."""
    run = inputs(tmp_path, "align", **{f"model__alignment__{key}": value for key, value in alignment.items()})
    model = run.training(ListReporter(), run.local_batches, keep_checkpoints=False).model
    assert [("neg_l2 keeps it" in text, "2 entries" in text) for text in config_warnings(model)] == [
        (True, True)
    ] * warned
