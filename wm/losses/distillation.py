"""Self-distillation: a student predicts what its own average says of another view, or of what was hidden from it.

N rows, K prototypes. Targets carry no gradient.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wm.losses.ranks import ALONE, Alone


@torch.no_grad()
def balanced_targets(
    logits: Float[Tensor, "N K"], temperature: float, num_iterations: int = 3, ranks: Alone = ALONE
) -> Float[Tensor, "N K"]:
    """Soft assignments in which every prototype is used equally often over the rows of all workers.

    Sinkhorn-Knopp on exp(logits / temperature): columns made to sum to N / K, then rows to 1, `num_iterations` times.

    Source: SwAV (Caron et al. 2020), section 3.1; DINOv2 (Oquab et al. 2023), section 4, in place of DINO's moving centre.
    """
    rows, first = ranks.gather(logits.float())
    if not len(rows):  # a batch in which nothing is hidden
        return rows
    scores = torch.exp((rows - rows.max()) / temperature)
    for _ in range(num_iterations):
        scores = scores / scores.sum(dim=0, keepdim=True).clamp_min(1e-12) / scores.shape[1]
        scores = scores / scores.sum(dim=1, keepdim=True).clamp_min(1e-12) / scores.shape[0]
    return scores[first : first + len(logits)] * scores.shape[0]


def distillation_loss(
    logits: Float[Tensor, "N K"], targets: Float[Tensor, "N K"], temperature: float
) -> Float[Tensor, "N"]:
    """Cross-entropy of each row: -sum_k p_k log softmax(s / temperature)_k. At best the entropy of its target."""
    return -(targets * torch.log_softmax(logits.float() / temperature, dim=-1)).sum(dim=-1)


def near_in_time(clips: int, time: int, blur: float) -> Float[Tensor, "N N"]:
    """How much each frame of a batch of clips is another's: rows of exp(-|t - t'| / blur) within a clip, summing to 1.

    Args:
        blur: in frames of a clip; 0 is the frame itself alone.
    """
    if blur == 0:
        return torch.eye(clips * time)
    steps = torch.arange(time)
    near = torch.exp(-(steps[:, None] - steps).abs() / blur)
    return torch.block_diag(*[near / near.sum(dim=1, keepdim=True)] * clips)


def identification_loss(
    said: Float[Tensor, "N L"], taught: Float[Tensor, "M L"], targets: Float[Tensor, "N M"], scale: Float[Tensor, ""]
) -> Float[Tensor, "N"]:
    """Cross-entropy of naming each row's frame among all M, as `targets` names it, by how near their latents are.

    logits = -scale mean (z - z')^2: the distance that planning's objective takes.

    Source: InfoNCE as in MoCo v3 (Chen et al. 2021), section 3, with distances for cosines and soft targets for one-hot ones.
    """
    own, others = said.float(), taught.float()
    squares = own.square().mean(dim=1)[:, None] + others.square().mean(dim=1) - 2 * own @ others.T / own.shape[1]
    return -(targets * torch.log_softmax(-scale * squares, dim=-1)).sum(dim=-1)


STILL = 1e-4  # mean square below which nothing moves: one level of 8 bits is 8e-3 of [-1, 1], squared 6e-5


def motion_loss(
    said: Float[Tensor, "B T P E"], pictures: Float[Tensor, "B T P E"], seen: Bool[Tensor, "B T P"]
) -> Float[Tensor, "B"]:
    """What is missed of each clip's motion: |ds - dx|^2 / |dx|^2, where d takes off each patch's mean over its frames.

    0: all of it is restored; 1: nothing is. Each clip by its own motion, so that an agent of a few pixels counts as much as an
    arm. Patches of frames in which they are not `seen` count for nothing.

    Args:
        pictures: each patch's pixels, in [-1, 1].

    Source: SimMIM (Xie et al. 2022), section 3, a linear layer's regression of raw pixels, here of what changes in a clip.
    """
    counted = seen.float().unsqueeze(-1)
    frames = counted.sum(dim=1, keepdim=True).clamp_min(1)

    def moving(values: Tensor) -> Tensor:
        return (values - (values * counted).sum(dim=1, keepdim=True) / frames) * counted

    moved = moving(pictures.float())
    missed = moving(said.float()) - moved
    entries = counted.sum(dim=(1, 2, 3)).clamp_min(1) * pictures.shape[-1]
    return missed.square().sum(dim=(1, 2, 3)) / entries / (moved.square().sum(dim=(1, 2, 3)) / entries).clamp_min(STILL)


def spread_loss(features: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
    """-mean log of each row's distance to its nearest neighbour on the unit sphere: rows spread out.

    Source: KoLeo (Sablayrolles et al. 2019), equation 2, as in DINOv2, section 4.
    """
    rows = torch.nn.functional.normalize(features.float(), dim=-1, eps=1e-8)
    with torch.no_grad():
        likeness = rows @ rows.T
        likeness.fill_diagonal_(-1)
        nearest = likeness.argmax(dim=1)
    return -torch.log(torch.linalg.vector_norm(rows - rows[nearest], dim=-1) + 1e-8).mean()
