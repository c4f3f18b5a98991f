"""Demonstrations of a simulated world, written in a layout that the readers read.

python -m ray_jobs.make_data wall --out DIR --episodes 200      (or: wm data make wall ...)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ray_jobs.runtime.cluster import cluster, is_local
from ray_jobs.runtime.data_folder import (
    SHEET,
    Outcome,
    check_actors,
    contact_sheet,
    has_recipe,
    prepare,
    work,
    write_rest,
)
from ray_jobs.runtime.episodes import WRITERS
from ray_jobs.runtime.making import RecordJob
from wm.build import build_policy, build_world
from wm.config.catalogue import choices, config_of, policy_kinds, split_overrides, world_kinds
from wm.config.errors import UserError, nearest
from wm.config.yaml import parse_override
from wm.data.atomic import write_json
from wm.data.writers.staged import StagedEpisodes
from wm.data.writers.writer import EPISODES, DatasetFacts
from wm.envs.demonstrations import Particles, SimulatorStates

FORMATS = {
    "wall": "wall_single",
    "pusht": "pusht_noise",
    "point_maze": "point_maze",
    "rope": "deformable",
    "granular": "deformable",
    "lift": "robosuite",
    "can": "robosuite",
    "square": "robosuite",
    "stack": "robosuite",
}  # any other world: lerobot
FPS: dict[str, int] = {"point_maze": 20, "lift": 20, "can": 20, "square": 20, "stack": 20}  # any other world: 10
OTHER_FPS = 10
DEFAULT_SIZE = {"wall": 84}
DEFAULT_POLICY = {
    "wall": "wander",
    "rope": "push",
    "granular": "push",
}  # as their published data; any other world: random
IN_PYTHON = ("wall", "linear")  # nothing in them can take a process down


def make_wall(
    out: Path,
    *,
    episodes: int,
    steps: int,
    frame_size: int,
    layout: str = "fixed",
    policy: str = "wander",
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> bool:
    """Wall episodes in the wall_single layout, in this process. Goes on where an interrupted call stopped.

    Returns False when the data set was there already. Raises UserError when the folder holds anything else.
    """
    return make_data(
        "wall",
        out,
        episodes=episodes,
        steps=steps,
        frame_size=frame_size,
        layout=layout,
        policy=policy,
        seed=seed,
        actors=0,
        progress=progress,
    ).fresh


def make_data(
    world: str,
    out: Path,
    *,
    episodes: int,
    steps: int,
    frame_size: int | None = None,
    policy: str | None = None,
    layout: str | None = None,
    shift: str | None = None,
    seed: int = 0,
    format: str | None = None,
    task: str | None = None,
    workspace: int = 0,
    actors: int | None = None,
    overrides: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Demonstrations of any world. Goes on where an interrupted call with the same arguments stopped.

    Args:
        world: a kind of world.
        episodes: how many, at least 2.
        steps: env steps with a frame, of each.
        policy: a kind of policy; default: DEFAULT_POLICY.
        layout, shift: aliases of `world.layout` and `world.shift`.
        format: the on-disk layout; default: the world's own, else `lerobot`.
        task, workspace: what lerobot's format says of every episode.
        actors: Ray actors; 0 records in this process, None decides by how long it would take.
        overrides: `world.FIELD=VALUE`, `policy.FIELD=VALUE`.
        progress: hears how many of how many episodes are there.

    Raises:
        UserError: for bad arguments, a folder that holds anything else, or an episode that cannot be recorded.
    """
    job = record_job(
        world,
        out,
        episodes=episodes,
        steps=steps,
        frame_size=frame_size,
        policy=policy,
        layout=layout,
        shift=shift,
        seed=seed,
        format=format,
        task=task,
        workspace=workspace,
        overrides=overrides,
    )
    if actors is not None and actors < 0:
        raise UserError(f"--actors: {actors} is below 0")
    with ExitStack() as joined:
        if actors:  # before anything is written
            check_actors(actors, None if is_local() else joined.enter_context(cluster()))
        staged = job.staged()
        if not _prepare(job):
            staged.remove()
            return Outcome(False, ())
        work(job, actors, progress, may_stay=world in IN_PYTHON)
    return Outcome(True, _finish(job, staged))


