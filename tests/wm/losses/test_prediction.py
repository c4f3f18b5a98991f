"""Prediction and reconstruction losses against hand arrays."""

from __future__ import annotations

import inspect
import re

import pytest
import torch
from jaxtyping import TypeCheckError

from wm.losses.prediction import latent_errors, prediction_loss
from wm.losses.ranks import weighted_mean
from wm.losses.reconstruction import reconstruction_loss

ONES = torch.ones(2)


def clips(*values: float) -> torch.Tensor:
    """(B, 1, 1, C): one row a clip."""
    return torch.tensor(values, dtype=torch.float32).view(2, 1, 1, -1)


def test_by_hand():
    predicted, target = clips(1, 2, 3, 4), clips(0, 0, 3, 2)  # errors 1, 4 | 0, 4
    assert prediction_loss(predicted, target, ONES).item() == pytest.approx((2.5 + 2) / 2)
    assert prediction_loss(predicted, target, torch.tensor([3.0, 1.0])).item() == pytest.approx((3 * 2.5 + 2) / 4)
    assert prediction_loss(predicted, target, torch.tensor([0.0, 1.0])).item() == pytest.approx(2)


def test_it_is_torch_s_mse_when_all_clips_count():
    predicted, target = torch.randn(2, 2, 3, 4, 5).unbind(0)
    torch.testing.assert_close(
        prediction_loss(predicted, target, ONES), torch.nn.functional.mse_loss(predicted, target)
    )


def test_no_gradient_through_the_target():
    """Fault: through it, a learned projection collapses."""
    predicted, target = (torch.randn(2, 3, 4, 5, requires_grad=True) for _ in range(2))
    prediction_loss(predicted, target, ONES).backward()
    assert predicted.grad is not None
    assert target.grad is None


@pytest.mark.parametrize("shape", [(2, 1, 4, 5), (1, 3, 4, 5), (2, 3, 1, 5), (2, 3, 4, 1)])
def test_different_shapes_are_refused(shape):
    """Fault: one target frame against three predicted ones broadcast silently."""
    predicted, target = torch.zeros(2, 3, 4, 5), torch.zeros(shape)
    with pytest.raises((ValueError, TypeCheckError)):  # in the test run the annotation speaks first
        prediction_loss(predicted, target, ONES)
    expected = re.escape(f"predicted (2, 3, 4, 5) and target {shape} must have one shape")
    with pytest.raises(ValueError, match=expected):  # as it runs outside the tests
        inspect.unwrap(latent_errors)(predicted, target, "mse")


def test_weighted_mean():
    values = torch.tensor([1.0, 2.0, 6.0])
    assert weighted_mean(values, torch.tensor([1.0, 1.0, 1.0])).item() == pytest.approx(3)
    assert weighted_mean(values, torch.tensor([0.0, 3.0, 1.0])).item() == pytest.approx(3)
    assert weighted_mean(values, torch.tensor([0.0, 0.03, 0.01])).item() == pytest.approx(3)  # weights are relative
    nothing = values.requires_grad_()
    loss = weighted_mean(nothing, torch.zeros(3))
    loss.backward()
    assert loss.item() == 0
    assert nothing.grad is not None
    assert not nothing.grad.any()


def test_reconstruction_reaches_what_made_it_and_not_the_tokens():
    """Fault: the reconstruction layer was held by the frozen encoder, and learned nothing."""
    projection, head = torch.nn.Linear(5, 2), torch.nn.Linear(2, 5)
    tokens = torch.randn(2, 3, 4, 5, requires_grad=True)
    loss = reconstruction_loss(head(projection(tokens)), tokens, ONES)
    torch.testing.assert_close(loss, torch.nn.functional.mse_loss(head(projection(tokens)), tokens))
    own = torch.autograd.grad(loss, [projection.weight, head.weight])
    assert all(gradient.abs().max() > 0 for gradient in own)


KINDS = {
    "mse": lambda a, b: torch.nn.functional.mse_loss(a, b),
    "l1": lambda a, b: torch.nn.functional.l1_loss(a, b),
    "smooth_l1": lambda a, b: torch.nn.functional.smooth_l1_loss(a, b),
    "cosine": lambda a, b: (
        1 - torch.nn.functional.normalize(a, dim=-1).mul(torch.nn.functional.normalize(b, dim=-1)).sum(-1).mean()
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_torch_s_and_trains_the_prediction_alone(kind):
    generator = torch.Generator().manual_seed(0)
    predicted, target = (3 * torch.randn(2, 3, 4, 5, generator=generator) for _ in range(2))
    predicted.requires_grad_()
    target.requires_grad_()
    loss = prediction_loss(predicted, target, ONES, kind)
    torch.testing.assert_close(loss, KINDS[kind](predicted, target))
    loss.backward()
    assert predicted.grad is not None
    assert predicted.grad.abs().min() > 0
    assert target.grad is None


def test_smooth_l1_by_hand():
    errors = latent_errors(clips(3.0, 0.5), clips(0.0, 0.0), "smooth_l1")  # |d| - .5 beyond 1, d^2 / 2 within
    assert errors.flatten().tolist() == pytest.approx([2.5, 0.125])
