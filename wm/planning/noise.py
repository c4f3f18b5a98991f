"""Where a planner's randomness comes from: one callable, so that a test can inject recorded noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

NoiseSource = Callable[[tuple[int, ...], torch.Generator], Tensor]
"""(shape, generator) -> float32 noise of that shape, drawn from the generator and nothing else."""


def standard_normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """N(0, 1) on the generator's own device: a CPU generator gives the same plan whatever device the model is on."""
    return torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float32)


def draw_noise(
    source: NoiseSource, shape: tuple[int, ...], generators: Sequence[torch.Generator], device: torch.device
) -> Tensor:
    """(B, *shape): each problem's from its own generator."""
    return torch.stack([source(shape, generator) for generator in generators]).to(device)


def coloured(noise: Tensor, beta: float, frameskip: int) -> Tensor:
    """White noise (..., H, F A) made coloured along its H F env steps: power ~ 1 / frequency^beta, variance 1, beta 0 as it was.

    The mean over the steps counts as the lowest frequency. Steps are taken as a circle.

    Source: Timmer and Koenig 1995, as in iCEM (Pinneri et al. 2020), section 3.1. Difference: drawn in time and filtered, so that
    what is drawn does not depend on beta.
    """
    if beta == 0:
        return noise
    steps = noise.unflatten(-1, (frameskip, -1)).flatten(-3, -2)  # (..., H F, A)
    length = steps.shape[-2]
    frequency = torch.fft.rfftfreq(length, device=noise.device).clamp_min(1 / length)
    gain = frequency ** (-beta / 2)
    power = torch.fft.fft(torch.fft.irfft(gain + 0j, n=length)).abs().square().mean()
    spectrum = torch.fft.rfft(steps, dim=-2) * (gain / power.sqrt())[:, None]
    return torch.fft.irfft(spectrum, n=length, dim=-2).unflatten(-2, (-1, frameskip)).flatten(-2)
