"""The folder of a data set that is being written: what it may hold, going on after an interruption, finishing."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from ray_jobs.runtime.cluster import cluster
from ray_jobs.runtime.episodes import EpisodeJob, record_here, record_on_actors
from ray_jobs.runtime.placement import Node, machine_cpus
from wm.config.errors import UserError
from wm.data.atomic import atomic_file, write_json
from wm.data.writers.lerobot import LerobotWriter
from wm.data.writers.staged import StagedEpisodes
from wm.data.writers.writer import RECIPE

SHEET = "contact_sheet.png"
QUICK_S = 60.0  # what would take less is done in this process
SHEET_ROWS = 8


class Outcome(NamedTuple):
    """What came of a job.

    Args:
        fresh: False when the data set was there already.
        notes: lines worth showing.
    """

    fresh: bool
    notes: tuple[str, ...]


def prepare(
    job: EpisodeJob,
    recipe: Mapping[str, Any],
    num_values: int,
    flag: str,
    current: Callable[[dict[str, Any]], dict[str, Any]] = lambda found: found,
) -> bool:
    """Whether there is work to do; the folder then holds the recipe.

    Args:
        num_values: of all frames, to check the disk.
        flag: how a person named the folder.
        current: a recipe of earlier versions as it is written now.

    Raises:
        UserError: the folder holds anything else, or the disk is too small.
    """
    out, writer = Path(job.out), job.writer
    file = out / RECIPE
    if file.is_file():
        found = current(_read(file))
        if found != recipe and _is_begun(out):
            changed = ", ".join(_changed(found, recipe))
            raise UserError(f"{out}: already holds another data set ({changed} differ); give another {flag}")
        if found == recipe:
            return not (out / writer.marker).is_file()
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: not empty; give {flag} a new or an empty folder")
    _check_space(out, num_values * writer.bytes_per_value)
    try:
        write_json(file, recipe)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error})") from error
    return True


def has_recipe(out: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether a folder was made with these values among others."""
    file = out / RECIPE
    return file.is_file() and wanted.items() <= _read(file).items()


def _is_begun(out: Path) -> bool:
    """Whether anything but a recipe came of an earlier call."""
    return any(path.is_file() and path.name != RECIPE for path in out.rglob("*"))


def work(job: EpisodeJob, actors: int | None, progress: Callable[[int, int], None], *, may_stay: bool) -> None:
    """Do the episodes that are not there yet.

    Args:
        actors: 0 for this process; None: so many as there are CPUs, or this process for what is quick.
        progress: hears how many of how many are there.
        may_stay: whether nothing in them can take a process down.
    """
    total, waiting = job.facts.episodes, job.staged().missing()
    there = total - len(waiting)

    def done(index: int) -> None:
        nonlocal there
        there += 1
        progress(there, total)

    if actors == 0:
        record_here(job, waiting, done)
        return
    rest = waiting
    if actors is None and may_stay and waiting:
        began = time.monotonic()
        record_here(job, waiting[:1], done)
        rest = waiting[1:]
        if (time.monotonic() - began) * len(rest) < QUICK_S or machine_cpus() == 1:
            record_here(job, rest, done)
            return
    if not rest:
        return
    with cluster() as nodes:
        record_on_actors(job, rest, actors or _cpus(nodes), done)


def check_actors(actors: int, nodes: Sequence[Node] | None) -> None:
    """Raises UserError for more than there are CPUs, of the cluster or (None) of this machine."""
    cpus = machine_cpus() if nodes is None else _cpus(nodes)
    if actors > cpus:
        raise UserError(f"--actors: {actors}, but there are {cpus} CPUs")


def write_rest(job: EpisodeJob, staged: StagedEpisodes) -> None:
    """All that is not frames; the marker comes last, then the staged episodes go."""
    writer = job.writer
    if isinstance(writer, LerobotWriter):
        from wm.encoders import torchvision_shim

        torchvision_shim.install()
    writer.finish(staged)
    staged.remove()


def contact_sheet(staged: StagedEpisodes, sheet: Path) -> None:
    """The first, middle and last frame of up to eight episodes."""
    rows = [
        np.concatenate(
            list(np.pad(staged.thumbnails(i), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=128)), axis=1
        )
        for i in range(min(SHEET_ROWS, len(staged)))
    ]
    done, encoded = cv2.imencode(".png", np.concatenate(rows)[..., ::-1])
    if not done:
        raise UserError(f"{sheet}: the contact sheet could not be encoded")
    with atomic_file(sheet) as partial:
        partial.write_bytes(encoded.tobytes())


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file}: unreadable ({error}); give another folder") from error
    return found if isinstance(found, dict) else {}


def _cpus(nodes: Sequence[Node]) -> int:
    return int(sum(node.cpus for node in nodes))


def _changed(found: Mapping[str, Any], recipe: Mapping[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for key in sorted({*found, *recipe}):
        here, there = found.get(key), recipe.get(key)
        if here == there:
            continue
        path = f"{prefix}{key.removesuffix('_config')}"
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            names += _changed(here, there, f"{path}.")
        else:
            names.append(path)
    return names


def _check_space(out: Path, needed: int) -> None:
    existing = next(p for p in (out, *out.absolute().parents) if p.exists())
    disk = shutil.disk_usage(existing)
    if not disk.total or not existing.is_dir():
        raise UserError(f"{out}: cannot be written ({existing} is {'no disk' if existing.is_dir() else 'a file'})")
    if disk.free < needed * 1.05:
        raise UserError(f"{out}: {needed / 2**20:.0f} MiB needed, {disk.free / 2**20:.0f} MiB free on that disk")
