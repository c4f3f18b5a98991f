"""Tensor files (.pth), read without unpickling anything but tensors, and frames kept in one."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm.config.errors import UserError
from wm.data.atomic import atomic_file


def load_values(path: Path, mmap: bool = False) -> Any:
    """Tensors, numbers, or lists and dicts of them. Raises UserError naming the file when it is missing, damaged or holds more.

    Args:
        mmap: map it from disk, so that only what is looked at is read.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # damaged bytes make the unpickler raise almost anything
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(f"{path}: unreadable ({reason}); the file is damaged or is not a tensor") from error


def load_tensor(path: Path, mmap: bool = False) -> Tensor:
    """The one tensor of a file. Raises UserError as `load_values` does, and when it is something else."""
    value = load_values(path, mmap)
    if not isinstance(value, Tensor):
        raise UserError(f"{path}: expected a tensor, found {type(value).__name__}")
    return need_plain(value, str(path))


def need_plain(value: Tensor, where: str) -> Tensor:
    """Its numbers, without a gradient. Raises UserError for a tensor that is sparse, nested, quantized or without content."""
    facts = {
        "nested": value.is_nested,
        "sparse": value.layout is not torch.strided,
        "quantized": value.is_quantized,
        "meta": value.is_meta,
    }
    kind = next((kind for kind, is_it in facts.items() if is_it), None)
    if kind is not None:
        cure = {"sparse": ": save its to_dense()", "quantized": ": save its dequantize()"}.get(kind, "")
        raise UserError(f"{where}: holds a {kind} tensor, expected plain numbers{cure}")
    return value.detach()


def save_tensor(path: Path, value: Tensor | np.ndarray) -> None:
    """A file with one tensor, atomically."""
    buffer = io.BytesIO()
    torch.save(torch.as_tensor(value), buffer)
    with atomic_file(path) as partial:
        partial.write_bytes(buffer.getbuffer())


def map_frames(path: Path, channels_first: bool = False) -> Tensor:
    """The frames of a file, mapped: (T, H, W, 3), whichever way they are stored. Raises UserError for another shape."""
    frames = load_tensor(path, mmap=True)
    if frames.ndim != 4 or frames.shape[1 if channels_first else 3] != 3:
        expected = "(T, 3, H, W)" if channels_first else "(T, H, W, 3)"
        raise UserError(f"{path}: expected frames {expected}, found {tuple(frames.shape)}")
    return frames.permute(0, 2, 3, 1) if channels_first else frames


def read_frames(path: Path, indices: np.ndarray, length: int, channels_first: bool = False) -> np.ndarray:
    """uint8 (n, H, W, 3) of some frames of a file; no other is read. Float frames are rounded.

    Args:
        length: steps of the episode: the file must have a frame for each.

    Raises:
        UserError: naming the file: unreadable, of another shape, too short, or frames that are not 0..255.
    """
    frames = map_frames(path, channels_first)
    if len(frames) < length:
        raise UserError(f"{path}: {len(frames)} frames for {length} states")
    chosen = frames[torch.as_tensor(indices)]
    if chosen.is_complex() or chosen.dtype == torch.bool:
        raise UserError(f"{path}: frames of {chosen.dtype}, expected numbers 0..255")
    if chosen.is_floating_point():
        if not torch.isfinite(chosen).all():
            raise UserError(f"{path}: frames hold NaN or infinity")
        if chosen.numel() and 0 < chosen.max() <= 1:
            raise UserError(f"{path}: float frames within 0..1, expected 0..255")
        chosen = chosen.round().clamp(0, 255)
    elif chosen.dtype != torch.uint8 and chosen.numel() and (chosen.min() < 0 or chosen.max() > 255):
        raise UserError(f"{path}: frames hold {chosen.min()}..{chosen.max()}, expected 0..255")
    return chosen.to(torch.uint8).contiguous().numpy()
