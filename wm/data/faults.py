"""Episodes that cannot be used: found before a run, left out by name up to a share, or the run stops."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from wm.config.errors import UserError
from wm.data.atomic import write_json
from wm.data.sources.file_source import FileSource


class FaultyEpisode(NamedTuple):
    """One that is left out, and why."""

    source: str
    episode: int
    id: str
    reason: str


def find_faults(source: FileSource, folder: Path, has_frames: bool) -> dict[int, str]:
    """Faults that opening shows, and episodes whose first or last frame cannot be read.

    Frames are tried once for each fingerprint; what came of it is kept in `folder`. Damage in the middle of a video shows only
    when its frames are decoded: it stops the run then, by name.
    """
    if not has_frames:
        return dict(source.faults)
    file = folder / f"{source.fingerprint}.json"
    if not file.is_file():
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            tried = list(pool.map(_try_frames(source), range(len(source))))
        write_json(file, {str(index): reason for index, reason in enumerate(tried) if reason is not None})
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


def _try_frames(source: FileSource) -> Callable[[int], str | None]:
    def reason(index: int) -> str | None:
        if index in source.faults:
            return None
        episode = source.episode(index)
        try:
            episode.frames([0, episode.length - 1])
        except (UserError, IndexError) as error:
            return str(error)
        return None

    return reason
