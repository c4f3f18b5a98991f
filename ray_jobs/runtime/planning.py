"""Planning evaluations on parallel actors, `plan.together` problems at a time, each written when it is done.

An actor that dies takes at most the problems it was on, which are tried again; a problem that hangs is ended. What raises or hangs
fails alone, whoever it was planned with.
Outcomes do not depend on how many actors there are: who is planned with whom is fixed beforehand, every problem has its own seed and
every actor one thread.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import ray
from pydantic import TypeAdapter
from ray.exceptions import RayActorError, RayTaskError, WorkerCrashedError

from wm.build import build_world, load
from wm.build_planning import planning_evaluation
from wm.config.errors import UserError
from wm.config.experiment import ExperimentConfig
from wm.config.plan import RandomConfig
from wm.config.platform import ResourcesConfig
from wm.config.worlds import WorldConfig
from wm.contracts import World
from wm.data.atomic import write_json
from wm.evaluation.outcomes import PlanOutcome
from wm.evaluation.planning import recorded_outcome
from wm.evaluation.problems import load_problems
from wm.loaded import LoadedModel
from wm.types import Problem

_TRIES = 3

Control = Literal["none", "random", "oracle"]


_NUMBERS = ("state_distance", "initial_distance", "latent_distance", "roughness")  # null where unknown


class PlanTask(NamedTuple):
    """One problem for one checkpoint.

    Args:
        config_json: the resolved config that says how to plan (not the checkpoint's own).
        control: act at random instead, or as recorded (the oracle): the model is never asked.
        out: where the outcome goes.
    """

    checkpoint: str
    config_json: str
    problems: str
    number: int
    control: Control
    out: str


_Group = tuple[PlanTask, ...]  # planned together
_Solve = Callable[[Sequence[Problem]], list[PlanOutcome]]
_Done = Callable[[PlanTask, dict[str, Any]], None]


@dataclass
class _Attempt:
    """A group on an actor.

    Args:
        tries: how often it was begun.
        prepared: done once its actor has a place, is up and has loaded the model. All that is no problem's time.
        began: seconds of the monotonic clock at which that was heard, or None.
    """

    actor: int
    group: _Group
    tries: int
    prepared: Any
    began: float | None = None

    def is_late(self, timeout_s: float) -> bool:
        """Whether the group takes longer than it may."""
        if self.began is None:
            up, _ = ray.wait([self.prepared], timeout=0)
            self.began = time.monotonic() if up else None
        return self.began is not None and time.monotonic() - self.began > timeout_s * len(self.group)


class Solver:
    """What an actor does; also usable in this process."""

    def __init__(self) -> None:
        self._model = lru_cache(maxsize=2)(self._load)
        self._problems = lru_cache(maxsize=8)(lambda path: load_problems(Path(path)))
        self._worlds = lru_cache(maxsize=1)(_build_worlds)

    def prepare(self, task: PlanTask) -> None:
        """Load what takes its time."""
        if task.control != "oracle":
            self._model(task.checkpoint)

    def solve(self, tasks: Sequence[PlanTask]) -> list[dict[str, Any]]:
        """Solve tasks that differ in their number alone together, write each outcome, and return them."""
        first = tasks[0]
        config = ExperimentConfig.model_validate_json(first.config_json)
        problems = [self._problems(first.problems)[task.number] for task in tasks]
        solve = self._oracle(config) if first.control == "oracle" else self._planning(first, config, len(tasks))
        try:
            outcomes = solve(problems)
        except Exception as error:
            self._worlds.cache_clear()  # who knows what is left of them
            if isinstance(error, OSError):  # a simulator's; one that comes out of here is the disk's
                raise RuntimeError(_line(error)) from error
            raise
        results = [plain(outcome) for outcome in outcomes]
        for task, result in zip(tasks, results, strict=True):
            write_json(Path(task.out), result)
        return results

    def _oracle(self, config: ExperimentConfig) -> _Solve:
        (world,) = self._worlds(config.plan.world.model_dump_json(), 1)
        return lambda problems: [recorded_outcome(world, problem) for problem in problems]

    def _planning(self, task: PlanTask, config: ExperimentConfig, together: int) -> _Solve:
        plan = config.plan
        if task.control == "random":
            control = {"planner": RandomConfig(horizon=plan.planner.horizon), "execute_steps": plan.steps_executed}
            plan = plan.model_copy(update=control)
        worlds = self._worlds(config.plan.world.model_dump_json(), together)
        model = self._model(task.checkpoint)
        return planning_evaluation(plan, model, worlds, memory_gb=config.resources.planning_memory_gb).solve_together

    @staticmethod
    def _load(checkpoint: str) -> LoadedModel:
        import torch

        torch.set_num_threads(1)
        # Ray hides every card from an actor that was given none.
        return load(checkpoint, "cuda" if torch.cuda.is_available() else "cpu")


def _build_worlds(config_json: str, count: int) -> list[World]:
    config = TypeAdapter[WorldConfig](WorldConfig).validate_json(config_json)
    return [build_world(config) for _ in range(count)]


def plain(outcome: PlanOutcome) -> dict[str, Any]:
    """An outcome as JSON can hold it: an unknown number is null, not NaN."""

    def known(value: Any) -> Any:
        if isinstance(value, list):
            return [known(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {key: known(value) for key, value in dataclasses.asdict(outcome).items()}


def outcome_from(values: dict[str, Any]) -> PlanOutcome:
    """The inverse of `plain`."""
    unknown = {key: float("nan") for key in _NUMBERS if values.get(key) is None}
    cost = [float("nan") if value is None else value for value in values["cost"]]
    return PlanOutcome(**{**values, **unknown, "cost": cost})


def read_outcome(path: Path) -> dict[str, Any] | None:
    """An outcome written earlier, or None."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def solve_all(
    tasks: Sequence[PlanTask],
    num_actors: int,
    resources: ResourcesConfig,
    done: _Done,
) -> None:
    """Solve every task that has no outcome yet; `done` hears of each as it ends, those found on disk first.

    Where one of those that are planned together has no outcome, all of them are planned again.

    Raises:
        OSError: an outcome cannot be written; those that were are found by the next call.
        UserError: the config does not fit the checkpoint or the world.
    """
    waiting: deque[tuple[_Group, int]] = deque()
    for group in _grouped(tasks):
        found = [read_outcome(Path(task.out)) for task in group]
        if any(outcome is None for outcome in found):
            waiting.append((group, 1))
            continue
        for task, outcome in zip(group, found, strict=True):
            assert outcome is not None
            done(task, outcome)
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
    busy: dict[Any, _Attempt] = {}
    try:
        while waiting or busy:
            working = {attempt.actor for attempt in busy.values()}
            for number, actor in enumerate(actors):
                if number not in working and waiting:
                    group, tries = waiting.popleft()
                    prepared = actor.prepare.remote(group[0])
                    busy[actor.solve.remote(group)] = _Attempt(number, group, tries, prepared)
            ready, _ = ray.wait(list(busy), timeout=1.0)
            for reference in ready:
                attempt = busy.pop(reference)
                try:
                    for task, outcome in zip(attempt.group, ray.get(reference), strict=True):
                        done(task, outcome)
                except (RayActorError, WorkerCrashedError) as error:
                    actors[attempt.actor] = make()
                    _again_or_failed(attempt, f"its process died: {_line(error)}", waiting, done)
                except RayTaskError as error:
                    if isinstance(error.cause, OSError | UserError):  # a full disk or a wrong config is no failed plan
                        raise error.cause from error
                    _alone_or_failed(attempt, _line(error.cause or error), waiting, done)
            for reference, attempt in list(busy.items()):
                if attempt.is_late(timeout_s):
                    del busy[reference]
                    ray.kill(actors[attempt.actor])
                    actors[attempt.actor] = make()
                    _alone_or_failed(attempt, f"took more than {timeout_s:g} s", waiting, done)
    finally:
        for actor in actors:
            ray.kill(actor)


