"""LPIPS over a backbone that the user supplies."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from wm.config.decoder import LpipsConfig
from wm.config.errors import UserError
from wm.encoders import torchvision_shim

NOT_AVAILABLE = "not available: give a backbone file"


class PerceptualDistance:
    """LPIPS v0.1: sum over layers of the spatial mean of w_l (f_l(a) - f_l(b))^2, with features of unit length.

    It is no module of the model: its frozen weights are neither trained nor kept in checkpoints.

    Raises:
        UserError: the backbone file is missing, damaged or of another network.

    Source: Zhang et al., arXiv 1801.03924, eq. 1; heads of the lpips package.
    """

    def __init__(self, config: LpipsConfig) -> None:
        torchvision_shim.install()  # lpips imports torchvision
        import lpips

        weights = _read(Path(config.backbone).expanduser())
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision on arguments that lpips uses
            network = lpips.LPIPS(
                net=config.network, pnet_rand=True, verbose=False
            )  # every random weight is replaced below
        wanted = {name: f"features.{name.split('.', 1)[1]}" for name in network.net.state_dict()}
        absent = [theirs for theirs in wanted.values() if theirs not in weights]
        if absent:
            raise UserError(f"{config.backbone}: no torchvision {config.network} weights ('{absent[0]}' is not in it)")
        try:
            network.net.load_state_dict({name: weights[theirs] for name, theirs in wanted.items()})
        except RuntimeError as error:
            raise UserError(
                f"{config.backbone}: not {config.network}: {str(error).splitlines()[-1].strip()}"
            ) from error
        self._network = network.eval().requires_grad_(False)

    def __call__(self, first: Float[Tensor, "N 3 S S"], second: Float[Tensor, "N 3 S S"]) -> Float[Tensor, "N"]:
        """The distance of each pair of pictures in [-1, 1], with gradient to both."""
        return self._network.to(first.device)(first, second).flatten()


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(
            f"perceptual.backbone: no file {file}; download torchvision's ImageNet weights of the network there, or say "
            "perceptual=none"
        )
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises almost anything for bytes that are no pickle
        raise UserError(f"{file}: not a file of weights ({type(error).__name__})") from error
