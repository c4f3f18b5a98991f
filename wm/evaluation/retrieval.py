"""Looking at latents without a decoder: the recorded frame whose latent is nearest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wm.data.dataset import Dataset
from wm.evaluation.latent import imagine
from wm.models.world_model import WorldModel
from wm.types import Batch, ClipRef


@torch.no_grad()
def imagined_strip(
    model: WorldModel, dataset: Dataset, clip: ClipRef, batch: Batch, bank: Sequence[ClipRef], bank_batch: Batch
) -> dict[str, np.ndarray]:
    """Rows of uint8 frames (T, H, W, 3): the true clip, and for each imagined frame the training frame nearest to it in latent.

    Args:
        clip, batch: one held-out clip (its reference, and it read as a batch of one).
        bank, bank_batch: clips of training episodes to look among.
    """
    history = model.history_len
    horizon = clip.num_frames - history
    _, imagined = imagine(model, batch, horizon)
    candidates = model.visual(model.encode_content(bank_batch.obs)).flatten(0, 1)
    places = [(ref.source, ref.episode, int(frame)) for ref in bank for frame in ref.frame_indices]
    truth = _frames(dataset, [(clip.source, clip.episode, int(frame)) for frame in clip.frame_indices])
    nearest = [places[_nearest(candidates, frame)] for frame in model.visual(imagined)[0]]
    return {
        "true": truth,
        "imagined (nearest training frame)": np.concatenate([truth[:history], _frames(dataset, nearest)]),
    }


def _nearest(candidates: Tensor, latent: Tensor) -> int:
    return int((candidates - latent).square().mean(dim=(1, 2)).argmin())


def _frames(dataset: Dataset, places: Sequence[tuple[str, int, int]]) -> np.ndarray:
    return np.concatenate(
        [dataset.sources[source].episode(episode).frames([frame]) for source, episode, frame in places]
    )
