"""LeRobot data sets, formats v3.0 and v2.x (layout: wm/data/sources/lerobot_layout.py), from a folder or the hub.

Read with pyarrow and our own video reader, not with lerobot: lerobot 0.4.4 refuses v2.1, takes seconds to import, and gives single
frames; a test holds every number and pixel against it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from wm.config.data import LerobotSourceConfig
from wm.config.errors import UserError, nearest
from wm.data.sources.columns import parse_columns
from wm.data.sources.file_source import FileSource, Kind
from wm.data.sources.lerobot_hub import Hub
from wm.data.sources.lerobot_layout import LerobotLayout, Place, read_table
from wm.data.sources.video_file import VideoFile

CAMERA_PREFIXES = ("observation.images.", "observation.image.", "observation.")
MAIN_CAMERA = "main"
DEFAULT_KEYS = {"action": "action", "proprio": "observation.state", "state": "observation.environment_state"}
BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "task_index")
TAGS = {"workspace_id": "workspace_id", "next.success": "success"}  # column -> tag, where there is one
TOLERANCE_S = 1e-3  # timestamps are float32: at an hour they are exact to 0.2 ms


class LerobotSource(FileSource):
    """A data set. Raises UserError for another layout, missing files, NaN, and timestamps that are not frame / fps."""

    def __init__(self, config: LerobotSourceConfig, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.labelled = config.labels == "all"
        hub = Hub(config.path, folder, config.revision)
        hub.fetch_meta()
        layout = LerobotLayout(folder)
        self.fps = layout.fps
        self.camera_key = _camera(layout, config.camera, name)
        self.tasks: Mapping[int, str] = layout.tasks()
        self.places: Sequence[Place] = layout.places(self.camera_key, config.episodes)
        hub.fetch(dict.fromkeys([*(p.data for p in self.places), *(p.video for p in self.places)]))
        self.lengths: Sequence[int] = [place.length for place in self.places]
        keys = _keys(config, layout, name)
        rows = _Rows(folder, self.places, keys, [tag for tag in TAGS if tag in layout.features])
        rows.check_times(self.fps)
        self.tags: Sequence[Mapping[str, float]] = rows.tags(self.tasks)
        self._vectors = {key: rows.vectors(key, columns) for key, columns in keys.items()}
        self.action_names, self.proprio_names, self.state_names = (
            tuple(name for key, taken in keys[kind] for name in _names(layout.features, key)[taken])
            for kind in DEFAULT_KEYS
        )
        used = {
            *BOOKKEEPING,
            "index",
            *TAGS,
            self.camera_key,
            *(key for columns in keys.values() for key, _ in columns),
        }
        self.beside: tuple[str, ...] = tuple(key for key in layout.features if key not in used)
        self.fingerprint: str = self._fingerprint()

    @property
    def camera(self) -> str:
        """Its name."""
        return _short(self.camera_key)

    def label(self, index: int) -> str:
        return f"{self.places[index].number:06d}"

    def task(self, index: int) -> str:
        return self.tasks[int(self.tags[index]["task"])]

    def vector(self, kind: Kind, index: int) -> np.ndarray | None:
        values = self._vectors[kind]
        return values[index] if values else None

    def frames(self, index: int, rows: np.ndarray) -> np.ndarray:
        return self.video(index).frames(rows)

    def video(self, index: int) -> VideoFile:
        """The part of a video that is this episode's. Raises UserError when it has other frames than the episode."""
        place = self.places[index]
        start = place.start_s
        span = (0.0, None) if start is None else (start, start + place.length / self.fps)
        video = VideoFile(self.folder / place.video, *span)
        if len(video) != place.length:
            raise UserError(f"{video.path}: {len(video)} frames for the {place.length} rows of episode {place.number}")
        late = np.abs(video.times - np.arange(place.length) / self.fps).max()
        if late > 0.5 / self.fps:
            raise UserError(f"{video.path}: frames come up to {late:.3f} s off frame / {self.fps:g} fps: another rate?")
        return video

    def _fingerprint(self) -> str:
        """Of every vector and name, and of each video's name, size and the episodes' places in it."""
        names = (self.action_names, self.proprio_names, self.state_names)
        digest = hashlib.sha256(f"{self.camera_key}/{self.fps}/{self.labelled}/{names}/{self.tags}".encode())
        for values in (each for kind in self._vectors.values() for each in kind):
            digest.update(np.ascontiguousarray(values).tobytes())
        sizes = {video: (self.folder / video).stat().st_size for video in {place.video for place in self.places}}
        for place in self.places:
            digest.update(f"{place}/{sizes[place.video]}".encode())
        return digest.hexdigest()[:16]


