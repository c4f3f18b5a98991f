"""Whether a validated model is worth going on with, in sentences."""

from __future__ import annotations

from collections.abc import Mapping

from wm.config.terms import InfoNceAlignment
from wm.models.latent_model import LatentModel
from wm.models.world_model import WorldModel

# Collapsed: next to one direction left of several, or some channel at a hundredth of the spread that it began with.
COLLAPSED_RANK = 1.5
COLLAPSED_STD = 0.01
COSINE_NEEDS_STATES = 4


def training_warnings(metrics: Mapping[str, float], at_start: Mapping[str, float]) -> dict[str, str]:
    """What is wrong with a model by its validation metrics; empty when nothing is.

    `collapsed`: effective rank below 1.5 though it began at 2 or more, or the smallest channel's standard deviation below 1 % of
    what it was before the first step. `learnt_nothing`: the copy ratio is 1 or more, or no number, at every horizon.

    Args:
        metrics: of one validation, `val/...`.
        at_start: latent health before the first step, by the same names.
    """
    found: dict[str, str] = {}
    rank, rank_before = metrics.get("val/effective_rank"), at_start.get("val/effective_rank", 0.0)
    std, std_before = metrics.get("val/latent_std_min"), at_start.get("val/latent_std_min", 0.0)
    if rank is not None and rank < COLLAPSED_RANK and rank_before >= 2:
        found["collapsed"] = f"the latents have collapsed: effective rank {rank:.2f}, {rank_before:.1f} at the start"
    elif std is not None and std < COLLAPSED_STD * std_before:
        found["collapsed"] = (
            f"the latents have collapsed: some channel's standard deviation is {std:.2g}, {std_before:.2g} at the start"
        )
    ratios = {name: value for name, value in metrics.items() if name.startswith("val/copy_ratio_h")}
    if ratios and not any(value < 1 for value in ratios.values()):
        name, value = min(ratios.items(), key=lambda item: item[1])
        found["learnt_nothing"] = (
            f"the model has learnt nothing so far: repeating the last frame is as good at every horizon ({name} = {value:.2f})"
        )
    return found


def config_warnings(model: LatentModel) -> list[str]:
    """What is allowed and yet likely a mistake, in sentences."""
    if not isinstance(model, WorldModel):
        return []
    alignment = model.config.alignment
    if isinstance(alignment, InfoNceAlignment) and alignment.similarity == "cosine":
        size = len(model.state_indices)
        if size < COSINE_NEEDS_STATES:
            return [
                f"model.alignment.similarity=cosine discards the length of the state vector, which has only {size} "
                f"{'entry' if size == 1 else 'entries'} here; neg_l2 keeps it"
            ]
    return []
