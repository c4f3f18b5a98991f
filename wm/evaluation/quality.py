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
from wm.evaluation.validation import chunks
from wm.models.world_model import WorldModel
from wm.types import Batch, ClipRef, Observation

CLIPS_AT_ONCE = 16


class ClipGroup(NamedTuple):
    """Clips that all have actions, or all have none: where they are, and what was read there."""

    refs: list[ClipRef]
    batch: Batch


def take(batch: Batch, rows: Tensor) -> Batch:
    """Some clips of a batch, by index (N,) int or mask (B,) bool."""
    obs, images = batch.obs, batch.images
    return Batch(
        obs=Observation(obs.visual[rows], None if obs.proprio is None else obs.proprio[rows]),
        actions=batch.actions[rows],
        has_actions=batch.has_actions[rows],
        state=None if batch.state is None else batch.state[rows],
        has_state=batch.has_state[rows],
        weights=batch.weights[rows],
        images=None if images is None else images[rows],
    )


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
    model: WorldModel,
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
    others = None if shuffled is None else chunks(shuffled, CLIPS_AT_ONCE)
    done = 0
    for number, piece in enumerate(chunks(batch, CLIPS_AT_ONCE)):
        wrong = None if others is None else others[number].actions.to(device)
        for name, value in _errors(model, piece.to(device), wrong, horizons).items():
            sums[name] = sums.get(name, 0.0) + value * piece.num_clips
        done += piece.num_clips
        progress(done)
    means = {name: total / batch.num_clips for name, total in sums.items()}
    return _with_ratios(means, horizons, labelled)


def _errors(model: WorldModel, piece: Batch, wrong_actions: Tensor | None, horizons: Sequence[int]) -> dict[str, float]:
    """Mean errors of a few clips; `shuffled_h{h}` is what becomes the action sensitivity."""
    now, longest = model.history_len - 1, max(horizons)  # the last context frame
    content = model.encode_content(piece.obs)
    visual = model.visual_dim

    def rollout(first: int, actions: Tensor) -> Tensor:
        return model.rollout(content[:, first : now + 1], actions[:, first : now + longest], piece.has_actions)

    from_history = rollout(0, piece.actions)
    imagined = {"": from_history, "_1framestart": rollout(now, piece.actions) if now else from_history}
    shuffled = None if wrong_actions is None else rollout(0, wrong_actions)
    errors: dict[str, float] = {}
    for h in horizons:
        truth = content[:, now + h]
        for start, latents in imagined.items():
            squared = (latents[:, h - 1] - truth).square()
            errors[f"z_visual_err_rollout{start}_h{h}"] = float(squared[..., :visual].mean())
            if squared.shape[-1] > visual:
                errors[f"z_proprio_err_rollout{start}_h{h}"] = float(squared[..., visual:].mean())
        errors[f"z_visual_err_copy_h{h}"] = float((content[:, now] - truth)[..., :visual].square().mean())
        if shuffled is not None:
            errors[f"shuffled_h{h}"] = float((shuffled[:, h - 1] - truth)[..., :visual].square().mean())
    return errors


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
