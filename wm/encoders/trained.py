"""Encoders that `wm pretrain-encoder` trained: a folder in transformers' own layout, and one file about it.

config.json  model.safetensors (fp16)   transformers' Dinov2Model.from_pretrained(folder) reads them
encoder.json                            image_size, hash, commit, probes, sources, version, sha256 of the weights
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wm.config.errors import UserError
from wm.encoders import torchvision_shim

SHIPPED = Path(__file__).parent / "weights" / "tiny"
ABOUT, WEIGHTS = "encoder.json", "model.safetensors"
FORMAT = 1


def read_trained(pretrained: str) -> tuple[nn.Module, int]:
    """(the network in float32, the size that it was trained at) of `shipped` or a folder.

    Raises:
        UserError: not there, not written by `wm.pretraining.export`, or damaged.
    """
    folder = SHIPPED if pretrained == "shipped" else Path(pretrained).expanduser()
    if pretrained == "shipped" and not folder.is_dir():
        raise UserError(
            "encoder.pretrained=shipped: this copy of wm comes without trained weights; `wm pretrain-encoder tiny` trains some, "
            "encoder.pretrained=none needs none"
        )
    image_size = about_trained(folder)["image_size"]
    torchvision_shim.install()
    from safetensors import SafetensorError
    from transformers import Dinov2Model

    try:
        with no_bars():
            found: Any = Dinov2Model.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise UserError(f"{folder}: damaged ({reason}); export the encoder again") from error
    network, loaded = found
    wrong = sorted({*loaded["missing_keys"], *loaded["unexpected_keys"]})
    if wrong:  # transformers fills what is missing with random numbers and goes on
        raise UserError(
            f"{folder}: damaged (its weights and config.json disagree on {wrong[0]}); export the encoder again"
        )
    return network, image_size


def about_trained(folder: Path) -> dict[str, Any]:
    """What stands in encoder.json. Raises UserError for a folder that no export wrote, or one damaged since."""
    file = folder / ABOUT
    if not file.is_file():
        found = "a folder without" if folder.is_dir() else "no such folder, so no"
        raise UserError(
            f"encoder.pretrained={folder}: {found} {ABOUT}; expected none, shipped, or a folder that `wm pretrain-encoder` wrote "
            f"(weights of others are encoder.kind=dinov2)"
        )
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        is_ours = about["format"] == FORMAT and isinstance(about["image_size"], int)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: damaged ({type(error).__name__}: {error}); export the encoder again") from error
    if not is_ours:
        raise UserError(
            f"{file}: format {about['format']}, not {FORMAT}; export the encoder again with this version of wm"
        )
    if not (folder / WEIGHTS).is_file() or sha256_of(folder / WEIGHTS) != about.get("sha256"):
        raise UserError(f"{folder / WEIGHTS}: missing or damaged (its checksum differs); export the encoder again")
    return about


@contextmanager
def no_bars() -> Iterator[None]:
    """transformers draws progress bars over a person's screen, of work that takes milliseconds."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def sha256_of(file: Path) -> str:
    """Of a file's bytes, in hex."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