def _grouped(tasks: Sequence[PlanTask]) -> list[_Group]:
    """Tasks that are planned together, in order: those whose numbers fall into the same span of `plan.together`."""
    groups: dict[tuple[Any, ...], list[PlanTask]] = {}
    together: dict[str, int] = {}
    for task in tasks:
        if task.config_json not in together:
            together[task.config_json] = int(json.loads(task.config_json)["plan"]["together"])
        span = task.number // together[task.config_json]
        groups.setdefault((task.checkpoint, task.config_json, task.problems, task.control, span), []).append(task)
    return [tuple(group) for group in groups.values()]


def _again_or_failed(attempt: _Attempt, reason: str, waiting: deque[tuple[_Group, int]], done: _Done) -> None:
    """What lost its process is tried again; at last each problem alone, since one of the group may be what kills it."""
    tries = attempt.tries + 1
    if tries > _TRIES:
        _failed(attempt.group, reason, done)
    elif tries == _TRIES:
        waiting.extend(((task,), tries) for task in attempt.group)
    else:
        waiting.append((attempt.group, tries))


def _alone_or_failed(attempt: _Attempt, reason: str, waiting: deque[tuple[_Group, int]], done: _Done) -> None:
    """Where something raised or hung, one of the group may be to blame: each is tried alone, and fails alone."""
    if len(attempt.group) == 1:
        _failed(attempt.group, reason, done)
    else:
        waiting.extend(((task,), attempt.tries) for task in attempt.group)


def _failed(group: _Group, reason: str, done: _Done) -> None:
    for task in group:
        problem = load_problems(Path(task.problems))[task.number]
        # Not written to disk: the same command tries it again.
        done(task, plain(PlanOutcome.failed(problem, reason)))


def _line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[-1][:200]}" if text else type(error).__name__