class _Rows:
    """The rows of the chosen episodes, one after another in the order of their frames."""

    def __init__(
        self,
        folder: Path,
        places: Sequence[Place],
        keys: Mapping[str, Sequence[tuple[str, slice]]],
        tags: Sequence[str],
    ) -> None:
        self.folder = folder
        self.places = places
        wanted = dict.fromkeys([*BOOKKEEPING, *tags, *(key for columns in keys.values() for key, _ in columns)])
        files = [folder / file for file in dict.fromkeys(place.data for place in places)]
        tables = [(file, read_table(file, list(wanted))) for file in files]
        every = {key: _joined(key, [(file, _column(table, key, file)) for file, table in tables]) for key in wanted}
        numbers, frames = every["episode_index"][:, 0], every["frame_index"][:, 0]
        order = np.lexsort((frames, numbers))
        order = order[np.isin(numbers[order], [place.number for place in places])]
        self._columns = {key: values[order] for key, values in every.items()}
        bounds = np.searchsorted(numbers[order], [place.number for place in places])
        self._spans = [slice(start, start + place.length) for start, place in zip(bounds, places, strict=True)]
        counts = np.diff([*bounds, len(order)])
        for place, count, span in zip(places, counts, self._spans, strict=True):
            if count != place.length or (frames[order][span] != np.arange(count)).any():
                raise UserError(
                    f"{folder / place.data}: episode {place.number} has {count} rows, expected {place.length}"
                )

    def vectors(self, kind: str, columns: Sequence[tuple[str, slice]]) -> list[np.ndarray]:
        """float32 (T, n) of each episode; nothing where there are no columns."""
        if not columns:
            return []
        values = np.concatenate([self._columns[key][:, taken] for key, taken in columns], axis=1).astype(np.float32)
        found = [values[span] for span in self._spans]
        for place, each in zip(self.places, found, strict=True):
            if not np.isfinite(each).all():
                raise UserError(f"{self.folder / place.data}: {kind} of episode {place.number} holds NaN or infinity")
        return found

    def check_times(self, fps: float) -> None:
        """Raises UserError when a timestamp is not frame / fps."""
        for place, span in zip(self.places, self._spans, strict=True):
            late = np.abs(self._columns["timestamp"][span, 0] - np.arange(place.length) / fps)
            if not late.max() <= TOLERANCE_S:
                raise UserError(
                    f"{self.folder / place.data}: timestamps of episode {place.number} are up to {late.max():.3f} s off frame / "
                    f"{fps:g} fps, first at frame {int(np.argmax(~(late <= TOLERANCE_S)))}: a wrong fps, or frames are missing"
                )

    def tags(self, tasks: Mapping[int, str]) -> list[dict[str, float]]:
        """Of each episode: `task`, its number, and what else the files tell; `success` if it was so at some frame."""
        found: list[dict[str, float]] = []
        for place, span in zip(self.places, self._spans, strict=True):
            task = int(self._columns["task_index"][span.start, 0])
            if task not in tasks:
                raise UserError(
                    f"{self.folder / place.data}: episode {place.number} is of task {task}, which meta lacks"
                )
            tags = {"task": float(task)}
            tags |= {name: float(self._columns[key][span].max()) for key, name in TAGS.items() if key in self._columns}
            found.append(tags)
        return found


