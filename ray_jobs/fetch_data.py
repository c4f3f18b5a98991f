"""A public data set brought to where specs look for it.

python -m ray_jobs.fetch_data wall_single      (or: wm data fetch wall_single)
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import assert_never

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ray_jobs.runtime.fetching import MIRROR as MIRROR
from ray_jobs.runtime.fetching import FetchJob, Wanted, chosen, fetch_archive, fetch_episodes, fetch_files
from ray_jobs.runtime.progress import Narrator
from ray_jobs.runtime.storage import storage_root
from wm.config.data import RobomimicSourceConfig
from wm.config.errors import UserError, nearest
from wm.data.download import PATIENCE, Patience, format_bytes
from wm.data.public_sets import PUBLIC_SETS, Archive, HubEpisodes, HubFiles, PublicSet
from wm.data.sources.lerobot_layout import LerobotLayout
from wm.data.sources.robosuite_states import DemoStates

WORK = ".fetch"  # below data/: what is on its way
LOOKED_AT = 8  # episodes


def fetch_data(name: str, wanted: Wanted, narrator: Narrator, patience: Patience = PATIENCE) -> Path:
    """Bring a set below `storage.root/data`, and say what it is and how to use it. Goes on where it was interrupted.

    Raises:
        UserError: for an unknown name or bad options, too small a disk, a server that fails, a file that is not what it should be.
    """
    if name not in PUBLIC_SETS:
        like = [each for each in PUBLIC_SETS if name and name in each] or PUBLIC_SETS
        raise UserError(f"no public set is called '{name}'.{nearest(name, like)} `wm data fetch` lists them")
    public = PUBLIC_SETS[name]
    _check_options(public, wanted)
    data = storage_root(None) / "data"
    job = FetchJob(public, data / public.folder, data / WORK / name, wanted, narrator, patience)
    with _alone(data / WORK / f"{name}.lock", name):
        match public.origin:
            case Archive():
                fresh = fetch_archive(job, public.origin)
            case HubFiles():
                fresh = fetch_files(job, public.origin)
            case HubEpisodes():
                fresh = fetch_episodes(job, public.origin)
            case _:
                assert_never(public.origin)
    job.say(f"{job.folder}: {'brought' if fresh else 'already there, nothing downloaded'}")
    for line in _described(job):
        job.say(line)
    return job.folder


def has_mirrors(name: str) -> bool:
    """Whether WM_DATA_MIRROR speaks of this set."""
    return name in PUBLIC_SETS and isinstance(PUBLIC_SETS[name].origin, Archive)


def list_sets(console: Console) -> None:
    """The table, and what of it is here."""
    data = storage_root(None) / "data"
    shown = Table(box=None, pad_edge=False, show_header=False)
    shown.add_column(no_wrap=True)
    for public in PUBLIC_SETS.values():
        here = "there" if (data / public.folder).is_dir() else "to"
        facts = [
            public.what,
            _size(public),
            f"licence: {public.licence}",
            f"layout: {public.layout}",
            f"{here} {data.name}/{public.folder}",
            *([] if public.spec is None else [f"wm train {public.spec}"]),
        ]
        shown.add_row(public.name, escape("; ".join(facts)))
    console.print(shown, highlight=False)
    console.print(
        f"`wm data fetch NAME` puts it below {data.parent} (WM_HOME names another place); LeRobot sets: --episodes, --camera.",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )


def _size(public: PublicSet) -> str:
    match public.origin:
        case Archive(num_bytes=size, num_unpacked=unpacked):
            return f"{format_bytes(size)}, unpacked {format_bytes(unpacked)}"
        case HubFiles(num_bytes=size):
            return format_bytes(size)
        case HubEpisodes(num_bytes=size, episodes=episodes):
            every = "unknown" if size is None else format_bytes(size)
            return f"{every}; {episodes} episodes are brought"
        case _:
            assert_never(public.origin)


def _described(job: FetchJob) -> Iterator[str]:
    """What it is, as `wm data inspect` says it of the first episodes, and how to use it."""
    public, origin = job.public, job.public.origin
    source = dict(public.source)
    match origin:
        case HubFiles():
            path = job.folder / Path(origin.parts[job.wanted.part or next(iter(origin.parts))]).name
            demos = DemoStates(RobomimicSourceConfig(path=str(path)), public.name, path)
            yield (
                f"{len(demos)} demonstrations of {demos.env_info['env_name']}, {min(demos.lengths)} to {max(demos.lengths)} steps, "
                f"{len(demos.action_names)} actions; simulator states and no pictures. Draw them:"
            )
            yield f"  wm data convert {path} {job.folder.parent / str(public.drawn)} --to robomimic --size 84"
            sources = {public.name: {**source, "path": public.drawn}}
        case HubEpisodes():
            layout = LerobotLayout(job.folder)
            camera, episodes = chosen(job, origin, layout)
            yield from _looked_at(job.folder, min(episodes, LOOKED_AT), f"camera={camera}")
            given = {**source, "path": origin.repository, "camera": camera, "episodes": episodes}
            sources = {public.name: given}
        case Archive():
            for name in origin.folders or ("",):
                yield from _looked_at(job.folder / name, LOOKED_AT)
            paths = {
                name or public.name: "/".join(filter(None, (public.folder, name))) for name in origin.folders or ("",)
            }
            sources = {name: {**source, "path": path} for name, path in paths.items()}
        case _:
            assert_never(origin)
    yield "in a spec:"
    for name, config in sources.items():
        pairs = ", ".join(f"{key}: {value}" for key, value in config.items())
        yield f"  data.sources.{name}: {{{pairs}}}"
    if public.spec is not None:
        yield f"  or, as it is: wm train {public.spec}"


def _looked_at(path: Path, episodes: int, *overrides: str) -> list[str]:
    from ray_jobs.inspect_data import inspect_data  # seconds of imports, which the table does not need

    lines, _ = inspect_data(path, None, [f"episodes={episodes}", *overrides])
    return [f"the first {episodes} episodes (all: wm data inspect {path}):", *(f"  {line}" for line in lines)]


def _check_options(public: PublicSet, wanted: Wanted) -> None:
    name, origin = public.name, public.origin
    if wanted.mirror is not None and not isinstance(origin, Archive):
        raise UserError(f"--mirror: {name} comes from the Hugging Face hub, whose mirror is named by HF_ENDPOINT")
    if wanted.mirror is not None and not wanted.mirror.startswith(("http://", "https://")):
        raise UserError(f"--mirror: '{wanted.mirror}' is no http:// or https:// address")
    if wanted.keeps_archive and not isinstance(origin, Archive):
        raise UserError(f"--keep: {name} is no archive")
    if wanted.part is not None:
        if not isinstance(origin, HubFiles):
            raise UserError(f"--part: {name} has no parts to choose from")
        if wanted.part not in origin.parts:
            raise UserError(f"--part: {name} has no part '{wanted.part}'.{nearest(wanted.part, origin.parts)}")
    for option, value in (("--episodes", wanted.episodes), ("--camera", wanted.camera)):
        if value is not None and not isinstance(origin, HubEpisodes):
            raise UserError(f"{option}: {name} comes whole")
    if wanted.episodes is not None and wanted.episodes < 1:
        raise UserError(f"--episodes: {wanted.episodes} is below 1")


@contextmanager
def _alone(lock: Path, name: str) -> Iterator[None]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{name}: another process is fetching it") from None
        yield


def main() -> None:
    """python -m ray_jobs.fetch_data NAME ...: as `wm data fetch`."""
    import sys

    from ray_jobs.cli import main as cli

    sys.argv[1:1] = ["data", "fetch"]
    cli()


if __name__ == "__main__":
    main()
