"""Rollout error of held-out clips of one kind, labelled or not, by horizon.

Shape legend: B clips, T frames, P patches, C content channels, H context frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from wm.evaluation.latent import copy_ratio
from wm.models.latent_model import LatentModel
from wm.types import Batch, ClipRef, Observation

CLIPS_AT_ONCE = 16


class ClipGroup(NamedTuple):
    """Clips that all have actions, or all have none: where they are, and what was read there."""

    refs: list[ClipRef]
    batch: Batch


def take(batch: Batch, rows: Tensor) -> Batch:
    """Some clips of a batch, by index (N,) int or mask (B,) bool."""
    return batch.map(lambda values: values[rows])


def by_labels(refs: Sequence[ClipRef], batch: Batch) -> dict[str, ClipGroup]:
    """`labelled` and `unlabelled` clips: those with and without actions. A kind without clips is left out."""
    groups: dict[str, ClipGroup] = {}
    for name, mask in (("labelled", batch.has_actions), ("unlabelled", ~batch.has_actions)):
        rows = mask.nonzero().flatten()
        if len(rows):
            groups[name] = ClipGroup([refs[int(row)] for row in rows], take(batch, rows))
    return groups


@torch.no_grad()
def rollout_quality(
    model: LatentModel,
    batch: Batch,
    horizons: Sequence[int],
    seed: int,
    progress: Callable[[int], None] = lambda clips: None,
) -> dict[str, float]:
    """Errors and ratios by horizon, as `wm.evaluation.metric_names` defines them.

    Args:
        batch: clips of H + max(horizons) frames, all with actions or all without.
        seed: of which clip's actions stand in for a clip's own.
        progress: is told how many clips are done.
    """
    labelled = bool(batch.has_actions.all())
    shuffled = _with_others_actions(batch, model.history_len, seed) if labelled and batch.num_clips > 1 else None
    sums: dict[str, float] = {}
    device = next(model.parameters()).device
    others = None if shuffled is None else shuffled.chunks(CLIPS_AT_ONCE)
    done = 0
    for number, piece in enumerate(batch.chunks(CLIPS_AT_ONCE)):
        wrong = None if others is None else others[number].actions.to(device)
        for name, value in _errors(model, piece.to(device), wrong, horizons).items():
            sums[name] = sums.get(name, 0.0) + value * piece.num_clips
        done += piece.num_clips
        progress(done)
    means = {name: total / batch.num_clips for name, total in sums.items()}
    return _with_ratios(means, horizons, labelled)


def _errors(
    model: LatentModel, piece: Batch, wrong_actions: Tensor | None, horizons: Sequence[int]
) -> dict[str, float]:
    """Mean errors of a few clips; `shuffled_h{h}` is what becomes the action sensitivity."""
    now, longest = model.history_len - 1, max(horizons)  # the last context frame
    content = model.encode_content(piece.obs)

    def rollout(first: int, actions: Tensor) -> Tensor:
        return model.rollout(content[:, first : now + 1], actions[:, first : now + longest], piece.has_actions)

    from_history = rollout(0, piece.actions)
    imagined = {"": from_history, "_1framestart": rollout(now, piece.actions) if now else from_history}
    errors: dict[str, float] = {}
    for start, latents in imagined.items():
        errors |= _by_horizon(
            f"z_visual_err_rollout{start}", model.visual(latents), model.visual(content), now, horizons
        )
        predicted, true = model.proprio(latents), model.proprio(content)
        if predicted is not None and true is not None and _has_proprio(piece.obs):
            errors |= _by_horizon(f"z_proprio_err_rollout{start}", predicted, true, now, horizons)
    copied = model.visual(content[:, now : now + 1]).expand(-1, longest, -1, -1)
    errors |= _by_horizon("z_visual_err_copy", copied, model.visual(content), now, horizons)
    if wrong_actions is not None:
        shuffled = model.visual(rollout(0, wrong_actions))
        errors |= _by_horizon("shuffled", shuffled, model.visual(content), now, horizons)
    return errors


def _by_horizon(name: str, latents: Tensor, truth: Tensor, now: int, horizons: Sequence[int]) -> dict[str, float]:
    """Mean squared error of the frames after `now` at each horizon."""
    return {f"{name}_h{h}": float((latents[:, h - 1] - truth[:, now + h]).square().mean()) for h in horizons}


def _has_proprio(obs: Observation) -> bool:
    return obs.proprio is not None and (obs.has_proprio is None or bool(obs.has_proprio.all()))


def _with_ratios(means: dict[str, float], horizons: Sequence[int], labelled: bool) -> dict[str, float]:
    metrics = {name: value for name, value in means.items() if not name.startswith("shuffled")}
    for h in horizons:
        copied, error = means[f"z_visual_err_copy_h{h}"], means[f"z_visual_err_rollout_h{h}"]
        for start in ("", "_1framestart"):
            metrics[f"copy_ratio{start}_h{h}"] = copy_ratio(means[f"z_visual_err_rollout{start}_h{h}"], copied)
        if f"shuffled_h{h}" in means:
            metrics[f"action_sensitivity_h{h}"] = means[f"shuffled_h{h}"] / max(error, 1e-12)
        if not labelled:
            metrics[f"null_action_err_h{h}"] = error
    return metrics


def _with_others_actions(batch: Batch, history: int, seed: int) -> Batch:
    """From the last context frame on, every clip is driven by the actions of another; what led there stays its own."""
    order = torch.randperm(batch.num_clips, generator=torch.Generator().manual_seed(seed))
    other = torch.empty_like(order)
    other[order] = order.roll(1)  # along one cycle: no clip keeps its own
    actions = batch.actions.clone()
    actions[:, history - 1 :] = batch.actions[other, history - 1 :]
    return replace(batch, actions=actions)
