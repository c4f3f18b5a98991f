"""Sampling where the exact denoiser is known, and what the denoiser is asked."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import pytest
import torch
from torch import Tensor

from wm.config.forcing import ForcingConfig
from wm.shortcut.forcing import Denoiser
from wm.shortcut.sampler import after_context, context_labels, corrupt_context, sample
from wm.shortcut.signal import SignalGrid


def exact_denoiser(std: float, signal: SignalGrid) -> Denoiser:
    """E[z1 | z~] of z1 ~ N(0, std^2): tau s^2 z~ / ((1 - tau)^2 + tau^2 s^2)."""

    def denoise(latents: Tensor, levels: Tensor, steps: Tensor) -> Tensor:
        tau = signal(levels)[..., None, None]
        return tau * std**2 / ((1 - tau) ** 2 + (tau * std) ** 2) * latents

    return denoise


def euler_product(std: float, tau: list[float]) -> float:
    """z <- z + (tau' - tau) v, with the Gaussian's velocity v = d log sqrt((1 - tau)^2 + tau^2 s^2) / d tau x z."""
    return prod(
        1 + (later - t) * (t * std**2 - (1 - t)) / ((1 - t) ** 2 + (t * std) ** 2) for t, later in pairwise(tau)
    )


@pytest.mark.parametrize("std, share", [(1.0, 0.9801), (0.1, 0.9325)])
def test_64_steps_of_the_exact_denoiser_are_the_euler_product(std, share):
    signal = SignalGrid(ForcingConfig(), 1)
    noise = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    found = sample(exact_denoiser(std, signal), noise, 64, signal)
    product = euler_product(std, [i / 64 for i in range(65)])
    torch.testing.assert_close(found, product * noise, rtol=1e-12, atol=0)
    assert product / std == pytest.approx(share, abs=1e-4)  # the exact flow map is s z0


@pytest.mark.parametrize("num_steps", [1, 2, 4, 32])
def test_fewer_and_warped_steps_are_euler_s_too(num_steps):
    for config in (ForcingConfig(k_max=32), ForcingConfig(k_max=32, tau_power=1.6, dimension_shift=2.5)):
        signal = SignalGrid(config, 1)
        noise = torch.randn(1, 1, 2, 2, dtype=torch.float64)
        found = sample(exact_denoiser(0.5, signal), noise, num_steps, signal)
        tau = signal.tau[:: 32 // num_steps].tolist()
        torch.testing.assert_close(found, euler_product(0.5, tau) * noise, rtol=1e-10, atol=1e-12)


def test_the_last_step_returns_the_prediction_itself_in_the_noise_s_dtype():
    signal = SignalGrid(ForcingConfig(), 1)
    answers = [torch.randn(1, 1, 2, 2).bfloat16() for _ in range(4)]
    given = iter(answers)
    found = sample(lambda *_: next(given), torch.randn(1, 1, 2, 2), 4, signal)
    assert torch.equal(found, answers[-1].float())


def test_a_sample_can_be_differentiated():
    signal = SignalGrid(ForcingConfig(), 1)
    noise = torch.randn(1, 1, 1, 1, dtype=torch.float64, requires_grad=True)
    sample(exact_denoiser(1.0, signal), noise, 4, signal).sum().backward()
    assert noise.grad is not None
    assert noise.grad.item() == pytest.approx(euler_product(1.0, [0, 0.25, 0.5, 0.75, 1]))


def test_context_stays_under_its_own_label_and_later_frames_are_sampled():
    signal = SignalGrid(ForcingConfig(), 1)
    context, noise = torch.randn(2, 3, 2, 2), torch.randn(2, 1, 2, 2)
    shown = corrupt_context(context, torch.randn_like(context), signal)
    asked: list[tuple[Tensor, Tensor, Tensor]] = []

    def denoiser(latents: Tensor, levels: Tensor, steps: Tensor) -> Tensor:
        asked.append((latents, levels, steps))
        return latents.cumsum(dim=1)

    found = sample(after_context(denoiser, shown, signal), noise, 4, signal)
    assert found.shape == noise.shape
    assert len(asked) == 4
    for number, (latents, levels, steps) in enumerate(asked):
        assert torch.equal(latents[:, :3], shown)
        assert levels.tolist() == [[58, 58, 58, 16 * number]] * 2
        assert steps.tolist() == [[1, 1, 1, 16]] * 2
    assert torch.equal(found, asked[-1][0].cumsum(dim=1)[:, 3:])


def test_context_is_noised_to_its_label_s_signal():
    signal = SignalGrid(ForcingConfig(), 1)
    context, noise = torch.randn(2, 1, 3, 2, 2)
    torch.testing.assert_close(corrupt_context(context, noise, signal), 6 / 64 * noise + 58 / 64 * context)
    levels, steps = context_labels(signal, 2, 3)
    assert levels.unique().tolist() == [58]
    assert steps.unique().tolist() == [1]
