"""A data set of any layout written in another.

python -m ray_jobs.convert_data SRC DST --to lerobot      (or: wm data convert ...)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ray_jobs.runtime.cluster import cluster, is_local
from ray_jobs.runtime.converting import ConvertJob, open_demos, open_sources
from ray_jobs.runtime.data_folder import (
    SHEET,
    Outcome,
    check_actors,
    contact_sheet,
    prepare,
    work,
    write_rest,
)
from wm.config.catalogue import config_of, source_kinds, world_kinds
from wm.config.errors import UserError, nearest
from wm.config.yaml import parse_override
from wm.data.atomic import write_json
from wm.data.conversion import HOLDS, lost, missing, need_layout
from wm.data.recorded import scaled
from wm.data.sources.detect import settings_of
from wm.data.sources.precomputed import PrecomputedSource
from wm.data.sources.robomimic_hdf5 import MAIN_CAMERA, SUFFIXES
from wm.data.sources.robosuite_states import FileKind, file_kind
from wm.data.writers.writer import EPISODES, DatasetFacts
from wm.envs.robosuite_tasks import PROPRIO_NAMES, TASKS

TARGETS = {"dino_wm": "robomimic", "lerobot": "lerobot", "robomimic": "robomimic_hdf5"}  # --to -> layout
DINO_WM_LAYOUTS = ("robomimic", "wall_single", "point_maze", "pusht_noise", "deformable")
LEAST_SIZE, MOST_SIZE = 84, 384  # pixels
UNNAMED_CAMERA = "main"
READ, WRITE = "read", "write"  # parts of the progress


class _Plan(NamedTuple):
    """A checked job, and what is said of it.

    Args:
        fingerprint: of the source.
        num_values: of all frames of all cameras.
        notes: what is lost, what is absent.
    """

    job: ConvertJob
    fingerprint: str
    num_values: int
    notes: tuple[str, ...]


def convert_data(
    source: Path,
    out: Path,
    to: str,
    *,
    layout: str | None = None,
    size: int | None = None,
    cameras: Sequence[str] = (),
    task: str | None = None,
    actors: int | None = None,
    overrides: Sequence[str] = (),
    progress: Callable[[int, int, str], None] = lambda done, total, part: None,
) -> Outcome:
    """Write a data set in another layout. Goes on where an interrupted call with the same arguments stopped.

    Args:
        source: what is read: a folder, or an HDF5 file.
        out: a new or empty folder.
        to: `dino_wm`, `lerobot` or `robomimic`.
        layout: of DINO-WM's; default: that of converted robomimic, which any labelled data set fits.
        size: shorter side of the frames in pixels; default: as they are. Of what is drawn: the side.
        cameras: by name, where the source has several; the first is the main one. Of what is drawn: agentview.
        task: in words; default: the source's own, else its name.
        actors: Ray actors; 0 converts in this process, None decides by how long it would take.
        overrides: FIELD=VALUE of the source's config, such as `episodes=10`.
        progress: hears how many of how many episodes are read, and where frames are written last, how many are written.

    Raises:
        UserError: for bad arguments, a folder that holds anything else, a source that the layout cannot hold or that is damaged.
    """
    if actors is not None and actors < 0:
        raise UserError(f"--actors: {actors} is below 0")
    plan = _plan(source, out, to, layout, size, tuple(cameras), task, overrides)
    job = plan.job
    with ExitStack() as joined:
        if actors:  # before anything is written
            check_actors(actors, None if is_local() else joined.enter_context(cluster()))
        staged = job.staged()
        if not prepare(job, _recipe(plan, to), plan.num_values, "DST"):
            staged.remove()
            return Outcome(False, plan.notes)
        if staged.keeps_frames:
            progress(0, len(staged), WRITE)
        work(job, actors, lambda done, total: progress(done, total, READ), may_stay=job.world is None)
    records = [staged.record(index) for index in range(len(staged))]
    write_json(out / EPISODES, {"source": job.path, "notes": list(plan.notes), "episodes": records})
    contact_sheet(staged, out / SHEET)
    if staged.keeps_frames:
        staged.heard = lambda index: progress(index, len(staged), WRITE)
    write_rest(job, staged)
    return Outcome(True, (*plan.notes, f"contact sheet: {out / SHEET}"))


def _plan(
    source: Path,
    out: Path,
    to: str,
    layout: str | None,
    size: int | None,
    cameras: tuple[str, ...],
    task: str | None,
    overrides: Sequence[str],
) -> _Plan:
    """The arguments of `convert_data`, checked: every fault is one line."""
    chosen = _layout(to, layout)
    if size is not None and not LEAST_SIZE <= size <= MOST_SIZE:
        raise UserError(f"--size: {size} is not within {LEAST_SIZE}..{MOST_SIZE}")
    if len(set(cameras)) < len(cameras):
        raise UserError(f"--camera: {', '.join(cameras)}: one is given twice")
    if len(cameras) > 1 and not HOLDS[chosen].has_cameras:
        raise UserError(f"--camera: {len(cameras)} given, but --to {to} holds one")
    _check_places(source, out)
    settings = _settings(source, overrides)
    kind = settings["kind"]
    if cameras and "camera" not in source_kinds()[kind].model_fields:
        raise UserError(f"--camera: {source} has one camera, which has no name")
    if cameras and "camera" in settings:
        raise UserError("--camera: given twice, as camera=... too")
    known = file_kind(source) if kind == "robomimic" else FileKind(False, True, {})
    job = ConvertJob(
        path=str(source.absolute()),
        source=settings,
        cameras=cameras,
        size=size,
        task=task,
        keeps_states=known.has_states and chosen == "robomimic_hdf5",
        world=None,
        layout=chosen,
        facts=DatasetFacts(source.stem, {}, (), (), (), (), 0, 0, 0, ""),
        out=str(out.absolute()),
    )
    is_drawn = known.has_states and not known.has_pictures
    plan = _plan_drawn(job) if is_drawn else _plan_read(job, known)
    _check(plan.job, to)
    return plan


def _plan_read(job: ConvertJob, known: FileKind) -> _Plan:
    sources = open_sources(Path(job.path), job.source, job.cameras)
    first = sources[0]
    if isinstance(first, PrecomputedSource):
        raise UserError(f"{job.path}: holds features and no frames, which every layout here has")
    episode = first.episode(0)
    pictures = [source.episode(0).frames([0]) for source in sources]
    shapes = [scaled(each.shape[1], each.shape[2], job.size) for each in pictures]
    says = episode.task
    facts = _facts(job, first.lengths, episode.fps, shapes[0], job.task or says)
    facts = replace(
        facts,
        action_names=() if episode.actions is None else first.action_names,
        state_names=() if episode.state is None else first.state_names,
        proprio_names=() if episode.proprio is None else first.proprio_names,
        layout_names=tuple(episode.tags),
        env_info=_env_info(known.env_info) or None,
        settings=dict(known.env_info.get("wm_world", {})),
        has_particles=job.layout == "deformable",
        num_val=first.num_val,
        camera=first.camera or UNNAMED_CAMERA,
    )
    beside = [each for each in first.beside if all(each in other.beside for other in sources)]
    if known.has_states and not job.keeps_states:
        beside.append("simulator states")
    if not all(shape == shapes[0] for shape in shapes):
        _check_views(job, shapes)
    values = sum(first.lengths) * sum(height * width * 3 for height, width in shapes)
    notes = (
        lost(job.layout, facts, says is not None, beside),
        *missing(job.layout, facts, job.keeps_states),
    )
    return _Plan(job._replace(facts=facts), first.fingerprint, values, notes)


def _plan_drawn(job: ConvertJob) -> _Plan:
    demos = open_demos(Path(job.path), job.source)
    env = demos.env_info["env_name"]
    kinds = {task.env_name: (kind, task) for kind, task in TASKS.items()}
    if env not in kinds:
        raise UserError(f"{demos.path}: holds states of '{env}', which is drawn by no world here.{nearest(env, kinds)}")
    kind, about = kinds[env]
    kept = {key: value for key, value in demos.settings.items() if key in ("shift", "frame_size", "camera")}
    settings = {**kept, **({} if job.size is None else {"frame_size": job.size})}
    world = config_of(world_kinds(), kind, settings, "env_args: wm_world", "env_args: unknown world")
    side = world.frame_size
    cameras = job.cameras or (str(job.source.get("camera") or kept.get("camera", MAIN_CAMERA)),)
    facts = _facts(job, demos.lengths, demos.fps, (side, side), job.task or kind)
    facts = replace(
        facts,
        action_names=demos.action_names,
        state_names=about.state_names,
        proprio_names=PROPRIO_NAMES,
        layout_names=tuple(demos.tags[0]),
        env_info=_env_info(demos.env_info),
        settings=world.model_dump(mode="json"),
        camera=cameras[0],
    )
    values = sum(demos.lengths) * side * side * 3 * len(cameras)
    beside = () if job.keeps_states else ("simulator states",)
    notes = lost(job.layout, facts, False, beside), *missing(job.layout, facts, job.keeps_states)
    drawn = job._replace(facts=facts, cameras=cameras, world=world.model_dump(mode="json"))
    return _Plan(drawn, demos.fingerprint, values, notes)


def _facts(
    job: ConvertJob, lengths: Sequence[int], fps: float, shape: tuple[int, int], task: str | None
) -> DatasetFacts:
    """What a source and drawn demonstrations tell alike."""
    if fps != round(fps):
        raise UserError(f"{job.path}: {fps:g} frames a second, but every layout here has a whole number of them")
    height, width = shape
    return replace(
        job.facts,
        episodes=len(lengths),
        frame_size=height,
        frame_width=None if width == height else width,
        fps=round(fps),
        task=task or job.facts.world.replace("_", " "),
        workspace=None,
        is_uneven=len(set(lengths)) > 1,
    )


def _env_info(told: Mapping[str, Any]) -> dict[str, Any]:
    """What a file tells of its simulator, but for the pictures, which may change."""
    return {key: value for key, value in told.items() if key not in ("wm_world", "camera_heights", "camera_widths")}


def _check(job: ConvertJob, to: str) -> None:
    """Raises UserError for what the layout cannot hold."""
    need_layout(job.layout, job.facts)
    try:
        job.writer.check()
    except UserError as error:
        raise UserError(f"--to {to}: {error}") from error


def _check_views(job: ConvertJob, shapes: Sequence[tuple[int, int]]) -> None:
    """Every camera's pictures must fit, not only the main one's."""
    for camera, (height, width) in zip(job.cameras, shapes, strict=True):
        facts = replace(job.facts, frame_size=height, frame_width=width, action_names=("any",))
        try:
            job._replace(facts=facts).writer.check()
        except UserError as error:
            raise UserError(f"camera {camera}: {error}") from error


def _layout(to: str, layout: str | None) -> str:
    if to not in TARGETS:
        raise UserError(f"--to: unknown target '{to}'.{nearest(to, TARGETS)}")
    if layout is None:
        return TARGETS[to]
    if to != "dino_wm":
        raise UserError(f"--layout: {layout}: only --to dino_wm has several")
    if layout not in DINO_WM_LAYOUTS:
        raise UserError(f"--layout: no layout '{layout}' can be written.{nearest(layout, DINO_WM_LAYOUTS)}")
    return layout


def _check_places(source: Path, out: Path) -> None:
    """Raises UserError where the new data set would lie on, in or around the old one."""
    here, there = _resolved(source), _resolved(out)
    if here == there:
        raise UserError(f"{out}: SRC and DST are the same")
    if here in there.parents or there in here.parents:
        raise UserError(f"{out}: one of SRC and DST lies in the other; give DST a folder beside it")
    if out.suffix in SUFFIXES:
        raise UserError(f"{out}: DST is a folder; of HDF5, demo.hdf5 is written in it")


def _resolved(path: Path) -> Path:
    try:
        path.exists()
        return path.resolve()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except RuntimeError as error:  # as Python 3.11 tells of links that lead to each other
        raise UserError(f"{path}: a link that leads nowhere") from error


def _settings(source: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Of the source's config."""
    settings = settings_of(source, dict(map(parse_override, overrides)))
    kinds = source_kinds()
    if settings["kind"] not in kinds:
        raise UserError(f"{source}: no source of kind '{settings['kind']}'.{nearest(str(settings['kind']), kinds)}")
    return settings


def _recipe(plan: _Plan, to: str) -> Mapping[str, Any]:
    """What must be the same for a job to go on."""
    job = plan.job
    return {
        "converted_from": job.path,
        "source_fingerprint": plan.fingerprint,
        "source_config": dict(job.source),
        "to": to,
        "layout": job.layout,
        "size": job.size,
        "cameras": list(job.cameras),
        "task": job.task,
    }


def main() -> None:
    """python -m ray_jobs.convert_data SRC DST ...: as `wm data convert`."""
    import sys

    from ray_jobs.cli import main as cli

    sys.argv[1:1] = ["data", "convert"]
    cli()


if __name__ == "__main__":
    main()
