"""Losses over time and against collapse, by hand."""

from __future__ import annotations

import inspect

import pytest
import torch

from wm.losses.dynamics import mean_latent_loss, vector_loss
from wm.losses.variance import variance_loss


def test_only_the_patch_mean_counts():
    predicted = torch.tensor([[1.0, 3.0], [3.0, 1.0]]).view(1, 1, 2, 2).requires_grad_()  # mean (2, 2)
    target = torch.tensor([[0.0, 5.0], [2.0, 5.0]]).view(1, 1, 2, 2).requires_grad_()  # mean (1, 5)
    loss = mean_latent_loss(predicted, target, torch.ones(1))
    assert loss.item() == pytest.approx((1 + 9) / 2)
    loss.backward()
    assert target.grad is None
    assert predicted.grad is not None
    assert predicted.grad.flatten().tolist() == pytest.approx([0.5, -1.5, 0.5, -1.5])


def test_vectors_by_hand_with_weights_and_a_detached_target():
    predicted = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]]).requires_grad_()
    target = torch.tensor([[[0.0, 0.0]], [[3.0, 1.0]]]).requires_grad_()
    loss = vector_loss(predicted, target, torch.tensor([3.0, 1.0]))
    assert loss.item() == pytest.approx((3 * 2.5 + 5) / 4)
    loss.backward()
    assert target.grad is None


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"predicted \(2, 3, 4\) and target \(2, 1, 4\) must have one shape"):
        inspect.unwrap(vector_loss)(torch.zeros(2, 3, 4), torch.zeros(2, 1, 4), torch.ones(2))


def test_variance_is_a_hinge_on_each_channel_s_spread():
    """Channel 0 has std sqrt(2), enough; channel 1 is constant: std .01 of the epsilon, .99 short of 1."""
    latents = torch.tensor([[0.0, 5.0], [2.0, 5.0]]).view(2, 1, 1, 2)
    assert variance_loss(latents, 1.0).item() == pytest.approx((0 + 1 - 0.01) / 2, abs=1e-6)
    spread = torch.randn(64, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    assert variance_loss(spread, 0.5).item() == 0
    assert variance_loss(spread, 2.0).item() > 0.5


def test_variance_is_over_clips_frames_and_tokens_together():
    """Each of the three alone varies too little, or not at all."""
    latents = torch.zeros(2, 2, 2, 1)
    latents[1] += 1.0
    latents[:, 1] += 2.0
    latents[:, :, 1] += 4.0  # 0, 1, ... 7: variance 6
    assert variance_loss(latents, 3.0).item() == pytest.approx(3 - 6.0001**0.5, abs=1e-5)


def test_variance_spreads_a_shrunken_latent():
    latents = (0.01 * torch.randn(8, 2, 3, 4, generator=torch.Generator().manual_seed(0))).requires_grad_()
    before = latents.detach().flatten(0, 2).std(dim=0)
    for _ in range(200):
        (gradient,) = torch.autograd.grad(variance_loss(latents, 1.0), [latents])
        latents = (latents - 5 * gradient).detach().requires_grad_()
    after = latents.detach().flatten(0, 2).std(dim=0)
    assert (after > 20 * before).all()