def record_job(
    world: str,
    out: Path,
    *,
    episodes: int,
    steps: int,
    frame_size: int | None = None,
    policy: str | None = None,
    layout: str | None = None,
    shift: str | None = None,
    seed: int = 0,
    format: str | None = None,
    task: str | None = None,
    workspace: int = 0,
    overrides: Sequence[str] = (),
) -> RecordJob:
    """The arguments of `make_data`, checked: every fault is one line."""
    world_config, policy_config, chosen = _settings(
        world,
        episodes=episodes,
        steps=steps,
        frame_size=frame_size,
        policy=policy,
        layout=layout,
        shift=shift,
        seed=seed,
        format=format,
        workspace=workspace,
        overrides=overrides,
    )
    actor = build_policy(policy_config, world_config)  # is there such a thing for this world?
    built = build_world(world_config)
    try:
        actor.reset(built, np.random.default_rng(seed))
    except ValueError as error:
        raise UserError(f"--policy {policy_config.kind}: {str(error).splitlines()[0]}") from error
    facts = DatasetFacts(
        world=world,
        settings=world_config.model_dump(mode="json"),
        action_names=tuple(built.action_names),
        state_names=tuple(built.state_names),
        proprio_names=tuple(built.proprio_names),
        layout_names=tuple(built.layout),
        episodes=episodes,
        frame_size=built.frame_size,
        fps=FPS.get(world, OTHER_FPS),
        task=task or built.name.replace("_", " "),
        workspace=workspace,
        env_info=dict(built.env_info) if isinstance(built, SimulatorStates) else None,
        has_particles=isinstance(built, Particles),
    )
    built.close()
    job = RecordJob(
        world=world_config.model_dump(mode="json"),
        policy=policy_config.model_dump(mode="json"),
        format=chosen,
        steps=steps,
        seed=seed,
        facts=facts,
        out=str(out.absolute()),
    )
    job.writer.check()
    return job


def _settings(
    world: str,
    *,
    episodes: int,
    steps: int,
    frame_size: int | None = None,
    policy: str | None = None,
    layout: str | None = None,
    shift: str | None = None,
    seed: int = 0,
    format: str | None = None,
    workspace: int = 0,
    overrides: Sequence[str] = (),
) -> tuple[Any, Any, str]:
    """(the world's config, the policy's, the format): what can be checked without building either."""
    if world not in world_kinds():
        raise UserError(f"WORLD: unknown world '{world}'.{nearest(world, world_kinds())}")
    kind = policy or DEFAULT_POLICY.get(world, "random")
    if kind not in policy_kinds():
        raise UserError(f"--policy: unknown policy '{kind}'.{nearest(kind, policy_kinds())}")
    given = split_overrides(map(parse_override, overrides), ("world", "policy"))
    size = frame_size if frame_size is not None else DEFAULT_SIZE.get(world)
    for flag, field, value in (("size", "frame_size", size), ("layout", "layout", layout), ("shift", "shift", shift)):
        if value is not None and (field, value) != ("shift", "none"):
            given["world"][field] = _alias(world, flag, field, value, given["world"])
    least_values: tuple[tuple[str, int | None, int], ...] = (
        ("episodes", episodes, 2),
        ("steps", steps, 2),
        ("size", size, 14),
        ("seed", seed, 0),
        ("workspace", workspace, 0),
    )
    for name, value, least in least_values:
        if value is not None and value < least:
            raise UserError(f"--{name}: {value} is below {least}")
    chosen = format or FORMATS.get(world, "lerobot")
    if chosen not in WRITERS:
        raise UserError(f"--format: unknown format '{chosen}'.{nearest(chosen, WRITERS)}")
    world_config = config_of(world_kinds(), world, given["world"], "world", "WORLD: unknown world")
    policy_config = config_of(policy_kinds(), kind, given["policy"], "policy", "--policy: unknown policy")
    return world_config, policy_config, chosen


