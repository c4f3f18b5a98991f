"""Demonstrations as simulator states: what robosuite's collection script and robomimic's raw files hold, without pictures.

    data                attributes env_args, or env and env_info (JSON)
    data/demo_N         attributes model_file (XML), num_samples, success
    data/demo_N/states  (T, X): time, qpos, qvel before each action
    data/demo_N/actions (T, A)

Source: robosuite's collect_human_demonstrations.py; robomimic.github.io/docs/datasets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wm.config.data import RobomimicSourceConfig
from wm.config.errors import UserError
from wm.data.sources.robomimic_hdf5 import (
    CONTROL_HZ,
    action_names_of,
    chosen_demos,
    data_group,
    demo_tags,
    env_info,
    has_pictures,
    has_states,
    hdf5_file,
    hdf5_handle,
    readable,
)


class DemoStates:
    """States and actions of a file, read when they are asked for; their sizes at once.

    Raises UserError for another layout, states that do not fit the actions, and NaN in actions.
    """

    def __init__(self, config: RobomimicSourceConfig, name: str, folder: Path) -> None:
        self.name = name
        self.path = hdf5_file(folder)
        with readable(self.path):
            file = hdf5_handle(self.path)
            data = data_group(file, self.path)
            self.demos = chosen_demos(config, name, self.path, file, data)
            self.env_info: dict[str, Any] = env_info(data, self.path)
            self.env_info["env_name"] = self.env_info["env_name"] or str(data.attrs.get("env", ""))
            self.fps = float(self.env_info.get("control_freq", CONTROL_HZ))
            self.lengths = [self._length(data[demo], demo) for demo in self.demos]
            self.tags = demo_tags(file, data, self.demos)
            first: Any = data[self.demos[0]]
            self.action_names = action_names_of(self.env_info, first["actions"].shape[1])
            self.fingerprint = self._fingerprint(data)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The config of our own world, where our own writer kept it."""
        return dict(self.env_info.get("wm_world", {}))

    def states(self, index: int) -> np.ndarray:
        """float64 (T, X). Raises UserError for numbers that are not finite."""
        return self._array(index, "states", np.float64)

    def actions(self, index: int) -> np.ndarray:
        """float32 (T, A). Raises UserError for numbers that are not finite."""
        return self._array(index, "actions", np.float32)

    def model_file(self, index: int) -> str | None:
        """The simulator's model, XML, where it is there."""
        with readable(self.path):
            found: Any = hdf5_handle(self.path)[f"data/{self.demos[index]}"].attrs.get("model_file")
        return None if found is None else str(found)

    def _array(self, index: int, key: str, dtype: Any) -> np.ndarray:
        with readable(self.path):
            values: Any = hdf5_handle(self.path)[f"data/{self.demos[index]}/{key}"]
            found = np.asarray(values[()], dtype)
        if not np.isfinite(found).all():
            raise UserError(f"{self.path}: {self.demos[index]}: {key} holds NaN or infinity")
        return found

    def _length(self, demo: Any, name: str) -> int:
        where = f"{self.path}: {name}"
        if not has_states(demo) or "actions" not in demo:
            raise UserError(f"{where} holds no {'actions' if has_states(demo) else 'states'}")
        states, actions = demo["states"].shape, demo["actions"].shape
        if len(states) != 2 or len(actions) != 2 or states[0] != actions[0] or not states[0]:
            raise UserError(f"{where}: states {states} do not fit actions {actions}")
        return states[0]

    def _fingerprint(self, data: Any) -> str:
        """Of all actions, of each demonstration's first and last state, and of its model."""
        digest = hashlib.sha256(f"{self.demos}/{self.lengths}/{self.env_info}".encode())
        for demo in self.demos:
            states: Any = data[demo]["states"]
            for values in (data[demo]["actions"][()], states[0], states[-1]):
                digest.update(np.ascontiguousarray(values).tobytes())
            digest.update(str(data[demo].attrs.get("model_file", "")).encode())
        return digest.hexdigest()[:16]


class FileKind(NamedTuple):
    """What the first demonstration of a file holds, and what the file says of its simulator."""

    has_states: bool
    has_pictures: bool
    env_info: Mapping[str, Any]


def file_kind(folder: Path) -> FileKind:
    """Raises UserError for a file that is no HDF5."""
    path = hdf5_file(folder)
    with readable(path):
        data: Any = hdf5_handle(path).get("data")
        first = next((data[name] for name in data if str(name).startswith("demo_")), None) if data is not None else None
        info = {} if data is None else env_info(data, path)
        return FileKind(has_states(first), has_pictures(first), info)
