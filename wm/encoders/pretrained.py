"""Weights from the hub or a local folder, or one line that says what to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import torch

from wm.config.errors import UserError
from wm.encoders import torchvision_shim


class Family(NamedTuple):
    """One published architecture.

    Args:
        title: for people.
        model_types: `model_type` of the config.json files that belong to it.
        unused: first parts of names of weights that the encoder does not need.
    """

    title: str
    model_types: tuple[str, ...]
    unused: tuple[str, ...] = ()


DINOV2 = Family("DINOv2", ("dinov2", "dinov2_with_registers"))
DINOV3 = Family("DINOv3 ViT", ("dinov3_vit",))
VJEPA2 = Family("V-JEPA 2", ("vjepa2",), unused=("predictor.",))
RESNET = Family("ResNet", ("resnet",))


def load_pretrained(weights: str, family: Family, **settings: Any) -> Any:
    """The network of a hub id or local folder, in float32.

    Args:
        settings: entries of its config.json to replace.

    Raises:
        UserError: not found, not whole, or of another family: what was looked for, where, and three ways out.
    """
    torchvision_shim.install()
    from safetensors import SafetensorError

    local = Path(weights).expanduser()
    place = str(local) if local.is_dir() else weights
    # The cache first: workers of a cluster need not ask the hub each, and a run does not change when the hub does.
    cache_only = [True] if local.is_dir() or _is_offline() else [True, False]
    for number, is_cached in enumerate(cache_only, start=1):
        try:
            return _load(place, is_cached, family, settings)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            if number < len(cache_only):
                continue
            reason = str(error).strip().splitlines()[0][:160]
            raise UserError(
                f"encoder.weights: no {family.title} found in {_looked(local, weights)} ({reason}). Ways out: "
                f"encoder.weights=FOLDER with config.json and model.safetensors; download it where there is a network "
                f"(HF_ENDPOINT sets a mirror) and copy the cache (HF_HOME); or encoder.kind=tiny, which needs none"
            ) from error


def _load(place: str, is_cached: bool, family: Family, settings: dict[str, Any]) -> Any:
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(place, local_files_only=is_cached)
    if config.model_type not in family.model_types:
        raise ValueError(f"its config.json says model_type '{config.model_type}'")
    for name, value in settings.items():
        setattr(config, name, value)
    network, loaded = AutoModel.from_pretrained(
        place,
        local_files_only=is_cached,
        config=config,
        use_safetensors=True,
        dtype=torch.float32,  # else the file's own, and tokens of half precision
        output_loading_info=True,
    )
    missing = [name for name in sorted(loaded["missing_keys"]) if not name.startswith(family.unused)]
    if missing:  # transformers fills them with random numbers and goes on
        raise ValueError(f"{len(missing)} of its weights are missing, as {missing[0]}")
    return network


def _looked(local: Path, weights: str) -> str:
    from huggingface_hub import constants

    if local.is_dir():
        return f"the folder {local.resolve()}"
    cache = f"the hub's cache for '{weights}' ({constants.HF_HUB_CACHE})"
    return cache if _is_offline() else f"{constants.ENDPOINT} and {cache}"


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
