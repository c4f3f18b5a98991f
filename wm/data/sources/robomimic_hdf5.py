"""robomimic's and robosuite's demonstrations in one HDF5 file, with pictures.

    data                  attributes env_args or env_info (JSON): control_freq, controller, env_name
    data/demo_N           attributes num_samples, success; numbers may start anywhere and have gaps
    data/demo_N/actions   (T, A)
    data/demo_N/obs       CAMERA_image (T, H, W, 3) uint8, any number of low-dim keys (T, n)
    mask/NAME             names of the demonstrations of a subset (train, valid, better, ...)

Source: robomimic.github.io/docs/datasets (structure and filter keys); robosuite's collect_human_demonstrations.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from wm.config.data import RobomimicSourceConfig
from wm.config.errors import UserError, nearest
from wm.data.sources.columns import parse_columns
from wm.data.sources.file_source import KINDS, FileSource, Kind
from wm.data.sources.robosuite_objects import OBJECT_KEY, VERSION, pose_column, pose_columns, pose_names

SUFFIXES = (".hdf5", ".h5")
MAIN_CAMERA = "agentview"
PROPRIO_KEYS = ("robot0_joint_pos", "robot0_gripper_qpos", "robot0_joint_vel")  # 7, 2, 7
PROPRIO_KEY, STATE_KEY = "proprio", "state"  # as `wm data convert` calls vectors that are no Panda's
OSC_ACTIONS = ("dx", "dy", "dz", "drx", "dry", "drz", "gripper")
DEMO_TAG, MASK_TAG = "demo", "mask_"  # a demonstration's number; whether it is in a subset
OWN_WORLD = "wm_world"  # in env_args: the config of our world
CONTROL_HZ = 20.0  # robosuite's default, where the file tells none


class RobomimicHdf5Source(FileSource):
    """A file, or a folder with one. Raises UserError for another layout, and where no demonstration has pictures.

    Actions, proprio and state are read at once, frames from a handle that each process opens for itself.
    """

    def __init__(self, config: RobomimicSourceConfig, name: str, folder: Path) -> None:
        self.name = name
        self.path = hdf5_file(folder)
        self.labelled = config.labels == "all"
        with readable(self.path):
            file = hdf5_handle(self.path)
            data = data_group(file, self.path)
            self.demos = chosen_demos(config, name, self.path, file, data)
            info = env_info(data, self.path)
            self.fps: float = _rate(info, self.path)
            first: Any = data[_like_most(data, self.demos)]
            _check_pictures(first, f"{self.path}: {self.demos[0]}")
            self.camera_key = _camera(config, name, first["obs"])
            keys = self._keys(config, first, info)
            self._vectors, faults = self._read(data, keys)
            self.lengths: Sequence[int] = [len(values) for values in self._vectors["action"]]
            self.tags: Sequence[Mapping[str, float]] = demo_tags(file, data, self.demos)
            self.action_names: tuple[str, ...] = action_names_of(info, self._vectors["action"][0].shape[1])
            self.proprio_names: tuple[str, ...] = _names(keys["proprio"], first, info)
            self.state_names: tuple[str, ...] = _names(keys["state"], first, info)
            self.beside: tuple[str, ...] = _beside(first, self.camera_key, keys)
            self.note_faults(self.path, faults)
            self.fingerprint: str = self._fingerprint()

    @property
    def camera(self) -> str:
        """Its name."""
        return self.camera_key.removesuffix("_image")

    def label(self, index: int) -> str:
        return self.demos[index]

    def frame_file(self, index: int) -> Path:
        return self.path

    def vector(self, kind: Kind, index: int) -> np.ndarray | None:
        values = self._vectors[kind]
        return values[index] if values else None

    def frames(self, index: int, rows: np.ndarray) -> np.ndarray:
        with readable(self.path):
            pictures: Any = hdf5_handle(self.path)[f"data/{self.demos[index]}/obs/{self.camera_key}"]
            wanted, places = np.unique(rows, return_inverse=True)
            found = np.empty((len(wanted), *pictures.shape[1:]), np.uint8)
            for number, row in enumerate(wanted):  # h5py takes longer over a list of rows than to read a chunk
                pictures.read_direct(found, np.s_[row], np.s_[number])
        return found[places]

    def _keys(
        self, config: RobomimicSourceConfig, demo: Any, info: Mapping[str, Any]
    ) -> dict[str, list[tuple[str, slice]]]:
        """obs keys that make up proprio and state, each with the columns that are taken."""
        obs, env = demo["obs"], str(info.get("env_name", ""))
        known = [key for key, shape in _shapes(obs).items() if len(shape) <= 1]
        proprio, state = config.proprio_keys, config.state_keys
        if proprio is None:
            proprio = [key for key in PROPRIO_KEYS if key in obs] or [PROPRIO_KEY] * (PROPRIO_KEY in obs)
        if state is None:
            state = (STATE_KEY,) * (STATE_KEY in obs)
            if OBJECT_KEY in obs:
                columns = pose_columns(demo, env, info, f"{self.path}: {Path(demo.name).name}")
                state = (*proprio, OBJECT_KEY + columns)
        found: dict[str, list[tuple[str, slice]]] = {"proprio": [], "state": []}
        for field, wanted in (("proprio", proprio), ("state", state)):
            for text in wanted:
                key, columns = parse_columns(text, f"data.sources.{self.name}.{field}_keys")
                if key not in known:
                    raise UserError(
                        f"data.sources.{self.name}.{field}_keys: obs has no low-dim '{key}'.{nearest(key, known)}"
                    )
                found[field].append((key, columns))
        return found

    def _read(
        self, data: Any, keys: Mapping[str, list[tuple[str, slice]]]
    ) -> tuple[dict[Kind, list[np.ndarray]], dict[int, str]]:
        """(T, n) float32 of every demonstration, none where a vector has no keys; NaN (1, n) of those that are at fault."""
        wanted = {"action": [("actions", slice(None))], **keys}
        read: dict[int, dict[str, np.ndarray]] = {}
        faults: dict[int, str] = {}
        self._pictures: dict[int, bytes] = {}
        for index, demo in enumerate(self.demos):
            try:
                with readable(self.path):
                    read[index] = self._read_demo(data[demo], f"{self.path}: {demo}", wanted)
                    self._pictures[index] = _looked_at(data[demo]["obs"][self.camera_key])
            except UserError as error:
                faults[index] = str(error)
        if not read:
            raise UserError(faults[0])
        sizes: dict[str, int] = {}
        for key in next(iter(read.values())):  # those of most demonstrations
            sizes[key] = Counter(vectors[key].shape[1] for vectors in read.values()).most_common(1)[0][0]
            for index in [index for index, vectors in read.items() if vectors[key].shape[1] != sizes[key]]:
                found = read.pop(index)[key].shape[1]
                faults[index] = f"{self.path}: {self.demos[index]}: {key} has {found} columns, others have {sizes[key]}"
        blank = {key: np.full((1, size), np.nan, np.float32) for key, size in sizes.items()}
        every = [read.get(index, blank) for index in range(len(self.demos))]
        return {kind: [vectors[kind] for vectors in every if kind in vectors] for kind in KINDS}, faults

    def _read_demo(
        self, group: Any, where: str, wanted: Mapping[str, list[tuple[str, slice]]]
    ) -> dict[str, np.ndarray]:
        _check_pictures(group, where)
        actions = group.get("actions")
        if not isinstance(actions, h5py.Dataset) or not actions.ndim:
            raise UserError(f"{where}: no actions (T, n)")
        length = len(actions)
        self._check_lengths(group, where, length)
        pieces = {
            key: [_column(group if key == "action" else group["obs"], *each, where, length) for each in columns]
            for key, columns in wanted.items()
        }
        return {key: np.concatenate(each, axis=1) for key, each in pieces.items() if each}

    def _check_lengths(self, group: Any, where: str, length: int) -> None:
        told = group.attrs.get("num_samples", length)
        if length < 1 or not np.array_equal(told, length):
            raise UserError(f"{where}: {length} actions, num_samples {told}")
        pictures = group["obs"].get(self.camera_key)
        if pictures is None or not _is_picture(pictures):
            raise UserError(f"{where}: obs/{self.camera_key} is missing, or no uint8 (T, H, W, 3)")
        if len(pictures) != length:
            raise UserError(f"{where}: {len(pictures)} frames for {length} actions")

    def _fingerprint(self) -> str:
        """Of all vectors and names, and of each demonstration's first, middle and last frame, size and stored bytes."""
        names = (self.action_names, self.proprio_names, self.state_names)
        digest = hashlib.sha256(f"{self.demos}/{self.camera_key}/{self.labelled}/{names}".encode())
        for values in (each for kind in self._vectors.values() for each in kind):
            digest.update(np.ascontiguousarray(values).tobytes())
        for index in range(len(self)):
            digest.update(b"fault" if index in self.faults else self._pictures[index])
        return digest.hexdigest()[:16]


