"""Bringing one public data set: an archive, single files of the hub, or some episodes of a LeRobot data set there."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import requests

from ray_jobs.runtime.progress import Narrator, Stage
from wm.config.errors import UserError
from wm.data.atomic import write_json
from wm.data.download import Patience, Refused, download, format_bytes, host_of, size_here
from wm.data.hub_files import HubRepository
from wm.data.public_sets import Archive, HubEpisodes, HubFiles, PublicSet, RemoteFile
from wm.data.sources.lerobot import choose_camera
from wm.data.sources.lerobot_layout import INFO, LerobotLayout
from wm.data.unpack import Members, join_parts, need_joiner

RECEIPT = "fetched.json"
MIRROR = "WM_DATA_MIRROR"
MEGABYTE = 1e6
SHOWN_EVERY_S = 0.2


class Wanted(NamedTuple):
    """What was asked for beside the name.

    Args:
        mirror: of the archives: an address under which they lie by name.
        part: of HubFiles.
        episodes: of HubEpisodes.
        camera: of HubEpisodes.
        keeps_archive: leave the archive when it is unpacked.
    """

    mirror: str | None = None
    part: str | None = None
    episodes: int | None = None
    camera: str | None = None
    keeps_archive: bool = False


class FetchJob(NamedTuple):
    """Args:
    folder: where the data set goes.
    work: where what is on its way lies.
    """

    public: PublicSet
    folder: Path
    work: Path
    wanted: Wanted
    narrator: Narrator
    patience: Patience

    def say(self, text: str) -> None:
        """One line, as it is: brackets are not markup."""
        self.narrator.console.print(f"   {text}", highlight=False, soft_wrap=True, markup=False)


def fetch_archive(job: FetchJob, origin: Archive) -> bool:
    """False when the folder is there."""
    if job.folder.exists():
        return False
    if len(origin.files) > 1:
        need_joiner()
    files = [_known(file, job) for file in origin.files]
    joined = job.work / "joined.zip"
    is_split = len(files) > 1
    archive = joined if is_split else job.work / files[0].name
    parts = [job.work / file.name for file in files]
    if not archive.is_file():
        coming = sum(file.size or 0 for file in files) if all(file.size for file in files) else origin.num_bytes
        copies = {"download": coming, "unpack": origin.num_unpacked}
        if is_split:
            copies = {"download": coming, "join the parts": coming, "unpack": max(0, origin.num_unpacked - coming)}
        _need_room(job, copies, sum(size_here(part) for part in parts))
        with job.narrator.step(f"Download {job.public.name} from {host_of(files[0].url)}", "MB") as stage:
            progress = _Progress(stage, files, parts, origin.num_bytes)
            for file, part in zip(files, parts, strict=True):
                _download(job, file, part, progress)
        _say_checked(job, files)
    if is_split and not joined.is_file():
        with job.narrator.step(f"Join its {len(parts)} parts"):
            join_parts(parts, joined)
    if is_split and not job.wanted.keeps_archive:
        for part in parts:
            part.unlink(missing_ok=True)
    members = Members(archive)
    unpacked = job.work / "unpacked"
    _need_room(job, {"unpack": members.num_bytes}, _size_below(unpacked))
    with job.narrator.step(f"Unpack {archive.name}", "MB") as stage:
        members.unpack(
            unpacked, lambda done, total: stage.update(round(done / MEGABYTE, 1), round(total / MEGABYTE, 1))
        )
    _write_receipt(job, unpacked, files)
    unpacked.replace(job.folder)
    if job.wanted.keeps_archive:
        joined.unlink(missing_ok=True)
        job.say(f"what was downloaded is kept in {job.work}")
    else:
        shutil.rmtree(job.work)
    return True


def fetch_files(job: FetchJob, origin: HubFiles) -> bool:
    """False when the chosen file is there."""
    path = origin.parts[job.wanted.part or next(iter(origin.parts))]
    target = job.folder / Path(path).name
    if target.is_file():
        return False
    repository = HubRepository(origin.repository, origin.revision, job.public.page)
    _fetch_hub(job, repository, repository.files([path]), [target])
    return True


def fetch_episodes(job: FetchJob, origin: HubEpisodes) -> bool:
    """False when the files of all wanted episodes are there."""
    folder = job.folder
    fresh = not (folder / INFO).is_file()
    if fresh:
        repository = _repository(job, origin)
        meta = repository.folder("meta")
        partial = folder / ".meta"
        _fetch_hub(job, repository, meta, [partial / Path(file.name).relative_to("meta") for file in meta])
        if not (partial / Path(INFO).name).is_file():
            raise UserError(f"{origin.repository}: no LeRobot data set: it has no {INFO}")
        partial.replace(folder / "meta")  # whole or not at all, as the source itself does it
    layout = LerobotLayout(folder)
    camera, episodes = chosen(job, origin, layout)
    places = layout.places(camera, episodes)
    needed = dict.fromkeys([*(each.data for each in places), *(each.video for each in places)])
    missing = [path for path in needed if not (folder / path).is_file()]
    if missing:
        repository = _repository(job, origin)
        _fetch_hub(job, repository, repository.files(missing), [folder / path for path in missing])
    job.say(f"{episodes} of {layout.total} episodes, camera {camera} (--episodes N and --camera NAME bring others)")
    return fresh or bool(missing)


def chosen(job: FetchJob, origin: HubEpisodes, layout: LerobotLayout) -> tuple[str, int]:
    """The camera's feature and the number of episodes."""
    camera = choose_camera(layout, job.wanted.camera or origin.camera, "--camera")
    if job.wanted.episodes is not None and job.wanted.episodes > layout.total:
        raise UserError(f"--episodes: {job.wanted.episodes}, but {origin.repository} has {layout.total}")
    return camera, min(job.wanted.episodes or origin.episodes, layout.total)


