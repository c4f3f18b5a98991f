"""From noise to latents in K steps, beside context frames that stay.

Shape legend: B clips, T frames that are sampled, N frames of context, P tokens a frame, C channels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from wm.shortcut.forcing import Denoiser, corrupt
from wm.shortcut.signal import SignalGrid


def sample(
    denoiser: Denoiser, noise: Float[Tensor, "B T P C"], num_steps: int, signal: SignalGrid
) -> Float[Tensor, "B T P C"]:
    """z <- z + (s' - s)/(1 - s) (x^ - z) from u = 0 in steps of 1/K; the last returns x^ itself. All T frames step together.

    Unwarped, (s' - s)/(1 - s) = d/(1 - tau). One frame after a cache of earlier ones: T = 1, with a denoiser that closes over the
    cache.

    Args:
        noise: standard normal.
        num_steps: K, a divisor of k_max; so many times the denoiser is asked.

    Raises ValueError where num_steps does not divide k_max.

    Source: Dreamer 4, arXiv 2509.24527; unwarped there.
    """
    step = signal.shortcut_step(num_steps)
    latents = noise
    for level in range(0, signal.k_max, step):
        levels = torch.full(latents.shape[:2], level, device=latents.device)
        predicted = denoiser(latents, levels, torch.full_like(levels, step)).to(noise.dtype)
        share = signal.advance(levels, levels + step)[..., None, None].to(noise.dtype)
        latents = torch.lerp(latents, predicted, share)  # the last share is 1: predicted itself
    return latents


def context_labels(
    signal: SignalGrid, num_clips: int, num_frames: int
) -> tuple[Int64[Tensor, "B N"], Int64[Tensor, "B N"]]:
    """(levels, steps) of context frames: the grid point nearest to `context_signal`, at d_min."""
    device = signal.tau.device
    levels = torch.full((num_clips, num_frames), signal.context_level, device=device)
    return levels, torch.ones_like(levels)


def corrupt_context(
    context: Float[Tensor, "B N P C"], noise: Float[Tensor, "B N P C"], signal: SignalGrid
) -> Float[Tensor, "B N P C"]:
    """Context frames as the network is shown them: at their label's own signal level."""
    return corrupt(context, noise, context_labels(signal, *context.shape[:2])[0], signal)


def after_context(denoiser: Denoiser, context: Float[Tensor, "B N P C"], signal: SignalGrid) -> Denoiser:
    """A denoiser of the frames after a fixed context, without a cache: it is shown both and returns the later ones.

    Args:
        context: already noised, as by `corrupt_context`.
    """
    context_levels, context_steps = context_labels(signal, *context.shape[:2])

    def denoise(latents: Tensor, levels: Tensor, steps: Tensor) -> Tensor:
        predicted = denoiser(
            torch.cat([context, latents], dim=1),
            torch.cat([context_levels, levels], dim=1),
            torch.cat([context_steps, steps], dim=1),
        )
        return predicted[:, context.shape[1] :]

    return denoise
