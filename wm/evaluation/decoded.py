"""What a model's decoder makes of encoded and of imagined latents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from wm.evaluation.images import ImageScores
from wm.evaluation.latent import imagine
from wm.models.decoder import ImageDecoder, target_images
from wm.models.latent_model import LatentModel
from wm.models.perceptual import PerceptualDistance
from wm.types import Batch


@torch.no_grad()
def decoded_quality(
    model: LatentModel,
    decoder: ImageDecoder,
    batches: Iterable[Batch],
    horizons: Sequence[int],
    perceptual: PerceptualDistance | None,
) -> dict[str, float]:
    """`img_{metric}_reconstructed` over all frames, `img_{metric}_pred_h{h}` over the frames h steps after the context.

    Args:
        batches: clips of H + max(horizons) frames with their images.
    """
    scores = {"reconstructed": ImageScores(perceptual), **{f"pred_h{h}": ImageScores(perceptual) for h in horizons}}
    for batch in batches:
        frames, reconstructed, predicted = _decoded(model, decoder, batch, max(horizons))
        scores["reconstructed"].add(reconstructed.flatten(0, 1), frames.flatten(0, 1))
        for h in horizons:
            scores[f"pred_h{h}"].add(predicted[:, h - 1], frames[:, model.history_len - 1 + h])
    return {f"img_{name}_{where}": value for where, score in scores.items() for name, value in score.metrics().items()}


@torch.no_grad()
def decoded_strip(model: LatentModel, decoder: ImageDecoder, batch: Batch) -> dict[str, np.ndarray]:
    """Rows of frames (T, S, S, 3) in [0, 1] of one clip: true, decoded from its own latents, decoded from imagined ones.

    Args:
        batch: one clip with its images; what follows its first H frames is imagined.
    """
    history = model.history_len
    frames, reconstructed, predicted = _decoded(model, decoder, batch, batch.num_frames - history)
    return {
        "true": _picture(frames[0]),
        "decoded": _picture(reconstructed[0]),
        "predicted, decoded": _picture(torch.cat([reconstructed[0, :history], predicted[0]])),
    }


@torch.no_grad()
def decoded_frames(decoder: ImageDecoder, visual: Tensor) -> np.ndarray:
    """uint8 (K, S, S, 3) of visual latents (K, P, V)."""
    return (255 * _picture(decoder(visual[None])[0][0])).round().astype(np.uint8)


def _decoded(model: LatentModel, decoder: ImageDecoder, batch: Batch, horizon: int) -> tuple[Tensor, Tensor, Tensor]:
    """(frames, reconstructions (B, T, 3, S, S), predictions (B, horizon, 3, S, S)), in [-1, 1]."""
    if batch.images is None:
        raise ValueError("decoded pictures are compared with images, and the batch has none")
    content, imagined = imagine(model, batch, horizon)
    frames = target_images(batch.images, decoder.image_size)
    return frames, *(decoder(model.visual(latent))[0] for latent in (content, imagined))


def _picture(images: Tensor) -> np.ndarray:
    return (images / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
