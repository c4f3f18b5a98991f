"""Looking at latents without a decoder: the recorded frame whose latent is nearest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wm.data.dataset import Dataset
from wm.evaluation.latent import imagine
from wm.models.latent_model import LatentModel
from wm.types import Batch, ClipRef


class FrameBank:
    """Frames of training episodes, looked up by latent.

    Args:
        clips, batch: clips of training episodes, and they as one batch of tokens.
    """

    @torch.no_grad()
    def __init__(self, model: LatentModel, dataset: Dataset, clips: Sequence[ClipRef], batch: Batch) -> None:
        self._dataset = dataset
        self._latents = model.visual(model.encode_content(batch.obs)).flatten(0, 1)
        self._places = [(ref.source, ref.episode, int(frame)) for ref in clips for frame in ref.frame_indices]

    def nearest(self, latents: Tensor) -> np.ndarray:
        """uint8 (K, H, W, 3): for each visual latent (K, P, V) the frame whose own is nearest."""
        found = [int((self._latents - latent).square().mean(dim=(1, 2)).argmin()) for latent in latents]
        return frames_at(self._dataset, [self._places[index] for index in found])


@torch.no_grad()
def imagined_strip(
    model: LatentModel, dataset: Dataset, clip: ClipRef, batch: Batch, bank: FrameBank
) -> dict[str, np.ndarray]:
    """Rows of uint8 frames (T, H, W, 3): the true clip, and for each imagined frame the training frame nearest to it in latent.

    Args:
        clip, batch: one held-out clip (its reference, and it read as a batch of one).
    """
    history = model.history_len
    horizon = clip.num_frames - history
    _, imagined = imagine(model, batch, horizon)
    truth = frames_at(dataset, [(clip.source, clip.episode, int(frame)) for frame in clip.frame_indices])
    return {
        "true": truth,
        "imagined (nearest training frame)": np.concatenate([truth[:history], bank.nearest(model.visual(imagined)[0])]),
    }


def frames_at(dataset: Dataset, places: Sequence[tuple[str, int, int]]) -> np.ndarray:
    """uint8 (n, H, W, 3) of (source, episode, env step)."""
    return np.concatenate(
        [dataset.sources[source].episode(episode).frames([frame]) for source, episode, frame in places]
    )
