"""DINO-WM's plan_targets.pkl: the problems that its planning runs save, read without running anything in the file."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch._utils import _rebuild_tensor_v2

from wm.config.errors import UserError
from wm.contracts import World
from wm.data.normalization import DataStatistics
from wm.types import Problem

_KEYS = ("obs_0", "obs_g", "state_0", "state_g", "gt_actions", "goal_H")
_MALFORMED = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    RuntimeError,
)


def load_plan_targets(file: Path, statistics: DataStatistics, world: World) -> list[Problem]:
    """The problems of a plan_targets.pkl of gaoyuezhou/dino_wm (planning's `dump_targets`).

    There, `obs_0` and `obs_g` hold visual (N, 1, H, W, 3) and proprio (N, 1, Dp) as the simulator gives them, `state_0` and `state_g`
    are (N, S), `gt_actions` normalised model actions (N, goal_H, A F), and the layout is not kept: it is the world's own.

    Args:
        statistics: of the model that plans: `gt_actions` are normalised by the data's.

    Raises:
        UserError: the file is damaged, names what has no place in it, or does not fit the world.
    """
    found = _read(file)
    lacking = [key for key in _KEYS if key not in found]
    if lacking:
        raise UserError(f"{file}: no {', '.join(lacking)}: not a plan_targets.pkl of DINO-WM")
    try:
        visual_0, visual_g, proprio_0, proprio_g = (
            _frames(found[key][part]) for part in ("visual", "proprio") for key in ("obs_0", "obs_g")
        )
        state_0, state_g = (np.asarray(found[key], np.float64) for key in ("state_0", "state_g"))
        horizon = int(found["goal_H"])
    except _MALFORMED as error:
        raise UserError(f"{file}: not the arrays of a plan_targets.pkl ({type(error).__name__}: {error})") from error
    expected = {
        "state_0": (state_0.shape[1:], (len(world.state_names),)),
        "obs_0.visual": (visual_0.shape[1:], (world.frame_size, world.frame_size, 3)),
        "obs_0.proprio": (proprio_0.shape[1:], (len(world.proprio_names),)),
    }
    for name, (shape, wanted) in expected.items():
        if shape != wanted:
            raise UserError(f"{file}: {name} is {list(shape)} a problem, but world '{world.name}' has {list(wanted)}")
    actions = _raw_actions(found["gt_actions"], statistics, file)
    return [
        Problem(
            id=f"{file.stem}/{number}",
            layout=dict(world.layout),
            state_0=state_0[number],
            state_g=state_g[number],
            frame_0=visual_0[number].astype(np.uint8),
            frame_g=visual_g[number].astype(np.uint8),
            goal_horizon=horizon,
            proprio_0=proprio_0[number].astype(np.float64),
            proprio_g=proprio_g[number].astype(np.float64),
            gt_actions=None if actions is None else actions[number],
        )
        for number in range(len(state_0))
    ]


def _frames(values: Any) -> np.ndarray:
    """(N, 1, ...) -> (N, ...)."""
    return np.asarray(values)[:, 0]


def _raw_actions(given: Any, statistics: DataStatistics, file: Path) -> np.ndarray | None:
    """Normalised (N, H, A F) -> raw (N, H F, A)."""
    if given is None:
        return None
    actions = np.asarray(given, np.float64)
    if statistics.action is None or actions.ndim != 3 or actions.shape[2] % statistics.action.size:
        raise UserError(f"{file}: gt_actions are {list(actions.shape)}, which are not the model's actions")
    raw = statistics.action.denormalize(actions)
    return raw.reshape(len(raw), -1, statistics.action.size)


def _tensor(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")


def _codec(text: str, encoding: str) -> bytes:
    """How older pickles write bytes."""
    if encoding != "latin1":
        raise UserError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


def _numpy(module: str) -> Mapping[tuple[str, str], Callable[..., Any]]:
    from numpy._core import multiarray, numeric  # both names are in files, by the version of numpy that wrote them

    return {
        (f"{module}.multiarray", "_reconstruct"): multiarray._reconstruct,  # pyright: ignore
        (f"{module}.multiarray", "scalar"): multiarray.scalar,  # pyright: ignore
        (f"{module}.numeric", "_frombuffer"): numeric._frombuffer,  # pyright: ignore
    }


class _Unpickler(pickle.Unpickler):
    """Knows numpy's arrays and torch's tensors; any other name is refused before it is looked up."""

    _known: Mapping[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        **_numpy("numpy.core"),
        **_numpy("numpy._core"),
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
        ("torch.storage", "_load_from_bytes"): _tensor,
        ("collections", "OrderedDict"): dict,
        ("_codecs", "encode"): _codec,
    }

    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) not in self._known:
            raise UserError(
                f"refused: {module_name}.{global_name} is not part of planning targets; nothing in the file was run"
            )
        return self._known[module_name, global_name]


def _read(file: Path) -> Mapping[str, Any]:
    try:
        with file.open("rb") as handle:
            found = _Unpickler(handle).load()
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    except (*_MALFORMED, OSError) as error:
        raise UserError(f"{file}: unreadable ({type(error).__name__}: {error})") from error
    if not isinstance(found, dict):
        raise UserError(f"{file}: not a plan_targets.pkl of DINO-WM")
    return found
