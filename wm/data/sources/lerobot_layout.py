"""Where a LeRobot data set keeps what: its meta folder, in the formats v3.0 and v2.x.

    v3.0  meta/info.json  meta/tasks.parquet  meta/episodes/*/*.parquet: many episodes a data file and a video
          data/chunk-{:03d}/file-{:03d}.parquet  videos/KEY/chunk-{:03d}/file-{:03d}.mp4
    v2.x  meta/info.json  meta/tasks.jsonl  meta/episodes.jsonl: one data file and one video a camera an episode
          data/chunk-{:03d}/episode_{:06d}.parquet  videos/chunk-{:03d}/KEY/episode_{:06d}.mp4

Pictures that are no videos are a column of the data files. info.json names the version, fps, features and the two patterns of
paths. Source: lerobot 0.4.4, datasets/lerobot_dataset.py and datasets/v30/convert_dataset_v21_to_v30.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wm.config.errors import UserError

INFO = "meta/info.json"
_PATTERN = re.compile(r"(?:[^{}]|\{[a-z_]+(?::0?\d{1,2}d)?\})+")  # of its paths: fields by name, with at most 99 digits
MAJORS = {"v2": 2, "v3": 3}
LAYOUT_PREFIX = "layout."  # ours: one number an episode, in every frame
CHANNEL_WORDS = ("channel", "channels", "rgb", "c")


@dataclass(frozen=True)
class Place:
    """Where one episode is.

    Args:
        number: its `episode_index`.
        length: frames.
        data, video: files, relative to the data set; where there is no video, the data file has the pictures.
        start_s: when it begins in the video; None where the video is its own.
    """

    number: int
    length: int
    data: str
    video: str
    start_s: float | None


class LerobotLayout:
    """What info.json says. Raises UserError for a folder that is no LeRobot data set, or of another version."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        info = _json(folder / INFO)
        version = str(info.get("codebase_version", ""))
        self.major = MAJORS.get(version.split(".")[0], 0)
        if not self.major:
            raise UserError(f"{folder / INFO}: codebase_version '{version}'; v3.0, v2.1 and v2.0 are read")
        try:
            self.fps = float(info["fps"])
            self.features: Mapping[str, Mapping[str, Any]] = dict(info["features"])
            self.total = int(info["total_episodes"])
            self._chunks_size = int(info.get("chunks_size", 1000))
            self._patterns = {key: str(info[f"{key}_path"]) for key in ("data", "video")}
            seen = [key for key, each in self.features.items() if each["dtype"] in ("video", "image")]
            cameras = [key for key in seen if is_colour(self.features[key])]
            self.pictures = [key for key in seen if self.features[key]["dtype"] == "image"]
            self.depth = [key for key in seen if key not in cameras]
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(f"{folder / INFO}: not LeRobot's ({error!r})") from error
        if not 0 < self.fps < float("inf") or self._chunks_size < 1:
            raise UserError(f"{folder / INFO}: fps {self.fps:g}, chunks_size {self._chunks_size}")
        for pattern in self._patterns.values():
            if not _PATTERN.fullmatch(pattern) or len(pattern) > 500:
                raise UserError(
                    f"{folder / INFO}: the path '{pattern[:80]}' is no name with fields as {{episode_index:06d}}"
                )
        self.cameras: Sequence[str] = cameras  # of colour

    def tasks(self) -> dict[int, str]:
        """The tasks in words, by number."""
        if self.major == 2:
            rows = _lines(self.folder / "meta/tasks.jsonl")
        else:
            rows = read_table(self.folder / "meta/tasks.parquet").to_pylist()
        found: dict[int, str] = {}
        for row in rows:
            number = row.pop("task_index", None)
            words = [value for value in row.values() if isinstance(value, str)]
            if not isinstance(number, int) or len(words) != 1:
                raise UserError(f"{self.folder}/meta/tasks: expected a task_index and a task in each row")
            found[number] = words[0]
        return found

    def places(self, camera: str, most: int | None) -> list[Place]:
        """The episodes by number, at most so many."""
        every = self._places_v2(camera) if self.major == 2 else self._places_v3(camera)
        every.sort(key=lambda place: place.number)
        numbers = {place.number for place in every}
        if len(every) != self.total or len(numbers) != self.total or not every:
            raise UserError(f"{self.folder}/meta: {len(numbers)} episodes, but info.json says {self.total}")
        return every[:most]

    def _places_v2(self, camera: str) -> list[Place]:
        found: list[Place] = []
        for row in _lines(self.folder / "meta/episodes.jsonl"):
            with _well_formed(self.folder / "meta/episodes.jsonl"):
                number = int(row["episode_index"])
                facts = {"episode_chunk": number // self._chunks_size, "episode_index": number, "video_key": camera}
                data = self._path("data", facts)
                video = data if camera in self.pictures else self._path("video", facts)
                found.append(Place(number, int(row["length"]), data, video, None))
        return found

    def _places_v3(self, camera: str) -> list[Place]:
        files = sorted((self.folder / "meta/episodes").glob("*/*.parquet"))
        of_episode, of_data = ["episode_index", "length"], [f"data/{key}_index" for key in ("chunk", "file")]
        of_video = [f"videos/{camera}/{key}" for key in ("chunk_index", "file_index", "from_timestamp", "to_timestamp")]
        found: list[Place] = []
        if camera in self.pictures:
            for row in (row for file in files for row in read_table(file, [*of_episode, *of_data]).to_pylist()):
                number, length, chunk, index = row.values()
                data = self._path("data", {"chunk_index": chunk, "file_index": index})
                found.append(Place(number, length, data, data, None))
            return found
        for file in files:
            for row in read_table(file, [*of_episode, *of_data, *of_video]).to_pylist():
                number, length, *values = row.values()
                chunk, index, video_chunk, video_index, start, end = values
                data = self._path("data", {"chunk_index": chunk, "file_index": index})
                where = {"chunk_index": video_chunk, "file_index": video_index, "video_key": camera}
                if abs(end - start - length / self.fps) > 0.5 / self.fps:
                    raise UserError(
                        f"{file}: episode {number} has {length} frames at {self.fps:g} fps, but {end - start:.3f} s of video"
                    )
                found.append(Place(number, length, data, self._path("video", where), start))
        return found

    def _path(self, kind: str, facts: Mapping[str, Any]) -> str:
        try:
            path = self._patterns[kind].format(**facts)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise UserError(f"{self.folder / INFO}: {kind}_path '{self._patterns[kind]}' ({error!r})") from error
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise UserError(f"{self.folder / INFO}: {kind}_path leads out of the data set: {path}")
        return path


def read_table(file: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Some columns of a parquet file. Raises UserError naming the file when it is missing, damaged or lacks one."""
    try:
        found = pq.ParquetFile(file)
        absent = [] if columns is None else [name for name in columns if name not in found.schema_arrow.names]
        if absent:
            raise UserError(f"{file}: no column '{absent[0]}'")
        return found.read(None if columns is None else list(columns))
    except (OSError, pa.ArrowException) as error:
        text = " ".join(str(error).split())[:160]
        raise UserError(f"{file}: unreadable parquet, missing or damaged ({text})") from error


def is_colour(feature: Mapping[str, Any]) -> bool:
    """Whether a feature of dtype video or image has three channels and is no depth map, as far as info.json says."""
    told: Any = feature.get("info") or feature.get("video_info") or {}
    if told.get("video.is_depth_map") or told.get("is_depth_map"):
        return False
    shape, names = list(feature.get("shape") or ()), feature.get("names")
    if isinstance(names, list) and len(names) == len(shape):
        channels = [size for name, size in zip(names, shape, strict=True) if str(name).lower() in CHANNEL_WORDS]
        return channels in ([], [3])
    return len(shape) != 3 or 3 in (shape[0], shape[-1])


@contextmanager
def _well_formed(file: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: a row is not LeRobot's ({error!r})") from error


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{file}: unreadable ({text}): not a LeRobot data set, or a damaged one") from error
    if not isinstance(found, dict):
        raise UserError(f"{file}: expected a JSON object")
    return found


def _lines(file: Path) -> list[dict[str, Any]]:
    try:
        found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: unreadable ({error})") from error
    if not all(isinstance(row, dict) for row in found):
        raise UserError(f"{file}: expected a JSON object in each line")
    return found