def _repository(job: FetchJob, origin: HubEpisodes) -> HubRepository:
    """At the commit of the first visit: what comes later must belong to the same meta folder."""
    receipt = job.folder / RECEIPT
    revision = None
    if receipt.is_file():
        revision = str(json.loads(receipt.read_text(encoding="utf-8"))["revision"])
    repository = HubRepository(origin.repository, revision, job.public.page)
    if revision is None:
        write_json(receipt, {**_about(job.public), "revision": repository.revision})
    return repository


def _fetch_hub(job: FetchJob, repository: HubRepository, files: Sequence[RemoteFile], paths: Sequence[Path]) -> None:
    size = sum(file.size or 0 for file in files)
    _need_room(job, {"download": size}, sum(size_here(path) for path in paths))
    with job.narrator.step(f"Download {len(files)} files of {repository.repository}", "MB") as stage:
        progress = _Progress(stage, files, paths, size)
        for file, path in zip(files, paths, strict=True):
            repository.download(file, path, progress.of(path), stage.say, job.patience)
    unchecked = sum(file.sha256 is None for file in files)
    if unchecked:
        job.say(f"{unchecked} of {len(files)} files have no checksum on the hub (small text): their sizes are right")
    if unchecked < len(files):
        job.say(f"sha256 of {len(files) - unchecked} files: right")


def _download(job: FetchJob, file: RemoteFile, path: Path, progress: _Progress) -> None:
    try:
        download(file, path, progress=progress.of(path), say=progress.stage.say, patience=job.patience)
    except Refused as error:
        raise UserError(
            f"{error}; its page is {job.public.page}, and --mirror or {MIRROR} names another server"
        ) from error


class _Progress:
    """Bytes of several files as one bar, with their rate."""

    def __init__(self, stage: Stage, files: Sequence[RemoteFile], paths: Sequence[Path], num_bytes: int) -> None:
        self.stage = stage
        self._here = {path: size_here(path) for path in paths}
        self._total = sum(file.size for file in files if file.size) if all(file.size for file in files) else num_bytes
        self._came, self._shown, self._began = 0, 0.0, time.monotonic()

    def of(self, path: Path) -> Callable[[int, int | None], None]:
        """What hears of one file's bytes."""

        def heard(done: int, total: int | None) -> None:
            self._came += max(0, done - self._here[path])
            self._here[path] = done
            now = time.monotonic()
            if now - self._shown < SHOWN_EVERY_S and done != total:
                return
            self._shown = now
            here = sum(self._here.values())
            seconds = max(now - self._began, 1e-3)
            self.stage.update(
                round(here / MEGABYTE, 1),
                round(max(self._total, here) / MEGABYTE, 1),
                "received",  # one bar for all files
                f"{self._came / MEGABYTE / seconds:.1f} MB/s, {path.name}",
            )

        return heard


def _known(file: RemoteFile, job: FetchJob) -> RemoteFile:
    """With the size and the checksum that OSF tells, where the table lacks one. A mirror's files must be the publisher's."""
    if job.wanted.mirror is not None:
        return replace(file, url=f"{job.wanted.mirror.rstrip('/')}/{file.name}")
    if file.about is None or (file.size is not None and file.sha256 is not None):
        return file
    try:
        response = requests.get(file.about, timeout=job.patience.timeout_s)
        response.raise_for_status()
        told = response.json()["data"]["attributes"]
        size, sha256 = int(told["size"]), str(told["extra"]["hashes"]["sha256"])
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        job.say(f"{file.name}: {host_of(file.about)} tells neither size nor checksum ({type(error).__name__})")
        return file
    if (file.sha256 or sha256) != sha256:
        raise UserError(
            f"{file.name}: {host_of(file.about)} has another file than the one known here (sha256 {sha256}). Download it by hand if "
            "you trust it, and give its folder as path"
        )
    return RemoteFile(file.name, file.url, size, sha256)


def _say_checked(job: FetchJob, files: Sequence[RemoteFile]) -> None:
    for file in files:
        if file.sha256 is not None:
            job.say(f"{file.name}: sha256 is right")
        else:
            what = "only its size could be checked" if file.size is not None else "nothing could be checked"
            job.say(f"{file.name}: no checksum to be had: {what}, and each file in it by the archive's own CRC-32")


def _need_room(job: FetchJob, copies: Mapping[str, int], here: int) -> None:
    """Raises UserError, with the sum, where the disk is too small."""
    place = job.folder
    while not place.exists():
        place = place.parent
    needed, free = sum(copies.values()) - here, shutil.disk_usage(place).free
    if needed > free:
        parts = ", ".join(f"{format_bytes(size)} to {what}" for what, size in copies.items())
        less = f", less {format_bytes(here)} that are here" if here else ""
        raise UserError(
            f"{place}: {job.public.name} needs {format_bytes(needed)} ({parts}{less}), but {format_bytes(free)} are free: free some, "
            "or put WM_HOME on a larger disk"
        )


def _about(public: PublicSet) -> dict[str, object]:
    return {"name": public.name, "page": public.page, "licence": public.licence}


def _write_receipt(job: FetchJob, folder: Path, files: Sequence[RemoteFile]) -> None:
    told = [{"name": file.name, "size": file.size, "sha256": file.sha256} for file in files]
    write_json(folder / RECEIPT, {**_about(job.public), "files": told})


def _size_below(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
