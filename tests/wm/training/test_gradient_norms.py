"""What each term's gradient weighs, and that looking changes nothing."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from tests.wm.data.samples import inputs, same, train
from tests.wm.training.steps import OneStep, uneven
from tests.wm.training.test_loop import newest


@pytest.mark.parametrize("size", [6, 4])
def test_norms_are_those_of_each_term_alone(tmp_path: Path, size: int) -> None:
    step = OneStep(tmp_path, size=size, model__reconstruction__weight__start=0.3)
    batch = uneven(step.batch)
    plain = copy.deepcopy(step.model)
    _, norms = step.take(batch, measure=True)
    assert norms.keys() == {"", "z_loss", "alignment_loss", "reconstruction_loss"}
    for name in plain.losses(batch, 0.5).weighted:
        plain.zero_grad()
        plain.losses(batch, 0.5).weighted[name].backward()
        squares = [p.grad.square().sum() for p in plain.parameters() if p.grad is not None]
        assert float(norms[name]) == pytest.approx(float(torch.stack(squares).sum().sqrt()), rel=1e-4), name
    plain.zero_grad()
    plain.losses(batch, 0.5).total.backward()
    squares = [p.grad.square().sum() for p in plain.parameters() if p.grad is not None]
    assert float(norms[""]) == pytest.approx(float(torch.stack(squares).sum().sqrt()), rel=1e-4)


def test_the_norm_is_taken_before_clipping(tmp_path: Path) -> None:
    free, clipped = (OneStep(tmp_path, train__optimizer__grad_clip_norm=norm) for norm in (None, 1e-3))
    assert torch.equal(free.take(measure=True)[1][""], clipped.take(measure=True)[1][""])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_looking_changes_no_number(tmp_path: Path, precision: str) -> None:
    """With dropout, in pieces, with a clip norm: weights, moments, random state and losses are those of the run without."""
    values = {
        "train__accumulation": 2,
        "train__checkpoint_every_steps": 2,
        "train__precision": precision,
        "train__optimizer__grad_clip_norm": 0.1,
    }
    off, on = (
        inputs(tmp_path / str(log), "align_recon", train__log_gradient_norms=log, **values) for log in (False, True)
    )
    train(off)
    train(on)
    a, b = newest(off), newest(on)
    for name in ("model", "rng", "scaler"):
        assert same(getattr(a, name), getattr(b, name)), name
    assert same(a.optimizer["state"], b.optimizer["state"])
    terms = {f"train/grad_norm{term}" for term in ("", "/z_loss", "/alignment_loss", "/reconstruction_loss")}
    for before, after in zip(a.history, b.history, strict=True):
        assert after["metrics"].keys() - before["metrics"].keys() == terms
        assert same(before["metrics"], {name: after["metrics"][name] for name in before["metrics"]})
        assert all(after["metrics"][name] > 0 for name in terms)


def test_small_gradients_survive_fp16(tmp_path: Path) -> None:
    """Half precision loses what is below 6e-8; the loss scale lifts it first."""
    values = {"model__alignment__weight__start": 1e-6}
    wide, half = (OneStep(tmp_path, "align", train__precision=name, **values) for name in ("fp32", "fp16"))
    expected, found = (float(step.take(measure=True)[1]["alignment_loss"]) for step in (wide, half))
    assert expected < 1e-5
    assert found == pytest.approx(expected, rel=0.02)
