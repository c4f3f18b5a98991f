"""Shortcut forcing: one network learns to denoise in small steps from data, and in larger ones from itself.

Shape legend: B clips, T frames, P tokens a frame, C channels, R bootstrapped clips.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from wm.config.forcing import ForcingConfig
from wm.losses.precision import in_float32
from wm.losses.ranks import ALONE, Alone, weighted_mean
from wm.shortcut.labels import Labels
from wm.shortcut.normalizer import RunningRms
from wm.shortcut.signal import SignalGrid

# (latents (B, T, P, C), levels (B, T), steps (B, T)) -> predicted clean latents (B, T, P, C)
Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class ForcingLoss:
    """What to differentiate, and its parts without gradient.

    Args:
        parts: means over all frames of the batch, so that pieces and workers add up like any mean over clips. `flow` and
            `bootstrap`: weighted square error of the frames of this kind, 0 at others; `flow_frames` and `bootstrap_frames`: the
            share of such frames; `error`: square error without the ramp, of both.
    """

    total: Float[Tensor, ""]
    parts: dict[str, Tensor]


class ShortcutForcing(nn.Module):
    """The training loss on noised latents; holds the grid of signal levels and the running scale of each kind of loss.

    Args:
        latent_size: P C.
    """

    def __init__(self, config: ForcingConfig, latent_size: int) -> None:
        super().__init__()
        self.config = config
        self.signal = SignalGrid(config, latent_size)
        self.rms = RunningRms(2, config.rms_decay, config.rms_floor)

    def forward(
        self,
        denoiser: Denoiser,
        teacher: Denoiser,
        clean: Float[Tensor, "B T P C"],
        noise: Float[Tensor, "B T P C"],
        labels: Labels,
        weights: Float[Tensor, "B"],
        ranks: Alone = ALONE,
    ) -> ForcingLoss:
        """mean over frames of w(tau) ||x^ - target||^2 / (P C) / rms of the frame's kind.

        Every frame counts once: bootstrapped ones are as much of the loss as they are of the frames. Clean frames are context and
        have none.

        Args:
            denoiser: for all clips.
            teacher: the same network, for the clips `labels.bootstrap_rows` alone; not called where there are none.
            clean: standardised latents.
            noise: standard normal.
            weights: of clips.

        Source: Dreamer 4, arXiv 2509.24527, eqs. 7 and 8; there every frame draws a d of its own and flow and bootstrap share one
        scale.
        """
        noised = corrupt(clean, noise, labels.levels, self.signal)
        target = bootstrap_targets(teacher, clean, noised, labels, self.signal)
        predicted = denoiser(noised, labels.levels, labels.steps)
        return self._terms(predicted, target, labels, weights, ranks)

    @torch.no_grad()
    def update(self, parts: dict[str, Tensor], ranks: Alone = ALONE) -> None:
        """Moves the running scales, once after an optimiser step.

        Args:
            parts: of `ForcingLoss`, added up over this worker's pieces, each times its share of the batch.
        """
        losses = ranks.mean(torch.stack([parts["flow"], parts["bootstrap"]]))
        frames = ranks.mean(torch.stack([parts["flow_frames"], parts["bootstrap_frames"]]))
        self.rms.update(losses / frames.clamp_min(1e-12), frames > 0)

    @in_float32
    def _terms(self, predicted: Tensor, target: Tensor, labels: Labels, weights: Tensor, ranks: Alone) -> ForcingLoss:
        if predicted.shape != target.shape:
            raise ValueError(f"predicted {tuple(predicted.shape)} and target {tuple(target.shape)} must have one shape")
        errors = (predicted - target).square().mean(dim=(2, 3))
        floor = self.config.ramp_floor
        ramp = ((1 - floor) * self.signal(labels.levels) + floor).to(errors.dtype)
        is_counted = labels.levels < self.signal.k_max
        kinds = torch.stack([is_counted & ~labels.bootstrapped, labels.bootstrapped]).to(errors.dtype)

        def mean(values: Tensor) -> Tensor:
            return weighted_mean(values.mean(dim=1), weights, ranks)

        flow, bootstrap = (mean(kind * ramp * errors) for kind in kinds)
        rms = self.rms()
        parts = {
            "flow": flow,
            "bootstrap": bootstrap,
            "flow_frames": mean(kinds[0]),
            "bootstrap_frames": mean(kinds[1]),
            "error": mean(is_counted * errors),
        }
        return ForcingLoss(flow / rms[0] + bootstrap / rms[1], {name: value.detach() for name, value in parts.items()})


def corrupt(
    clean: Float[Tensor, "B T P C"], noise: Float[Tensor, "B T P C"], levels: Int64[Tensor, "B T"], signal: SignalGrid
) -> Float[Tensor, "B T P C"]:
    """z~ = (1 - tau) z0 + tau z1."""
    tau = _per_frame(signal(levels), clean)
    return (1 - tau) * noise + tau * clean


@torch.no_grad()
def bootstrap_targets(
    teacher: Denoiser,
    clean: Float[Tensor, "B T P C"],
    noised: Float[Tensor, "B T P C"],
    labels: Labels,
    signal: SignalGrid,
) -> Float[Tensor, "B T P C"]:
    """z1, and where a frame is bootstrapped the point at which one step of d ends where two of d/2 do. Without graph.

    x' = f(z~, u, d/2);  z' = a z~ + (1 - a) x';  x'' = f(z', u + d/2, d/2);
    target = (b (1 - a) x' + (1 - b) x'') / (1 - a b),  1 - a and 1 - b how far the half-steps go (`advance`).
    Unwarped, with r = (d/2) / (1 - tau - d/2), that is (1 - r)/2 x' + (1 + r)/2 x''. z~ has dropped out of it, so that nothing is
    divided by 1 - tau or cancelled.

    The frames of a clip step together; those at the finest step stay where they are.

    Source: Dreamer 4, arXiv 2509.24527, eq. 7, whose velocities are (x' - z~)/(1 - tau) and (x'' - z')/(1 - tau - d/2); warped,
    ours.
    """
    if not len(labels.bootstrap_rows):
        return clean
    rows = labels.bootstrap_rows
    levels, steps, bootstrapped = labels.levels[rows], labels.steps[rows], labels.bootstrapped[rows]
    half = torch.where(bootstrapped, steps // 2, 0)
    half_steps = torch.where(bootstrapped, half, steps)
    start = noised[rows]
    middle_levels, end_levels = levels + half, levels + 2 * half

    first = teacher(start, levels, half_steps).to(clean.dtype)
    middle = torch.lerp(start, first, _per_frame(signal.advance(levels, middle_levels), clean))
    second = teacher(middle, middle_levels, half_steps).to(clean.dtype)

    # (1 - b) / (1 - a b); frames that stay divide 0 by 0 and are not taken.
    share = signal.advance(middle_levels, end_levels) / signal.advance(levels, end_levels)
    both = torch.lerp(first, second, _per_frame(share, clean))
    taken = bootstrapped[..., None, None]
    return clean.index_copy(0, rows, torch.where(taken, both, clean[rows]))


def _per_frame(values: Float[Tensor, "B T"], like: Tensor) -> Float[Tensor, "B T 1 1"]:
    return values[..., None, None].to(like.dtype)
