"""Planning evaluations on parallel actors, one problem at a time, each written when it is done.

An actor that dies takes at most the problem it was on, which is tried again; a problem that hangs is ended and counts as failed.
Outcomes do not depend on how many actors there are: every problem has its own seed and every actor one thread.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayActorError, RayTaskError, WorkerCrashedError

from wm.build import build_objective, build_planner, build_world, load
from wm.config.experiment import ExperimentConfig
from wm.config.plan import GradientConfig, RandomConfig
from wm.config.platform import ResourcesConfig
from wm.data.atomic import write_json
from wm.evaluation.planning import PlanningEvaluation, PlanOutcome
from wm.evaluation.problems import load_problems
from wm.loaded import LoadedModel

_TRIES = 3


class PlanTask(NamedTuple):
    """One problem for one checkpoint.

    Args:
        config_json: the resolved config that says how to plan (not the checkpoint's own).
        control: act at random instead: the model is never asked.
        out: where the outcome goes.
    """

    checkpoint: str
    config_json: str
    problems: str
    number: int
    control: bool
    out: str


class Solver:
    """What an actor does; also usable in this process."""

    def __init__(self) -> None:
        self._model = lru_cache(maxsize=2)(self._load)
        self._problems = lru_cache(maxsize=8)(lambda path: load_problems(Path(path)))

    def solve(self, task: PlanTask) -> dict[str, Any]:
        """Solve, write the outcome, and return it."""
        config = ExperimentConfig.model_validate_json(task.config_json)
        outcome = evaluation(config, self._model(task.checkpoint), task.control).solve(
            self._problems(task.problems)[task.number]
        )
        result = plain(outcome)
        write_json(Path(task.out), result)
        return result

    @staticmethod
    def _load(checkpoint: str) -> LoadedModel:
        import torch

        torch.set_num_threads(1)
        # Ray hides every card from an actor that was given none.
        return load(checkpoint, "cuda" if torch.cuda.is_available() else "cpu")


def evaluation(config: ExperimentConfig, model: LoadedModel, control: bool = False) -> PlanningEvaluation:
    """The planning evaluation that a config asks for."""
    plan = config.plan
    planner = RandomConfig(horizon=plan.planner.horizon) if control else plan.planner
    return PlanningEvaluation(
        build_world(plan.world),
        model,
        build_planner(planner, model.model.action_dim),
        build_objective(plan.objective, model.model),
        execute_steps=1
        if plan.execute_steps is None and isinstance(plan.planner, GradientConfig)
        else plan.execute_steps,
        max_iterations=plan.max_iterations,
        seed=plan.seed,
    )


def plain(outcome: PlanOutcome) -> dict[str, Any]:
    """An outcome as JSON can hold it: an unknown number is null, not NaN."""

    def known(value: Any) -> Any:
        if isinstance(value, list):
            return [known(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {key: known(value) for key, value in dataclasses.asdict(outcome).items()}


def outcome_from(values: dict[str, Any]) -> PlanOutcome:
    """The inverse of `plain`."""
    unknown = {key: float("nan") for key in ("state_distance", "initial_distance") if values[key] is None}
    cost = [float("nan") if value is None else value for value in values["cost"]]
    return PlanOutcome(**{**values, **unknown, "cost": cost})


def read_outcome(path: Path) -> dict[str, Any] | None:
    """An outcome written earlier, or None."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def solve_all(
    tasks: Sequence[PlanTask],
    num_actors: int,
    resources: ResourcesConfig,
    done: Callable[[PlanTask, dict[str, Any]], None],
) -> None:
    """Solve every task that has no outcome yet; `done` hears of each as it ends, those found on disk first."""
    waiting: deque[tuple[PlanTask, int]] = deque()
    for task in tasks:
        found = read_outcome(Path(task.out))
        if found is None:
            waiting.append((task, 1))
        else:
            done(task, found)
    if not waiting:
        return
    # DEFAULT: inside a trial the actor would otherwise be squeezed into the trial's own placement group.
    make: Callable[[], Any] = (
        ray.remote(Solver)
        .options(
            num_cpus=resources.cpus_per_planning_actor,
            num_gpus=resources.gpus_per_planning_actor,
            scheduling_strategy="DEFAULT",
        )
        .remote
    )
    timeout_s = resources.problem_timeout_s
    actors = [make() for _ in range(min(num_actors, len(waiting)))]
    busy: dict[Any, tuple[int, PlanTask, int, float]] = {}
    try:
        while waiting or busy:
            working = {number for number, *_ in busy.values()}
            for number, actor in enumerate(actors):
                if number not in working and waiting:
                    task, attempt = waiting.popleft()
                    busy[actor.solve.remote(task)] = (number, task, attempt, time.monotonic())
            ready, _ = ray.wait(list(busy), timeout=1.0)
            for reference in ready:
                number, task, attempt, _ = busy.pop(reference)
                try:
                    done(task, ray.get(reference))
                except (RayActorError, WorkerCrashedError) as error:
                    actors[number] = make()
                    _again_or_failed(task, attempt, f"its process died: {_line(error)}", waiting, done)
                except RayTaskError as error:
                    if isinstance(error.cause, OSError):  # a full disk is no failed plan
                        raise error.cause from error
                    _again_or_failed(task, _TRIES, _line(error.cause or error), waiting, done)
            for reference, (number, task, _, began) in list(busy.items()):
                if time.monotonic() - began > timeout_s:
                    del busy[reference]
                    ray.kill(actors[number])
                    actors[number] = make()
                    _again_or_failed(task, _TRIES, f"took more than {timeout_s:g} s", waiting, done)
    finally:
        for actor in actors:
            ray.kill(actor)


def _again_or_failed(
    task: PlanTask,
    attempt: int,
    reason: str,
    waiting: deque[tuple[PlanTask, int]],
    done: Callable[[PlanTask, dict[str, Any]], None],
) -> None:
    if attempt < _TRIES:
        waiting.append((task, attempt + 1))
        return
    problem = load_problems(Path(task.problems))[task.number]
    # Not written to disk: the same command tries it again.
    done(task, plain(PlanOutcome.failed(problem, reason)))


def _line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[-1][:200]}" if text else type(error).__name__
