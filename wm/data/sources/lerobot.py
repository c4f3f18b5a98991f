"""LeRobot data sets, formats v3.0 and v2.x (layout: wm/data/sources/lerobot_layout.py), from a folder or the hub.

Read with pyarrow and our own video reader, not with lerobot: lerobot 0.4.4 refuses v2.1, takes seconds to import, and gives single
frames; a test holds every number and pixel against it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from wm.config.data import LerobotSourceConfig
from wm.config.errors import UserError, nearest
from wm.data.sources.columns import parse_columns
from wm.data.sources.file_source import FileSource, Kind, sampled
from wm.data.sources.lerobot_hub import Hub
from wm.data.sources.lerobot_layout import INFO, LAYOUT_PREFIX, LerobotLayout, Place, read_table
from wm.data.sources.lerobot_pictures import EpisodePictures, Pictures
from wm.data.sources.video_file import VideoFile

CAMERA_PREFIXES = ("observation.images.", "observation.image.", "observation.")
MAIN_CAMERA = "main"
DEFAULT_KEYS = {"action": "action", "proprio": "observation.state", "state": "observation.environment_state"}
BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "task_index")
SUCCESS = "next.success"
TAGS = {"workspace_id": "workspace_id", SUCCESS: "success"}  # column -> tag, where there is one
MOST_COLUMNS = 100_000  # of a vector
TOLERANCE_S = 1e-3  # timestamps are float32: at an hour they are exact to 0.2 ms


class LerobotSource(FileSource):
    """A data set. Raises UserError for another layout. Missing files and timestamps that are not frame / fps are faults."""

    def __init__(self, config: LerobotSourceConfig, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.labelled = config.labels == "all"
        hub = Hub(config.path, folder, config.revision)
        hub.fetch_meta()
        layout = LerobotLayout(folder)
        self.fps = layout.fps
        self.camera_key = choose_camera(layout, config.camera, f"data.sources.{name}.camera")
        self.tasks: Mapping[int, str] = layout.tasks()
        self.places: Sequence[Place] = layout.places(self.camera_key, config.episodes)
        hub.fetch(dict.fromkeys([*(p.data for p in self.places), *(p.video for p in self.places)]))
        self.lengths: Sequence[int] = [place.length for place in self.places]
        keys = _keys(config, layout, name)
        faults = {
            index: f"{folder / file}: missing, but meta names it"
            for index, place in enumerate(self.places)
            for file in (place.video, place.data)
            if not (folder / file).is_file()
        }
        told = {key: name for key, name in TAGS.items() if key in layout.features}
        told |= {key: key.removeprefix(LAYOUT_PREFIX) for key in layout.features if key.startswith(LAYOUT_PREFIX)}
        rows = _Rows(folder, self.places, keys, told, faults)
        rows.check_times(self.fps)
        there = [place for index, place in enumerate(self.places) if index not in rows.faults]
        self._pictures = Pictures(folder, there, self.camera_key) if self.camera_key in layout.pictures else None
        self.tags: Sequence[Mapping[str, float]] = rows.tags(self.tasks)
        self._vectors = {key: rows.vectors(columns) for key, columns in keys.items()}
        self.action_names, self.proprio_names, self.state_names = (
            tuple(name for key, taken in keys[kind] for name in _names(layout.features, key)[taken])
            for kind in DEFAULT_KEYS
        )
        used = {
            *BOOKKEEPING,
            "index",
            *told,
            self.camera_key,
            *(key for columns in keys.values() for key, _ in columns),
        }
        self.beside: tuple[str, ...] = tuple(key for key in layout.features if key not in used)
        self.beside += tuple(f"{key} frame by frame" for key in layout.features if key == SUCCESS)
        self.note_faults(folder, rows.faults)
        self.fingerprint: str = self._fingerprint()

    @property
    def camera(self) -> str:
        """Its name."""
        return _short(self.camera_key)

    def label(self, index: int) -> str:
        return f"{self.places[index].number:06d}"

    def frame_file(self, index: int) -> Path:
        return self.folder / self.places[index].video

    def origin(self, index: int) -> tuple[Path, str]:
        return self.folder / self.places[index].data, self.label(index)

    def task(self, index: int) -> str:
        return self.tasks[int(self.tags[index]["task"])]

    def vector(self, kind: Kind, index: int) -> np.ndarray | None:
        values = self._vectors[kind]
        return values[index] if values else None

    def frames(self, index: int, rows: np.ndarray) -> np.ndarray:
        return self.video(index).frames(rows)

    def video(self, index: int) -> VideoFile | EpisodePictures:
        """The part of a video that is this episode's, or its pictures. Raises UserError when it has other frames than the
        episode.
        """
        place = self.places[index]
        if self._pictures is not None:
            return self._pictures.episode(place)
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
        """Of every vector and name, the episodes' places, and each video's size and a part of its content."""
        names = (self.action_names, self.proprio_names, self.state_names)
        digest = hashlib.sha256(f"{self.camera_key}/{self.fps}/{self.labelled}/{names}/{self.tags}".encode())
        for values in (each for kind in self._vectors.values() for each in kind):
            digest.update(np.ascontiguousarray(values).tobytes())
        for place in self.places:
            digest.update(f"{place}".encode())
        for video in dict.fromkeys(place.video for place in self.places):
            digest.update(sampled(self.folder / video))
        return digest.hexdigest()[:16]


class _Rows:
    """The rows of the chosen episodes, one after another in the order of their frames.

    Args:
        faults: of the episodes that are known to have none. Those whose rows cannot be read, or are not those that meta
            promises, are added; their vectors are NaN.
    """

    def __init__(
        self,
        folder: Path,
        places: Sequence[Place],
        keys: Mapping[str, Sequence[tuple[str, slice]]],
        tags: Mapping[str, str],
        faults: Mapping[int, str],
    ) -> None:
        self.folder = folder
        self._tags = tags
        self.places = places
        wanted = dict.fromkeys([*BOOKKEEPING, *tags, *(key for columns in keys.values() for key, _ in columns)])
        self.faults = dict(faults)
        every = self._joined(self._tables(list(wanted)))
        numbers, frames = every["episode_index"][:, 0], every["frame_index"][:, 0]
        order = np.lexsort((frames, numbers))
        order = order[np.isin(numbers[order], [place.number for place in places])]
        self._columns = {key: values[order] for key, values in every.items()}
        bounds = np.searchsorted(numbers[order], [place.number for place in places])
        counts = np.diff([*bounds, len(order)])
        self._spans = [slice(start, start + count) for start, count in zip(bounds, counts, strict=True)]
        for index, (place, count, span) in enumerate(zip(places, counts, self._spans, strict=True)):
            if count != place.length or (frames[order][span] != np.arange(count)).any():
                self._fault(index, f"has {count} rows, expected {place.length}")

    def vectors(self, columns: Sequence[tuple[str, slice]]) -> list[np.ndarray]:
        """float32 (T, n) of each episode; nothing where there are no columns."""
        if not columns:
            return []
        values = np.concatenate([self._columns[key][:, taken] for key, taken in columns], axis=1).astype(np.float32)
        return [
            np.full((place.length, values.shape[1]), np.nan, np.float32) if index in self.faults else values[span]
            for index, (place, span) in enumerate(zip(self.places, self._spans, strict=True))
        ]

    def check_times(self, fps: float) -> None:
        """Adds the episodes with a timestamp that is not frame / fps."""
        for index, (place, span) in self._sound():
            late = np.abs(self._columns["timestamp"][span, 0] - np.arange(place.length) / fps)
            if not late.max() <= TOLERANCE_S:
                self._fault(
                    index,
                    f"has timestamps up to {late.max():.3f} s off frame / {fps:g} fps, first at frame "
                    f"{int(np.argmax(~(late <= TOLERANCE_S)))}: a wrong fps, or frames are missing",
                )

    def tags(self, tasks: Mapping[int, str]) -> list[dict[str, float]]:
        """Of each episode: `task`, its number, and what else the files tell; `success` if it was so at some frame."""
        found: list[dict[str, float]] = [{} for _ in self.places]
        for index, (_, span) in self._sound():
            task = int(self._columns["task_index"][span.start, 0])
            if task not in tasks:
                self._fault(index, f"is of task {task}, which meta lacks")
            found[index]["task"] = float(task)
            found[index] |= {name: float(self._columns[key][span].max()) for key, name in self._tags.items()}
        return found

    def _sound(self) -> list[tuple[int, tuple[Place, slice]]]:
        every = enumerate(zip(self.places, self._spans, strict=True))
        return [(index, each) for index, each in every if index not in self.faults]

    def _fault(self, index: int, text: str) -> None:
        place = self.places[index]
        self.faults.setdefault(index, f"{self.folder / place.data}: episode {place.number} {text}")

    def _tables(self, columns: list[str]) -> dict[str, dict[str, np.ndarray]]:
        """Column -> (rows, n) of every file that can be read. Raises UserError when none can."""
        found: dict[str, dict[str, np.ndarray]] = {}
        for name in dict.fromkeys(place.data for place in self.places):
            file = self.folder / name
            if not file.is_file():
                continue
            try:
                table = read_table(file, columns)
                found[name] = {key: _column(table, key, file) for key in columns}
            except UserError as error:
                self._lose(name, str(error))
        if not found:
            raise UserError(next(iter(self.faults.values())))
        return found

    def _joined(self, tables: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Of the files whose columns are as wide as most files'; the others' episodes are faults."""
        widths = {name: {key: values.shape[1] for key, values in table.items()} for name, table in tables.items()}
        (common, _), *_ = Counter(tuple(each.values()) for each in widths.values()).most_common()
        told = dict(zip(next(iter(widths.values())), common, strict=True))
        for name, each in widths.items():
            key = next((key for key in each if each[key] != told[key]), None)
            if key is not None:
                self._lose(name, f"{self.folder / name}: {key} has {each[key]} columns, others have {told[key]}")
        sound = [tables[name] for name in tables if widths[name] == told]
        return {key: np.concatenate([table[key] for table in sound]) for key in told}

    def _lose(self, name: str, why: str) -> None:
        """Every episode of a file is a fault."""
        for index, place in enumerate(self.places):
            if place.data == name:
                self.faults.setdefault(index, why)


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


