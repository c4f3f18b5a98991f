"""How much of the true state can be read off latents, entry by entry."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wm.evaluation.health import latent_health
from wm.evaluation.latent import imagine
from wm.evaluation.probe import StateProbe
from wm.evaluation.quality import CLIPS_AT_ONCE, take
from wm.models.latent_model import LatentModel
from wm.types import Batch


@torch.no_grad()
def health_quality(model: LatentModel, batch: Batch) -> dict[str, float]:
    """Latent health of the encoded clips."""
    return latent_health(_visual(model, batch))


@torch.no_grad()
def probe_quality(
    model: LatentModel, fit: Batch, held_out: Batch, names: Sequence[str], horizons: Sequence[int]
) -> dict[str, float]:
    """R2 of each state entry from whole latents, from the aligned channels, and from latents rolled out to each horizon.

    Empty where no clip of one of the two batches has a state.

    Args:
        fit: clips from training episodes.
        held_out: clips of H + max(horizons) frames.
        names: of the state entries.
    """
    fit, held_out = take(fit, fit.has_state), take(held_out, held_out.has_state)
    if fit.state is None or held_out.state is None or not fit.num_clips or not held_out.num_clips:
        return {}
    fit_visual, visual = _visual(model, fit), _visual(model, held_out)
    fit_states, states = _rows(fit.state), _rows(held_out.state)
    probe = StateProbe(_rows(fit_visual.flatten(2)), fit_states)
    metrics = _named("state_probe_r2", names, probe.r2(_rows(visual.flatten(2)), states))
    if model.is_aligned:
        aligned = StateProbe(_rows(model.aligned(fit_visual)), fit_states)
        metrics |= _named("aligned_probe_r2", names, aligned.r2(_rows(model.aligned(visual)), states))
    longest, device = max(horizons), next(model.parameters()).device
    imagined = torch.cat(
        [model.visual(imagine(model, piece.to(device), longest)[1]).cpu() for piece in held_out.chunks(CLIPS_AT_ONCE)]
    )
    for h in horizons:
        truth = held_out.state[:, model.history_len - 1 + h].numpy()
        r2 = probe.r2(imagined[:, h - 1].flatten(1).numpy(), truth)
        metrics |= _named(f"state_probe_rollout_r2_h{h}", names, r2)
    return metrics


def _named(metric: str, names: Sequence[str], values: np.ndarray) -> dict[str, float]:
    """Entries that stand still on these clips are left out."""
    each = zip(names, values.tolist(), strict=True)
    return {f"{metric}/{name}": value for name, value in each if not np.isnan(value)}


def _visual(model: LatentModel, batch: Batch) -> Tensor:
    device = next(model.parameters()).device
    pieces = [model.encode_content(piece.obs) for piece in (p.to(device) for p in batch.chunks(CLIPS_AT_ONCE))]
    return torch.cat([model.visual(piece).cpu() for piece in pieces])


def _rows(values: Tensor) -> np.ndarray:
    return values.flatten(0, 1).cpu().numpy()
