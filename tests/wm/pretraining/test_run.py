"""The life of an encoder's training: interrupted or not it is the same; it ends when it stops improving, and stays ended."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.wm.data.samples import user_error
from tests.wm.pretraining.samples import TOTAL, Interrupted, config, inputs, train
from wm.config.hashing import pretrain_hash
from wm.contracts import Encoder
from wm.pretraining_run import PretrainInputs
from wm.training.checkpoint import Checkpoint, find_checkpoint, list_checkpoints, load_checkpoint


class Scores:
    """A judge that says what it was told to, and keeps who asked."""

    def __init__(self, *scores: float) -> None:
        self._scores = list(scores)
        self.judged: list[Encoder] = []

    def __call__(self, encoder: Encoder) -> Mapping[str, float]:
        self.judged.append(encoder)
        return {"probe/state_r2": self._scores.pop(0), "probe/other": 0.0}


def newest(run: PretrainInputs) -> Checkpoint:
    return load_checkpoint(list_checkpoints(run.folder.checkpoints)[-1])


def assert_same(found: Checkpoint, expected: Checkpoint) -> None:
    assert found.step == expected.step
    assert found.history == expected.history
    assert found.model.keys() == expected.model.keys()
    assert all(torch.equal(found.model[name], value) for name, value in expected.model.items())


@pytest.mark.parametrize("at", [1, 3, 5])
def test_resumed_is_uninterrupted_bit_for_bit(tmp_path: Path, at: int) -> None:
    whole = inputs(tmp_path / "whole")
    history = train(whole)
    assert history[-1]["step"] == TOTAL
    broken = inputs(tmp_path / "broken")
    with pytest.raises(Interrupted):
        train(broken, until=at)
    assert newest(broken).step == at
    assert train(broken) == history
    assert_same(newest(broken), newest(whole))


def test_it_learns_something(tmp_path: Path) -> None:
    run = inputs(tmp_path, train__steps_per_epoch=20, train__epochs=1, train__checkpoint_every_steps=10)
    rows = train(run)
    assert rows[-1]["metrics"]["train/loss"] < rows[0]["metrics"]["train/loss"]


def test_the_judge_sees_the_teacher_of_that_step(tmp_path: Path) -> None:
    run, judge = inputs(tmp_path), Scores(0.1, 0.3, 0.2)
    history = train(run, judge)
    assert [row["metrics"]["val/probe/state_r2"] for row in history if "val/probe/other" in row["metrics"]] == [
        0.1,
        0.3,
        0.2,
    ]
    assert len({encoder.fingerprint for encoder in judge.judged}) == 3
    assert load_checkpoint(find_checkpoint(run.folder.path, "best")).step == 4


def test_patience_ends_it_and_it_stays_ended(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"train__epochs": 6, "train__patience": 2}
    run = inputs(tmp_path, **changes)
    history = train(run, Scores(0.1, 0.5, 0.4, 0.3))  # a fifth judgement would fail the test
    assert history[-1]["step"] == 8
    before = newest(run)
    assert train(inputs(tmp_path, **changes), Scores()) == history  # nobody is asked again, nothing is trained
    assert_same(newest(run), before)


def test_patience_counts_from_the_best(tmp_path: Path) -> None:
    run = inputs(tmp_path, train__epochs=5, train__patience=2)
    assert train(run, Scores(0.1, 0.0, 0.2, 0.1, 0.3))[-1]["step"] == 10


def test_a_resumed_run_keeps_counting(tmp_path: Path) -> None:
    run = inputs(tmp_path, train__epochs=6, train__patience=2)
    with pytest.raises(Interrupted):
        train(run, Scores(0.5, 0.4), until=5)
    assert train(run, Scores(0.3))[-1]["step"] == 6


def test_without_patience_it_goes_on_to_the_end(tmp_path: Path) -> None:
    run = inputs(tmp_path, train__epochs=4, train__patience=None)
    assert train(run, Scores(0.5, 0.4, 0.3, 0.2))[-1]["step"] == 8


def test_a_metric_that_nobody_reports_is_one_line(tmp_path: Path) -> None:
    run = inputs(tmp_path, train__best_metric="val/probe/stat_r2")
    message = user_error(lambda: train(run, Scores(0.1)))
    assert message == "train.best_metric: validation has no 'val/probe/stat_r2'. Did you mean 'val/probe/state_r2'?"


def test_what_decides_the_weights_decides_the_name() -> None:
    name = pretrain_hash(config(), "data")
    assert pretrain_hash(config(storage__root="/elsewhere", train__checkpoint_every_steps=7), "data") == name
    assert pretrain_hash(config(train__exported="last"), "data") == name
    others = [
        pretrain_hash(config(), "other data"),
        pretrain_hash(config(seed=1), "data"),
        pretrain_hash(config(distillation__motion_weight=0.5), "data"),
        pretrain_hash(config(views__channel_mix=0.0), "data"),
        pretrain_hash(config(encoder__hidden_size=32), "data"),
        pretrain_hash(config(data__clip__frameskip=1), "data"),
        pretrain_hash(config(train__patience=1), "data"),
        pretrain_hash(config(resources__num_workers=2), "data"),
    ]
    assert len({name, *others}) == 1 + len(others)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data__tokens": "store"}, "an encoder learns from pictures: say data.tokens=online"),
        ({"encoder__pretrained": "shipped", "encoder__hidden_size": None}, "hidden"),
        ({"probes__sources": ["wal"]}, "probes: no source is named 'wal'. Did you mean 'wall'?"),
        ({"train__accumulation": 2}, "train.accumulation must be 1"),
        ({"train__batch_size": 4, "resources__num_workers": 3}, "train.batch_size (4) must be a multiple of"),
        (
            {"data__sources": {"x": {"kind": "precomputed", "path": "x"}}},
            "data.sources.x.kind=precomputed holds features",
        ),
        ({"clip_frames": 1}, "greater than or equal to 2"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="PretrainConfig") as caught:
        config(**changes)
    if words != "hidden":
        assert words in str(caught.value)


def test_it_starts_from_random_weights() -> None:
    with pytest.raises(ValueError, match=r"encoder.pretrained: shipped, but training starts from random weights"):
        config(encoder={"pretrained": "shipped"})