def choose_camera(layout: LerobotLayout, wanted: str | None, where: str) -> str:
    """The feature of the chosen camera, given by that or by its last part. Raises UserError, naming `where` it is chosen."""
    cameras = {_short(key): key for key in layout.cameras}
    if not cameras:
        why = (
            f"only depth ({', '.join(layout.depth)}), and colour is read"
            if layout.depth
            else "no video and no pictures"
        )
        raise UserError(f"{layout.folder}: holds {why}")
    if wanted is None:
        wanted = next(iter(cameras)) if len(cameras) == 1 else MAIN_CAMERA
        if wanted not in cameras:
            raise UserError(f"{where}: say which of {', '.join(sorted(cameras))}")
    if wanted in layout.cameras:
        return wanted
    if wanted in (*layout.depth, *map(_short, layout.depth)):
        raise UserError(f"{where}: '{wanted}' is depth, or not of three channels, and colour is read")
    if wanted not in cameras:
        raise UserError(f"{where}: no camera '{wanted}'.{nearest(wanted, cameras)}")
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
        path = f"data.sources.{name}.{kind}_keys"
        if wanted is None:
            wanted = (default,) if default in known else ()
            alike = [key for key in known if key.startswith((f"{default}.", f"{default}s."))]
            if not wanted and alike and config.labels == "all":  # as in airoa-moma and agibot
                raise UserError(f"{path}: no '{default}', but {', '.join(alike)}: say which of them, or [] for none")
        found[kind] = [parse_columns(text, path) for text in wanted]
        for key, _ in found[kind]:
            if key not in known:
                raise UserError(f"{path}: the data set has no '{key}'.{nearest(key, known)}")
    return found


def _names(features: Mapping[str, Mapping[str, Any]], key: str) -> tuple[str, ...]:
    """Of a feature's columns: its own names, in whatever form they come, else the feature's and numbers from 1."""
    size = int(np.prod(features[key]["shape"]))
    if not 0 < size <= MOST_COLUMNS:
        raise UserError(f"{INFO}: {key} has shape {features[key]['shape']}, expected at most {MOST_COLUMNS} numbers")
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
