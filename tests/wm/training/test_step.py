"""A step in pieces is the step on the whole; one that runs out of memory is done again in smaller pieces."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.wm.data.samples import inputs, same, train, user_error
from tests.wm.training.steps import OneStep, uneven
from tests.wm.training.test_loop import assert_same_run, newest
from wm.models.world_model import WorldModel
from wm.training.reporter import ListReporter
from wm.types import Batch, LossTerms


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("change", [lambda batch: batch, uneven], ids=["plain", "uneven"])
def test_pieces_give_the_gradient_of_the_whole(tmp_path: Path, size: int, change: Callable[[Batch], Batch]) -> None:
    whole, pieces = (OneStep(tmp_path, size=s, train__rollout_horizon=2) for s in (6, size))
    parts, _ = whole.take(change(whole.batch))
    in_pieces, _ = pieces.take(change(pieces.batch))
    assert parts.keys() == in_pieces.keys()
    assert {"loss", "z_loss", "alignment_loss", "reconstruction_loss", "rollout_loss"} <= parts.keys()
    for name, value in parts.items():
        assert float(in_pieces[name]) == pytest.approx(float(value), rel=2e-5), name
    largest = max(float(value.abs().max()) for value in whole.gradients.values())
    for name, value in whole.gradients.items():
        torch.testing.assert_close(pieces.gradients[name], value, rtol=1e-4, atol=1e-5 * largest, msg=name)


def test_a_batch_without_any_state(tmp_path: Path) -> None:
    step = OneStep(tmp_path, size=4)
    batch = uneven(step.batch)
    parts, _ = step.take(copy.copy(batch).__class__(**{**vars(batch), "has_state": torch.zeros(6, dtype=torch.bool)}))
    assert float(parts["alignment_loss"]) == 0.0
    assert torch.isfinite(parts["loss"])


def test_a_whole_batch_is_differentiated_as_it_is(tmp_path: Path) -> None:
    """Bit for bit what plain PyTorch gives."""
    step = OneStep(tmp_path)
    plain = copy.deepcopy(step.model)
    parts, _ = step.take()
    total = plain.losses(step.batch, 0.5).total
    total.backward()
    assert same(step.gradients, {name: p.grad for name, p in plain.named_parameters() if p.grad is not None})
    assert torch.equal(parts["loss"], total.detach())


def out_of_memory_above(monkeypatch: pytest.MonkeyPatch, clips: int, in_backward: bool = False) -> list[int]:
    """A device that holds only so many clips at once; returns the sizes that were tried."""
    losses, tried = WorldModel.losses, []

    def limited(self: WorldModel, batch: Batch, progress: float = 0.0, *ranks: Any) -> LossTerms:
        tried.append(batch.num_clips)
        terms = losses(self, batch, progress, *ranks)
        if self.training and batch.num_clips > clips:
            if not in_backward:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
            terms.weighted["z_loss"].register_hook(_fail)
        return terms

    monkeypatch.setattr(WorldModel, "losses", limited)
    return tried


def _fail(gradient: torch.Tensor) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize("in_backward", [False, True])
def test_a_fitted_run_is_the_run_with_that_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_backward: bool
) -> None:
    """With dropout: the step is done again from the random state that it began with."""
    asked = inputs(tmp_path / "asked", "align", train__accumulation=4)
    train(asked)
    tried = out_of_memory_above(monkeypatch, 1, in_backward)
    fitted, reporter = inputs(tmp_path / "fitted", "align"), ListReporter()
    train(fitted, reporter)
    assert tried[:6] == [4, 2, 1, 1, 1, 1]
    assert set(tried[6:]) == {1}, "once fitted, it stays so"
    a, b = newest(asked), newest(fitted)
    assert same(a.model, b.model)
    assert same(a.optimizer["state"], b.optimizer["state"])
    assert same(a.history, b.history)
    assert same(a.rng, b.rng)
    assert a.micro_batch == b.micro_batch == 1
    said = [note for note in reporter.notes if "memory" in note]
    assert [("4 clips" in note, "2 at once" in note) for note in said] == [(True, True), (False, False)]
    assert "2 clips" in said[1]
    assert "going on with 1 at once and the same global batch" in said[1]


def test_a_resumed_run_keeps_the_fitted_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.wm.training.test_loop import train_until

    whole, killed = (inputs(tmp_path / name, "align") for name in ("whole", "killed"))
    with monkeypatch.context() as patch:
        out_of_memory_above(patch, 2)
        train(whole)
        train_until(killed, 4)
    tried = out_of_memory_above(monkeypatch, 99)  # memory is free again: the run stays the run it is
    train(killed)
    assert set(tried) == {2}
    assert_same_run(whole, killed)


def test_one_clip_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out_of_memory_above(monkeypatch, 0)
    step = OneStep(tmp_path)
    message = user_error(step.take)
    assert "one clip at a time" in message
    assert "Tried to allocate 2.00 GiB" in message


def test_infonce_is_not_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out_of_memory_above(monkeypatch, 3)
    run = inputs(tmp_path, "align", model__alignment__kind="infonce", model__alignment__similarity="neg_l2")
    message = user_error(lambda: train(run))
    assert "model.alignment.kind=infonce looks at all clips" in message
    assert "lower train.batch_size" in message


def test_other_errors_are_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> LossTerms:
        raise RuntimeError("something else")

    monkeypatch.setattr(WorldModel, "losses", broken)
    step = OneStep(tmp_path)
    with pytest.raises(RuntimeError, match="something else"):
        step.take()
    assert step.micro_batch.size == 6


def test_the_decoder_is_clipped_apart(tmp_path: Path) -> None:
    step = OneStep(tmp_path, train__optimizer__grad_clip_norm=1e-3)
    model: Any = step.model
    model.decoder = nn.Linear(1, 1, bias=False)
    losses = model.losses

    def with_decoder(batch: Batch, progress: float, *ranks: Any) -> LossTerms:
        terms = losses(batch, progress, *ranks)
        loss = 1e6 * model.decoder.weight.sum()
        return LossTerms({**terms.weighted, "decoder_loss": loss}, terms.parts, terms.label)

    model.losses = with_decoder
    rebuilt = type(step.step)(
        step.config, step.losses, step.losses, step.optimizer, step.micro_batch, torch.device("cpu")
    )
    rebuilt.take(step.batch, 0.5, measure=False)
    squares = {name: float(value.square().sum()) for name, value in step.gradients.items()}
    assert squares.pop("decoder.weight") ** 0.5 == pytest.approx(1e-3, rel=1e-3)
    assert sum(squares.values()) ** 0.5 == pytest.approx(1e-3, rel=1e-3)