def hdf5_file(path: Path) -> Path:
    """The file itself, or the only one of a folder. Raises UserError."""
    if path.is_file():
        return path
    found = sorted(file for file in path.glob("*") if file.suffix in SUFFIXES) if path.is_dir() else []
    if len(found) != 1:
        what = f"holds {len(found)} HDF5 files" if path.is_dir() else "no such file or folder"
        which = f": name one of {', '.join(file.name for file in found[:5])}" if found else ""
        raise UserError(f"{path}: {what}{which}")
    return found[0]


def hdf5_handle(path: Path) -> h5py.File:
    """This process's own handle; a forked worker, or a file that was replaced, gets a new one."""
    facts = path.stat()
    return _opened(path, facts.st_size, facts.st_mtime_ns, os.getpid())


def _looked_at(pictures: Any) -> bytes:
    """Of their size, their stored bytes and three of them: damage shows when it is read."""
    digest = hashlib.sha256(f"{pictures.shape}/{pictures.id.get_storage_size()}".encode())
    for frame in (0, len(pictures) // 2, len(pictures) - 1):
        digest.update(np.ascontiguousarray(pictures[frame]).tobytes())
    return digest.digest()


def _rate(info: Mapping[str, Any], path: Path) -> float:
    found = info.get("control_freq", CONTROL_HZ)
    if not isinstance(found, int | float) or not 0 < found < float("inf"):
        raise UserError(f"{path}: control_freq {found!r}, expected steps a second")
    return float(found)


def _like_most(data: Any, demos: Sequence[str]) -> str:
    """What the others are held to: the first with the shapes that most have, of those with pictures, and objects where any has."""
    seen = [demo for demo in demos if has_pictures(data.get(demo))]
    shapes = {demo: _shapes(data[demo]["obs"]) for demo in seen}
    full = [demo for demo in seen if OBJECT_KEY in shapes[demo]] or seen
    counts = Counter(frozenset(shapes[demo].items()) for demo in full)
    return max(full, key=lambda demo: (counts[frozenset(shapes[demo].items())], len(shapes[demo])), default=demos[0])


def _shapes(obs: Any) -> dict[str, tuple[int, ...]]:
    """Of each key, but for the steps."""
    return {str(key): each.shape[1:] for key, each in obs.items() if isinstance(each, h5py.Dataset) and each.ndim}


def data_group(file: h5py.File, path: Path) -> Any:
    """What holds the demonstrations. Raises UserError for another kind of file."""
    data = file.get("data")
    if not isinstance(data, h5py.Group):
        raise UserError(f"{path}: no group 'data': not a robomimic or robosuite file")
    return data


def chosen_demos(config: RobomimicSourceConfig, name: str, path: Path, file: h5py.File, data: Any) -> list[str]:
    """Names in the order of their numbers, of the chosen subset."""
    numbers = {demo: int(match[1]) for demo in map(str, data) if (match := re.fullmatch(r"demo_(\d+)", demo))}
    names = sorted(numbers, key=numbers.__getitem__)
    if not names:
        raise UserError(f"{path}: data holds no demo_N")
    if config.filter is not None:
        masks = _masks(file)
        if config.filter not in masks:
            known = nearest(config.filter, masks) or " The file has none."
            raise UserError(f"data.sources.{name}.filter: no subset '{config.filter}' in mask/.{known}")
        absent = masks[config.filter] - set(names)
        if absent:
            raise UserError(f"{path}: mask/{config.filter} names {min(absent)}, which data/ does not hold")
        names = [demo for demo in names if demo in masks[config.filter]]
        if not names:
            raise UserError(f"data.sources.{name}.filter: subset '{config.filter}' is empty")
    return names[: config.episodes]


@lru_cache(maxsize=8)
def _opened(path: Path, size: int, changed: int, process: int) -> h5py.File:
    del size, changed, process
    return h5py.File(path, "r", locking="best-effort")  # network file systems may know no locks


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What HDF5 says of a damaged file, as one line."""
    try:
        yield
    except (OSError, KeyError, RuntimeError) as error:
        text = " ".join(str(error).strip("'\"").split())[:160]
        raise UserError(f"{path}: unreadable HDF5, cut short or damaged ({text})") from error


def _check_pictures(group: Any, where: str) -> None:
    if has_pictures(group):
        return
    if has_states(group):
        raise UserError(
            f"{where} holds simulator states and no pictures: render them first (wm data convert, or robomimic's "
            "dataset_states_to_obs.py)"
        )
    raise UserError(f"{where} holds no pictures: expected obs/CAMERA_image, uint8 (T, H, W, 3)")


def has_pictures(group: Any) -> bool:
    """Whether a demonstration holds pictures of any camera."""
    obs = group.get("obs") if isinstance(group, h5py.Group) else None
    return isinstance(obs, h5py.Group) and any(_is_picture(each) for each in obs.values())


def has_states(group: Any) -> bool:
    """Whether it holds simulator states."""
    return isinstance(group, h5py.Group) and "states" in group


def _is_picture(values: Any) -> bool:
    return isinstance(values, h5py.Dataset) and values.ndim == 4 and values.shape[-1] == 3 and values.dtype == np.uint8


def _camera(config: RobomimicSourceConfig, name: str, obs: Any) -> str:
    """The obs key of the chosen camera."""
    cameras = {key.removesuffix("_image"): key for key in obs if _is_picture(obs[key])}
    wanted = config.camera
    if wanted is None:
        wanted = next(iter(cameras)) if len(cameras) == 1 else MAIN_CAMERA
        if wanted not in cameras:
            raise UserError(f"data.sources.{name}.camera: say which of {', '.join(sorted(cameras))}")
    wanted = wanted.removesuffix("_image")
    if wanted not in cameras:
        raise UserError(f"data.sources.{name}.camera: no camera '{config.camera}'.{nearest(wanted, cameras)}")
    return cameras[wanted]


def _beside(demo: Any, camera_key: str, keys: Mapping[str, list[tuple[str, slice]]]) -> tuple[str, ...]:
    """What a demonstration holds that is not read."""
    taken: dict[str, int] = {}
    for key, columns in (each for kind in keys.values() for each in kind):
        taken[key] = max(taken.get(key, 0), _two_d(demo["obs"][key][:1])[:, columns].shape[1])
    found = [str(key) for key in demo if key not in ("obs", "actions", "states")]
    for key in demo["obs"]:
        if key not in taken and key != camera_key:
            found.append(f"obs/{key}")
        elif key in taken and taken[key] < _two_d(demo["obs"][key][:1]).shape[1]:
            found.append(f"some of obs/{key}")
    return tuple(found)


def _column(group: Any, key: str, columns: slice, where: str, length: int) -> np.ndarray:
    """(length, n) float32 of one key."""
    if key not in group:
        raise UserError(f"{where}: obs has no '{key}', which other demonstrations have")
    values = _two_d(group[key])
    if values.ndim != 2 or len(values) != length or values.dtype.kind not in "biuf":
        raise UserError(f"{where}: {key} {values.dtype} {values.shape}, expected numbers ({length}, n)")
    return values[:, columns].astype(np.float32)


def _two_d(values: Any) -> np.ndarray:
    array = np.asarray(values)
    return array[:, None] if array.ndim == 1 else array


def env_info(data: Any, path: Path) -> dict[str, Any]:
    """env_name, control_freq and controllers, from robomimic's env_args or robosuite's env_info; its version, where it is told."""
    try:
        args = json.loads(data.attrs.get("env_args", "{}"))
        info = json.loads(data.attrs.get("env_info", "{}"))
        found = {**info, **args.get("env_kwargs", {}), "env_name": args.get("env_name", info.get("env_name", ""))}
        if OWN_WORLD in args:
            found[OWN_WORLD] = args[OWN_WORLD]
        version = args.get(VERSION, data.attrs.get("repository_version"))
        return found if version is None else {**found, VERSION: str(version)}
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: the attribute env_args or env_info of data is no JSON object") from error


def action_names_of(info: Mapping[str, Any], size: int) -> tuple[str, ...]:
    """Of the controller's actions where the file tells a known one, else numbered from 1."""
    if size == len(OSC_ACTIONS) and "OSC_POSE" in json.dumps(info.get("controller_configs")):
        return OSC_ACTIONS
    return tuple(f"action_{column + 1}" for column in range(size))


def _names(keys: Sequence[tuple[str, slice]], demo: Any, info: Mapping[str, Any]) -> tuple[str, ...]:
    """Of the columns: the worlds' names for what they hold too, else key and number from 1."""
    found: list[str] = []
    env, obs = str(info.get("env_name", "")), demo["obs"]
    for key, columns in keys:
        short = key.removeprefix("robot0_")
        every = [f"{short}_{number}" for number in range(1, _two_d(obs[key][:1]).shape[1] + 1)]
        poses = pose_names(env)
        start = pose_column(demo, env, info) if key == OBJECT_KEY else None
        if start is not None:
            every[start : start + len(poses)] = poses[: len(every) - start]
        found += every[columns]
    return tuple(found)


def _masks(file: h5py.File) -> dict[str, set[str]]:
    group: Any = file.get("mask", {})
    return {
        str(name): {each.decode() if isinstance(each, bytes) else str(each) for each in group[name][()].reshape(-1)}
        for name in group
    }


def demo_tags(file: h5py.File, data: Any, demos: Sequence[str]) -> list[dict[str, float]]:
    """Number, success where it is told, and `mask_NAME` (0 or 1) for every subset of the file."""
    masks = _masks(file)
    found: list[dict[str, float]] = []
    for demo in demos:
        tags = {DEMO_TAG: float(demo.removeprefix("demo_"))}
        told: Mapping[str, Any] = getattr(data.get(demo), "attrs", {})  # None where a link leads nowhere
        if "success" in told:
            tags["success"] = float(told["success"])
        found.append(tags | {f"{MASK_TAG}{name}": float(demo in members) for name, members in sorted(masks.items())})
    return found
