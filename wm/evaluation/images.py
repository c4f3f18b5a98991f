"""Decoded pictures against frames: MSE, PSNR, SSIM and, with a backbone, LPIPS."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wm.encoders import torchvision_shim
from wm.models.perceptual import PerceptualDistance

_WINDOW_RADIUS = 5  # of the 11 x 11 Gaussian of sigma 1.5, torchmetrics' default


def structural_similarity(first: Float[Tensor, "N 3 H W"], second: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N"]:
    """SSIM of each pair: mean over channels and pixels of (2 ab + C1)(2 cov + C2) / ((a^2 + b^2 + C1)(va + vb + C2)).

    Means a, b and (co)variances are under an 11 x 11 Gaussian window of sigma 1.5, C1 = 1e-4 and C2 = 9e-4 (peak 1). Outside the
    picture there are zeros, as in the reference; torchmetrics reflects at the border instead, so it is given the zeros and
    its map is cut back.

    Source: Wang et al., IEEE TIP 2004, eq. 13; the border of gaoyuezhou/dino_wm (facts: tests/golden/dino_wm).
    """
    torchvision_shim.install()  # torchmetrics imports torchvision
    from torchmetrics.functional.image import structural_similarity_index_measure

    r = _WINDOW_RADIUS
    first, second = F.pad(first, (r, r, r, r)), F.pad(second, (r, r, r, r))
    whole = structural_similarity_index_measure(
        first, second, sigma=1.5, data_range=1.0, reduction="none", return_full_image=True
    )[1]
    return whole[..., r:-r, r:-r].flatten(1).mean(dim=1)


class ImageScores:
    """Means over all pictures that are added.

    `l1`, `mse`: of pixels in [-1, 1]. `psnr` = -10 log10(mse) and `ssim` with peak 1, on pixels in [-1, 1], as the reference has
    them; `psnr_unit`, `ssim_unit`: the usual ones, on pixels clamped and moved to [0, 1]. `lpips` where a backbone is given.
    """

    def __init__(self, perceptual: PerceptualDistance | None = None) -> None:
        torchvision_shim.install()
        from torchmetrics.image import PeakSignalNoiseRatio

        self._perceptual = perceptual
        self._psnr = {"psnr": PeakSignalNoiseRatio(data_range=1.0), "psnr_unit": PeakSignalNoiseRatio(data_range=1.0)}
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, decoded: Float[Tensor, "N 3 S S"], frames: Float[Tensor, "N 3 S S"]) -> None:
        """Pictures in [-1, 1] and what they should be."""
        decoded, frames = decoded.detach().cpu().float(), frames.detach().cpu().float()
        unit_decoded, unit_frames = ((images / 2 + 0.5).clamp(0, 1) for images in (decoded, frames))
        self._psnr["psnr"].update(decoded, frames)
        self._psnr["psnr_unit"].update(unit_decoded, unit_frames)
        sums = {
            "l1": (decoded - frames).abs().flatten(1).mean(dim=1),
            "mse": (decoded - frames).square().flatten(1).mean(dim=1),
            "ssim": structural_similarity(decoded, frames),
            "ssim_unit": structural_similarity(unit_decoded, unit_frames),
        }
        if self._perceptual is not None:
            sums["lpips"] = self._perceptual(decoded, frames)
        for name, values in sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(values.double().sum())
        self._count += len(decoded)

    def metrics(self) -> dict[str, float]:
        """By name."""
        return {name: total / self._count for name, total in self._sums.items()} | {
            name: float(psnr.compute()) for name, psnr in self._psnr.items()
        }
