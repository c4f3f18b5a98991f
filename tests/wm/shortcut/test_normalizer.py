"""The running scale, against its definition written out."""

from __future__ import annotations

import torch

from wm.shortcut.normalizer import RunningRms

BOTH, FIRST = torch.tensor([True, True]), torch.tensor([True, False])


def test_it_is_the_weighed_mean_of_past_squares():
    rms, decay = RunningRms(2, 0.9, 0.0), 0.9
    history = torch.rand(20, 2) + 0.1
    for losses in history:
        rms.update(losses, BOTH)
    weights = decay ** torch.arange(19.0, -1, -1)
    expected = ((weights[:, None] * history.square()).sum(dim=0) / weights.sum()).sqrt()
    torch.testing.assert_close(rms(), expected)


def test_before_the_first_loss_it_is_1_and_after_it_that_loss():
    rms = RunningRms(2, 0.99, 0.0)
    assert rms().tolist() == [1, 1]
    rms.update(torch.tensor([0.25, torch.nan]), FIRST)
    torch.testing.assert_close(rms(), torch.tensor([0.25, 1.0]))


def test_a_kind_that_is_absent_keeps_its_scale():
    rms = RunningRms(2, 0.5, 0.0)
    rms.update(torch.tensor([1.0, 4.0]), BOTH)
    for _ in range(3):
        rms.update(torch.tensor([2.0, 0.0]), FIRST)
    assert rms()[1] == 4
    assert 1.8 < rms()[0] < 2


def test_it_moves_only_when_told_and_is_saved():
    rms, other = RunningRms(2, 0.9, 0.0), RunningRms(2, 0.9, 0.0)
    before = rms()
    rms.update(torch.tensor([0.5, 3.0]), BOTH)
    assert before.tolist() == [1, 1]
    assert torch.equal(rms(), rms())
    other.load_state_dict(rms.state_dict())
    assert torch.equal(other(), rms())


def test_it_does_not_fall_below_its_floor():
    rms = RunningRms(2, 0.5, 0.05)
    rms.update(torch.tensor([1e-4, 0.3]), BOTH)
    torch.testing.assert_close(rms(), torch.tensor([0.05, 0.3]))
    bare = RunningRms(2, 0.5, 0.0)
    bare.update(torch.zeros(2), BOTH)
    assert (bare() > 0).all()