def is_made(world: str, out: Path, **arguments: Any) -> bool:
    """Whether `out` holds the whole data set that `make_data` with these arguments (no task) writes. Builds no world.

    Raises UserError for bad arguments.
    """
    world_config, policy_config, chosen = _settings(world, **arguments)
    wanted = {
        "world": world,
        "episodes": arguments["episodes"],
        "steps": arguments["steps"],
        "seed": arguments.get("seed", 0),
        "format": chosen,
        "world_config": world_config.model_dump(mode="json"),
        "policy_config": policy_config.model_dump(mode="json"),
    }
    marker: str = getattr(WRITERS[chosen], "marker")  # noqa: B009  (every layout's class has one)
    return (out / marker).is_file() and has_recipe(out, wanted)


def check_data(world: str, out: Path, **arguments: Any) -> None:
    """What `make_data` with these arguments would refuse is refused now; the folder then holds the recipe."""
    _prepare(record_job(world, out, **arguments))


def _alias(world: str, flag: str, field: str, value: Any, given: Mapping[str, Any]) -> Any:
    """A flag's value, when the world has such a setting and it was not also given by its path."""
    cls = world_kinds()[world]
    if field in given:
        raise UserError(f"--{flag}: given twice, as world.{field} too")
    if field not in cls.model_fields:
        raise UserError(f"--{flag}: world '{world}' has no {field}")
    valid = choices(cls, field)
    if valid and value not in valid:
        raise UserError(f"--{flag}: '{value}'.{nearest(str(value), valid)}")
    return value


def _finish(job: RecordJob, staged: StagedEpisodes) -> tuple[str, ...]:
    """Write the data set from what is staged; the marker comes last, then the staged episodes go."""
    out, writer = Path(job.out), job.writer
    records = [staged.record(index) for index in range(len(staged))]
    failures = [failure for record in records for failure in record.pop("failures", [])]
    known = [record["success"] for record in records if record["success"] is not None]
    success_rate = float(np.mean(known)) if known else None
    summary = {
        "success_rate": success_rate,
        "shift": job.world.get("shift", "none"),
        "seed": job.seed,
        "note": writer.lacks,
        "failures": failures,
        "episodes": records,
    }
    write_json(out / EPISODES, summary)
    contact_sheet(staged, out / SHEET)
    write_rest(job, staged)
    notes = [writer.lacks, f"contact sheet: {out / SHEET}"]
    if success_rate is not None:
        notes.insert(0, f"success of policy '{job.policy['kind']}': {sum(known)} of {len(known)} ({success_rate:.0%})")
    if failures:
        notes.append(f"{len(failures)} draws failed and were replaced; {out / EPISODES} says why")
    return tuple(notes)


def _prepare(job: RecordJob) -> bool:
    """Whether there is work to do; the folder then holds the recipe."""
    recipe = {
        "world": job.facts.world,
        "episodes": job.facts.episodes,
        "steps": job.steps,
        "seed": job.seed,
        "format": job.format,
        "world_config": dict(job.world),
        "policy_config": dict(job.policy),
        "task": job.facts.task,
        "workspace": job.facts.workspace,
    }
    values = job.facts.episodes * job.steps * job.facts.frame_size**2 * 3
    return prepare(job, recipe, values, "--out", lambda found: _current(found, recipe))


def _current(found: dict[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as it is written now; before there were other worlds, Wall's was flat."""
    if "world_config" in found or found.get("world") != "wall":
        return found
    flat = dict(found)
    world = {"kind": "wall", "shift": "none", "frame_size": flat.pop("frame_size"), "layout": flat.pop("layout")}
    policy = config_of(policy_kinds(), flat.pop("policy"), {}, "policy", "policy").model_dump(mode="json")
    rest = {"format": "wall_single", "task": recipe["task"], "workspace": recipe["workspace"]}
    return {**rest, **flat, "world_config": world, "policy_config": policy}


def main() -> None:
    """python -m ray_jobs.make_data WORLD ...: as `wm data make`."""
    import sys

    from ray_jobs.cli import main as cli

    sys.argv[1:1] = ["data", "make"]
    cli()


if __name__ == "__main__":
    main()
