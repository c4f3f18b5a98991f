"""Lets an installed torchvision import beside a CPU build of torch.

torchvision's wheel registers fake kernels for the ops `nms` and `qnms`; with CPU torch their definitions are absent and the
import fails, and transformers' vision models with it. Declaring the two schemas first cures it. Nothing here calls them.
"""

from __future__ import annotations

import torch

_library: torch.library.Library | None = None


def install() -> None:
    """Declare torchvision's ops when torch has no CUDA. Safe to call twice; a no-op on CUDA builds."""
    global _library
    if _library is not None or torch.version.cuda is not None:
        return
    _library = torch.library.Library("torchvision", "DEF")
    _library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
