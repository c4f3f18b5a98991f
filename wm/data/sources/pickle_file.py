"""Pickles of plain values: numbers, text, lists and dicts of them, numpy arrays and tensors; nothing else is ever made."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch._utils import _rebuild_tensor_v2

from wm.config.errors import UserError


def load_pickle(path: Path) -> Any:
    """What a file holds. Raises UserError naming the file when it is missing, damaged, or names anything but plain values."""
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file).load()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # damaged bytes make the unpickler raise almost anything
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(f"{path}: unreadable ({reason}); the file is damaged or is not a pickle") from error


def _encode(text: str, encoding: str) -> bytes:
    """How old pickles write bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise UserError(f"bytes written as {encoding}, expected latin1")
    return text.encode("latin1")


def _tensor_of(data: bytes) -> Any:
    """A tensor's storage is a torch file in the pickle."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


_NUMPY = ("numpy._core", "numpy.core")  # since numpy 2, and before
_NUMPY_MAKERS = {  # what numpy itself names when it writes an array, in the old protocols and in the fifth, and a number
    "multiarray._reconstruct": np.empty(0).__reduce__()[0],
    "numeric._frombuffer": np.empty(0).__reduce_ex__(5)[0],
    "multiarray.scalar": np.int64(0).__reduce__()[0],
}
_ALLOWED: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _encode,
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    **{f"{core}.{name}": make for core in _NUMPY for name, make in _NUMPY_MAKERS.items()},
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor_v2,
    "torch.storage._load_from_bytes": _tensor_of,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Only what is in the table."""
        path = f"{module}.{name}"
        if path not in _ALLOWED:
            raise UserError(
                f"names {ascii(path)[:100]}; expected numbers, text, lists, arrays or tensors; it was not run"
            )
        return _ALLOWED[path]
