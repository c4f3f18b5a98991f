"""Trained on a Gaussian, a single step must return what 64 steps do: the whole chain of doublings, from data to d = 1."""

from __future__ import annotations

from math import prod

import pytest
import torch
from torch import Tensor, nn

from wm.config.forcing import ForcingConfig
from wm.shortcut.forcing import ShortcutForcing
from wm.shortcut.labels import draw_labels
from wm.shortcut.sampler import sample

NUM_SIZES, K_MAX, WIDTH = 7, 64, 32


class Denoiser(nn.Module):
    """x^ = gain z~ + bias, both from a small MLP over an embedding of the level; one MLP for each step size.

    Were they one, the error of a large step would move the small steps that teach it, and nothing bounds a gain.
    """

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.Parameter(0.5 * torch.randn(NUM_SIZES, K_MAX + 1, WIDTH))
        self.hidden = nn.Parameter(torch.randn(NUM_SIZES, WIDTH, WIDTH) / WIDTH**0.5)
        self.out = nn.Parameter(torch.zeros(NUM_SIZES, WIDTH, 2))

    def forward(self, latents: Tensor, levels: Tensor, steps: Tensor) -> Tensor:
        every = torch.tanh(torch.tanh(self.levels) @ self.hidden) @ self.out
        gain, bias = every[steps.double().log2().round().long(), levels][..., None, None, :].unbind(-1)
        return gain * latents + bias


@pytest.mark.slow
@pytest.mark.parametrize("std", [1.0, 0.1])
def test_one_step_returns_the_euler_product(std):
    torch.manual_seed(0)
    config = ForcingConfig(bootstrap_fraction=0.5)
    denoiser, forcing, generator = Denoiser(), ShortcutForcing(config, 1), torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=3e-3)
    num_steps = 3000
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    for step in range(num_steps):
        labels = draw_labels(config, [generator] * 128, 1, step / num_steps)
        noise, unit = torch.randn(2, 128, 1, 64, 1, generator=generator)
        loss = forcing(denoiser, denoiser, std * unit, noise, labels, torch.ones(128))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        rate.step()
        forcing.update(loss.parts)

    taus = [i / K_MAX for i in range(K_MAX)]
    product = prod(1 + (t * std**2 / ((1 - t) ** 2 + (t * std) ** 2) - 1) / (K_MAX * (1 - t)) for t in taus)
    noise = torch.randn(1000, 1, 1, 1, generator=generator)
    with torch.no_grad():
        found = {steps: sample(denoiser, noise, steps, forcing.signal) for steps in (1, 4, 64)}

    def distance(steps: int, gain: float) -> float:
        return ((found[steps] - gain * noise).square().mean().sqrt() / gain).item()

    for steps in found:
        print(f"s = {std:g}, K = {steps}: {distance(steps, product):.2%} from the Euler product {product:.5f}, "
              f"{distance(steps, std):.2%} from s z0")  # fmt: skip
    assert distance(1, product) < 0.02
    assert distance(4, product) < 0.02
