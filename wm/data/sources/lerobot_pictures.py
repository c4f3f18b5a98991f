"""Pictures that a LeRobot data set keeps in its data files: a column of {bytes, path}, each PNG or JPEG, where there is no video.

Read with pyarrow, row group by row group and only as far as the rows that are asked for; decoded with Pillow, as lerobot does.
Source: lerobot 0.4.4, datasets/lerobot_dataset.py (`use_videos=False`); huggingface datasets, features/image.py.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from wm.config.errors import UserError
from wm.data.sources.lerobot_layout import Place, read_table

ROWS_AT_ONCE = 16  # pictures held encoded while a row group is read
COLOUR_MODES = ("RGB", "RGBA", "P", "CMYK", "YCbCr")


class Pictures:
    """Those of one camera.

    Args:
        folder: of the data set.
        places: of the episodes whose data files can be read.
        key: the camera's feature.

    Raises:
        UserError: a data file is damaged, or its column holds no pictures.
    """

    def __init__(self, folder: Path, places: Sequence[Place], key: str) -> None:
        self.folder = folder
        self.key = key
        self._rows: dict[int, np.ndarray] = {}  # number of an episode -> where in its file each frame is
        for file in dict.fromkeys(place.data for place in places):
            _check_column(folder / file, key)
            table = read_table(folder / file, ["episode_index", "frame_index"])
            numbers, frames = (np.asarray(table[name].to_numpy()) for name in table.column_names)
            order = np.lexsort((frames, numbers))
            found, starts = np.unique(numbers[order], return_index=True)
            self._rows |= dict(zip(found.tolist(), np.split(order, starts[1:]), strict=True))

    def episode(self, place: Place) -> EpisodePictures:
        """Of one of the places."""
        return EpisodePictures(self.folder / place.data, self.key, place.number, self._rows[place.number])


class EpisodePictures:
    """The pictures of one episode, in the order of its frames.

    Args:
        path: the data file.
        rows: of the file, one for each frame.
    """

    def __init__(self, path: Path, key: str, number: int, rows: np.ndarray) -> None:
        self.path = path
        self._key = key
        self._number = number
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """uint8 (n, H, W, 3), RGB. Raises IndexError beyond the end, UserError for a picture that cannot be read."""
        wanted = np.asarray(indices, np.int64).reshape(-1)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise IndexError(f"frames {wanted.min()}..{wanted.max()} of {len(self)} in episode {self._number}")
        frames, places = np.unique(wanted, return_inverse=True)
        encoded = _encoded(self.path, self._key, self._rows[frames])
        pictures = [self._decoded(*each) for each in zip(encoded, frames.tolist(), strict=True)]
        for frame, picture in zip(frames, pictures, strict=True):
            if picture.shape != pictures[0].shape:
                here, there = (f"{each.shape[0]} x {each.shape[1]}" for each in (picture, pictures[0]))
                raise UserError(f"{self._where(frame)} is {here}, frame {frames[0]} {there}")
        return np.stack(pictures)[places] if pictures else np.zeros((0, 0, 0, 3), np.uint8)

    def _decoded(self, data: bytes | None, frame: int) -> np.ndarray:
        if not data:
            raise UserError(f"{self._where(frame)} has no bytes; pictures beside the data files are not read")
        try:
            with Image.open(io.BytesIO(data)) as picture:
                if picture.mode not in (*COLOUR_MODES, "L"):
                    raise UserError(f"{self._where(frame)} is of mode {picture.mode}: depth? Only 8-bit colour is read")
                return np.array(picture.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            text = " ".join(str(error).split())[:120]
            raise UserError(f"{self._where(frame)} cannot be decoded ({text})") from error

    def _where(self, frame: int) -> str:
        return f"{self.path}: {self._key}: frame {frame} of episode {self._number}"


def _check_column(file: Path, key: str) -> None:
    schema = _metadata(file).schema.to_arrow_schema()
    kind = schema.field(key).type if key in schema.names else None
    if kind is None or not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        found = "is missing" if kind is None else f"is {kind}"
        raise UserError(f"{file}: {key} {found}, expected pictures: a struct of bytes and path")


def _metadata(file: Path) -> pq.FileMetaData:
    try:
        facts = file.stat()
        return _read_metadata(file, facts.st_size, facts.st_mtime_ns)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(file, error) from error


@lru_cache(maxsize=64)
def _read_metadata(file: Path, size: int, changed: int) -> pq.FileMetaData:
    del size, changed
    return pq.read_metadata(file)


def _encoded(file: Path, key: str, rows: np.ndarray) -> list[bytes | None]:
    """The pictures of some rows of a file, in that order, as they are stored."""
    found: dict[int, bytes | None] = {}
    metadata = _metadata(file)
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    groups = np.searchsorted(starts, rows, side="right") - 1
    try:
        with pq.ParquetFile(file, metadata=metadata) as opened:
            for group in np.unique(groups).tolist():
                inside = np.sort(rows[groups == group]) - starts[group]
                seen = 0
                batches = opened.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=[f"{key}.bytes"])
                for batch in batches:
                    here = inside[(inside >= seen) & (inside < seen + len(batch))]
                    column: Any = batch.column(0).field("bytes")
                    for row in here.tolist():
                        found[int(starts[group]) + row] = column[row - seen].as_py()
                    seen += len(batch)
                    if seen > inside[-1]:
                        break
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(file, error) from error
    return [found[row] for row in rows.tolist()]


def _unreadable(file: Path, error: Exception) -> UserError:
    return UserError(f"{file}: unreadable parquet, missing or damaged ({' '.join(str(error).split())[:160]})")
