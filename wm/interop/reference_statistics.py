"""The numbers that a DINO-WM run normalised with: the constants of the released PushT data, or those of the data folder.

Other worlds' numbers are never a stand-in. The reference takes them over every episode, held-out ones too.

Source: gaoyuezhou/dino_wm, datasets/*_dset.py (facts: SCIENCE section 1).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm.config.errors import UserError
from wm.data.normalization import DataStatistics
from wm.data.sources.deformable import DeformableSource, particle_names
from wm.data.sources.point_maze import PointMazeSource
from wm.data.sources.pusht_noise import PROPRIO, STATE_NAMES, PushTNoiseSource
from wm.data.sources.wall_single import WallSingleSource
from wm.interop.hydra_config import HydraRun
from wm.types import Statistics

_PUSHT_ACTION_MEAN, _PUSHT_ACTION_STD = (-0.0087, 0.0068), (0.2019, 0.2002)  # of actions / 100
_PUSHT_STATE_MEAN = (236.6155, 264.5674, 255.1307, 266.3721, 1.9584, -2.93032027, 2.54307914)
_PUSHT_STATE_STD = (101.1202, 87.0112, 52.7054, 57.4971, 1.7556, 74.84556075, 74.14009094)
_DEFORMABLE_MARGIN = 1e-6  # added to every standard deviation there


def reference_statistics(run: HydraRun, data: Path | None, action_dim: int, proprio_dim: int) -> DataStatistics:
    """What the run normalised with.

    Args:
        data: the folder that it was trained on; not needed for PushT, or where nothing was normalised.
        action_dim: A of one env action, and proprio_dim, as the weights have them.

    Raises:
        UserError: the folder is needed and missing, unreadable, or of other sizes than the weights.
    """
    if not run.normalizes:
        return DataStatistics(_identity(action_dim), _identity(proprio_dim), None, _numbered("action", action_dim),
                              _numbered("proprio", proprio_dim), ())  # fmt: skip
    if run.world == "pusht":
        found = _pusht(run.get("env.dataset.with_velocity", bool))
    elif run.world not in _READERS:
        raise run.refuse("env.name", f"'{run.world}' has no known normalisation; a guess would plan wrong actions")
    elif data is None:
        raise UserError(
            f"{run.file}: a {run.world} model normalises with the numbers of its own data, which the checkpoint does not hold: "
            f"say --data FOLDER, the folder that it was trained on"
        )
    else:
        found = _READERS[run.world](
            data, run.get("env.dataset.n_rollout", int) if run.has("env.dataset.n_rollout") else None
        )
    for key, expected in (("action", action_dim), ("proprio", proprio_dim)):
        size = getattr(found, key).size
        if size != expected:
            raise UserError(
                f"{data or run.file}: {key}s of {size} numbers, but the checkpoint's weights take {expected}"
            )
    return found


def _pusht(with_velocity: bool) -> DataStatistics:
    size = 7 if with_velocity else 5
    proprio = [index for index in PROPRIO if index < size]
    mean, std = np.array(_PUSHT_STATE_MEAN, np.float32), np.array(_PUSHT_STATE_STD, np.float32)
    return DataStatistics(
        Statistics(np.array(_PUSHT_ACTION_MEAN, np.float32), np.array(_PUSHT_ACTION_STD, np.float32)),
        Statistics(mean[proprio], std[proprio]),
        Statistics(mean[:size], std[:size]),
        PushTNoiseSource.action_names,
        tuple(STATE_NAMES[index] for index in proprio),
        STATE_NAMES[:size],
    )


def _wall(folder: Path, episodes: int | None) -> DataStatistics:
    states, actions = (_array(folder, name)[:episodes].float() for name in ("states", "actions"))
    action, state = (_over(values.flatten(0, 1)) for values in (actions, states))
    source = WallSingleSource
    return DataStatistics(action, state, state, source.action_names, source.proprio_names, source.state_names)


def _point_maze(folder: Path, episodes: int | None) -> DataStatistics:
    states, actions = (_array(folder, name)[:episodes].float() for name in ("states", "actions"))
    lengths = torch.as_tensor(_load(folder, "seq_lengths")).tolist()[:episodes]
    action, state = (
        _over(torch.cat([episode[:length] for episode, length in zip(values, lengths, strict=True)]))
        for values in (actions, states)
    )
    source = PointMazeSource
    return DataStatistics(action, state, state, source.action_names, source.proprio_names, source.state_names)


def _deformable(folder: Path, episodes: int | None) -> DataStatistics:
    """Proprio is one zero there: mean 0, and the margin is its standard deviation."""
    states, actions = (_array(folder, name)[:episodes].float() for name in ("states", "actions"))
    action, state = (_over(values.flatten(0, 1).flatten(1), _DEFORMABLE_MARGIN) for values in (actions, states))
    proprio = Statistics(np.zeros(1, np.float32), np.full(1, _DEFORMABLE_MARGIN, np.float32))
    return DataStatistics(
        action,
        proprio,
        state,
        DeformableSource.action_names,
        DeformableSource.proprio_names,
        particle_names(state.size // 4),
    )


_READERS: dict[str, Callable[[Path, int | None], DataStatistics]] = {
    "wall": _wall,
    "point_maze": _point_maze,
    "rope": _deformable,
    "granular": _deformable,
}


def _over(rows: Tensor, margin: float = 0.0) -> Statistics:
    """Mean and standard deviation (n - 1) over rows, in float32 as the reference takes them."""
    return Statistics(rows.mean(dim=0).numpy(), (rows.std(dim=0) + margin).numpy())


def _identity(size: int) -> Statistics:
    return Statistics(np.zeros(size, np.float32), np.ones(size, np.float32))


def _numbered(word: str, size: int) -> tuple[str, ...]:
    return tuple(f"{word}_{index}" for index in range(size))


def _array(folder: Path, name: str) -> Tensor:
    """(episodes, T, ...). Raises UserError when it is not there or no such array."""
    value = _load(folder, name)
    if not isinstance(value, Tensor) or value.ndim < 3 or len(value) < 1:
        raise UserError(f"{folder / name}.pth: expected an array (episodes, T, size)")
    return value


def _load(folder: Path, name: str) -> Any:
    file = folder / f"{name}.pth"
    if not file.is_file():
        raise UserError(
            f"{file}: no such file; --data takes the folder that the model was trained on, with {name}.pth in it"
        )
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything from EOFError to RuntimeError for a broken file
        reason = (str(error).splitlines() or ["it is empty"])[0][:120]
        raise UserError(f"{file}: cannot be read as tensors ({reason})") from error
