"""Episodes that cannot be used: found before a run, left out by name up to a share, or the run stops."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wm.config.errors import UserError
from wm.data.atomic import write_json
from wm.data.sources.file_source import FileSource
from wm.data.sources.precomputed import PrecomputedSource


class FaultyEpisode(NamedTuple):
    """One that is left out, and why."""

    source: str
    episode: int
    id: str
    reason: str


def find_faults(source: FileSource, folder: Path, one_size: bool = False) -> dict[int, str]:
    """Faults that opening shows, and episodes whose first or last frame cannot be read.

    They are tried once; what came of it is kept in `folder`, until a file changes or is found elsewhere. Damage in the middle of
    a video shows only when its frames are decoded: it stops the run then, by name.

    Args:
        one_size: frames are to lie side by side in a batch: episodes of another size than most are faults, too.
    """
    file = folder / f"{source.fingerprint}_{_stamp(source)}{'_one_size' * one_size}.json"
    if not file.is_file():
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            tried = list(pool.map(_try_frames(source), range(len(source))))
        found = {index: each for index, each in enumerate(tried) if isinstance(each, str)}
        if one_size:
            found |= _other_sizes(source, {index: each for index, each in enumerate(tried) if isinstance(each, tuple)})
        write_json(file, {str(index): found[index] for index in sorted(found)})
    found = {int(index): str(reason) for index, reason in json.loads(file.read_text(encoding="utf-8")).items()}
    return dict(sorted({**found, **source.faults}.items()))


def check_share(source: FileSource, faults: Mapping[int, str], most: float) -> None:
    """Raises UserError when more than `most` of the episodes cannot be used."""
    if len(faults) <= most * len(source):
        return
    share = len(faults) / len(source)
    more = f" (the first of {len(faults)} such episodes of {len(source)}, {share:.1%})" if len(faults) > 1 else ""
    raise UserError(
        f"{next(iter(faults.values()))}{more}; data.max_faulty, now {most:g}, is the share that may be left out"
    )


def _stamp(source: FileSource) -> str:
    """Of where the frames are and when they were last changed."""
    digest = hashlib.sha256()
    for file in dict.fromkeys(source.frame_file(index) for index in range(len(source))):
        changed = file.stat().st_mtime_ns if file.is_file() else None
        digest.update(f"{file.absolute()}:{changed}\n".encode())
    return digest.hexdigest()[:16]


def _other_sizes(source: FileSource, sizes: Mapping[int, tuple[int, ...]]) -> dict[int, str]:
    """Those whose frames are not of the size that most have."""
    if not sizes:
        return {}
    common = Counter(sizes.values()).most_common(1)[0][0]
    return {
        index: f"{source.frame_file(index)}: episode {source.label(index)} has frames of {_x(size)}, most have {_x(common)}: "
        "a batch of pictures holds one size (data.tokens=store mixes them)"
        for index, size in sizes.items()
        if size != common
    }


def _x(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _try_frames(source: FileSource) -> Callable[[int], str | tuple[int, ...] | None]:
    """Of an episode: what is wrong, else its frames' shape; None where that is known to be wrong."""

    def tried(index: int) -> str | tuple[int, ...] | None:
        if index in source.faults:
            return None
        ends = np.array([0, source.lengths[index] - 1])
        try:
            frames = (
                source.read(index, ends)
                if isinstance(source, PrecomputedSource)
                else source.episode(index).frames(ends)
            )
        except (UserError, IndexError, OSError, ValueError, MemoryError) as error:
            return (str(error).splitlines() or [type(error).__name__])[0]
        return frames.shape[1:]

    return tried
