"""The planning problems of an experiment: drawn once, saved under storage.root/problems, shared by every run of a case."""

from __future__ import annotations

from pathlib import Path

from ray_jobs.runtime.runs import Run
from wm.build import build_world
from wm.config.errors import UserError
from wm.config.hashing import problem_hash
from wm.contracts import World
from wm.evaluation.problems import dataset_problems, load_problems, random_problems, save_problems
from wm.interop.plan_targets import load_plan_targets
from wm.types import Problem


def problems_file(run: Run, goal_horizon: int) -> Path:
    """Where they are."""
    key = problem_hash(run.config, run.inputs.dataset.fingerprint, goal_horizon)
    return run.inputs.root / "problems" / f"{key}.npz"


def ensure_problems(run: Run) -> None:
    """Draw what is missing. Raises UserError when the held-out episodes cannot give the goals, or frames differ in size."""
    config, dataset = run.config, run.inputs.dataset
    if not config.evaluate.grid.goal_horizons:
        return
    _check_frame_size(run)
    for goal_horizon in config.evaluate.grid.goal_horizons:
        path = problems_file(run, goal_horizon)
        if path.is_file():
            continue
        world = build_world(config.plan.world)
        if config.plan.problem_file is not None:
            problems = _given(run, Path(config.plan.problem_file), goal_horizon)
        elif config.plan.problems == "random":
            problems = random_problems(
                world, count=config.plan.episodes, goal_horizon=goal_horizon, seed=config.plan.seed
            )
        else:
            problems = dataset_problems(
                world,
                dataset.sources,
                dataset.planned_episodes(),
                count=config.plan.episodes,
                goal_horizon=goal_horizon,
                frameskip=config.data.clip.frameskip,
                seed=config.plan.seed,
            )
        save_problems(path, problems)


def _given(run: Run, file: Path, goal_horizon: int) -> list[Problem]:
    """The problems of one goal horizon from a file, the first `plan.episodes` of them. Raises UserError when there are none."""
    if not file.is_file():
        raise UserError(f"plan.problems: {file}: no such file")
    if file.suffix == ".pkl":
        problems = load_plan_targets(file, run.inputs.dataset.statistics, build_world(run.config.plan.world))
    else:
        problems = load_problems(file)
    chosen = [problem for problem in problems if problem.goal_horizon == goal_horizon]
    if not chosen:
        there = ", ".join(str(horizon) for horizon in sorted({problem.goal_horizon for problem in problems}))
        raise UserError(
            f"plan.problems: {file} has no problem of goal horizon {goal_horizon}; it has those of {there or 'none'} "
            "(evaluate.grid.goal_horizons, --goal-horizons)"
        )
    chosen = chosen[: run.config.plan.episodes]
    world = build_world(run.config.plan.world)
    for problem in chosen:
        _check_fit(problem, world, file)
    return chosen


def _check_fit(problem: Problem, world: World, file: Path) -> None:
    """Raises UserError for a problem of another world."""
    size = world.frame_size
    for name in ("frame_0", "frame_g"):
        height, width = getattr(problem, name).shape[:2]
        if (height, width) != (size, size):
            raise UserError(
                f"plan.problems: {file}: {name} of {problem.id} is {height} x {width}, but world '{world.name}' draws {size} x {size}"
            )
    for name in ("state_0", "state_g"):
        given, wanted = len(getattr(problem, name)), len(world.state_names)
        if given != wanted:
            raise UserError(
                f"plan.problems: {file}: {name} of {problem.id} has {given} entries, but a state of world '{world.name}' has {wanted}"
            )


def _check_frame_size(run: Run) -> None:
    """The planner sees the world's frames: they must be what the model saw with the actions that it plans."""
    size, dataset = run.config.plan.world.frame_size, run.inputs.dataset
    for name in dataset.labels.actions:
        height, width = dataset.sources[name].episode(0).frames([0]).shape[1:3]
        if (height, width) != (size, size):
            raise UserError(
                f"plan.world.frame_size: {size}, but frames of data.sources.{name} are {height} x {width}; say "
                f"plan.world.frame_size={height}"
            )