def _joined(key: str, pieces: Sequence[tuple[Path, np.ndarray]]) -> np.ndarray:
    width = pieces[0][1].shape[1]
    for file, values in pieces:
        if values.shape[1] != width:
            raise UserError(f"{file}: {key} has {values.shape[1]} columns, but {width} in {pieces[0][0].name}")
    return np.concatenate([values for _, values in pieces])


def _column(table: pa.Table, key: str, file: Path) -> np.ndarray:
    """(rows, n) of one column."""
    column: Any = table[key].combine_chunks()
    width = 1
    if pa.types.is_fixed_size_list(column.type) or pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        sizes = set(column.value_lengths().unique().to_pylist())
        if len(sizes) != 1 or None in sizes:
            raise UserError(f"{file}: {key} has vectors of several sizes")
        width, column = sizes.pop(), column.flatten()
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise UserError(f"{file}: {key} holds {kind}, expected numbers or vectors of them")
    return np.asarray(column.to_numpy(zero_copy_only=False)).reshape(-1, width)


def _camera(layout: LerobotLayout, wanted: str | None, name: str) -> str:
    """The feature of the chosen camera, given by that or by its last part."""
    cameras = {_short(key): key for key in layout.cameras}
    if not cameras:
        why = "holds its pictures as images, and only videos are read" if layout.pictures else "holds no video"
        raise UserError(f"{layout.folder}: {why}")
    if wanted is None:
        wanted = next(iter(cameras)) if len(cameras) == 1 else MAIN_CAMERA
        if wanted not in cameras:
            raise UserError(f"data.sources.{name}.camera: say which of {', '.join(sorted(cameras))}")
    if wanted in layout.cameras:
        return wanted
    if wanted not in cameras:
        raise UserError(f"data.sources.{name}.camera: no camera '{wanted}'.{nearest(wanted, cameras)}")
    return cameras[wanted]


def _short(key: str) -> str:
    """A camera's feature without what all of them begin with."""
    return key.removeprefix(next((prefix for prefix in CAMERA_PREFIXES if key.startswith(prefix)), ""))


def _keys(config: LerobotSourceConfig, layout: LerobotLayout, name: str) -> dict[str, list[tuple[str, slice]]]:
    """Features that make up action, proprio and state, each with the columns that are taken."""
    known = [key for key, each in layout.features.items() if each["dtype"] not in ("video", "image", "string")]
    found: dict[str, list[tuple[str, slice]]] = {}
    for kind, default in DEFAULT_KEYS.items():
        wanted: tuple[str, ...] | None = getattr(config, f"{kind}_keys")
        if wanted is None:
            wanted = (default,) if default in known else ()
        path = f"data.sources.{name}.{kind}_keys"
        found[kind] = [parse_columns(text, path) for text in wanted]
        for key, _ in found[kind]:
            if key not in known:
                raise UserError(f"{path}: the data set has no '{key}'.{nearest(key, known)}")
    return found


def _names(features: Mapping[str, Mapping[str, Any]], key: str) -> tuple[str, ...]:
    """Of a feature's columns: its own names, in whatever form they come, else the feature's and numbers from 1."""
    size = int(np.prod(features[key]["shape"]))
    names: Any = features[key].get("names")
    while isinstance(names, dict | list) and len(names) == 1:  # {"motors": [...]}, [[...]]
        (inner,) = names.values() if isinstance(names, dict) else names
        if not isinstance(inner, dict | list):
            break
        names = inner
    if isinstance(names, dict):  # name -> column
        names = sorted(names, key=lambda each: str(names[each]).zfill(9))
    if isinstance(names, list) and len(names) == size and all(isinstance(each, str) for each in names):
        return tuple(names)
    return tuple(f"{key.rsplit('.', 1)[-1]}_{number}" for number in range(1, size + 1))
