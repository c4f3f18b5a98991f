"""A few batches of every variant in this process, before anything is started: most mistakes show here, with their reason."""

from __future__ import annotations

from ray_jobs.runtime.problems import problems_file
from ray_jobs.runtime.runs import Run
from wm.build import build_world
from wm.build_planning import planning_evaluation
from wm.config.base import Config
from wm.config.errors import UserError
from wm.config.experiment import ExperimentConfig
from wm.config.resolve import with_overrides
from wm.data.normalization import DataStatistics
from wm.evaluation.problems import load_problems
from wm.loaded import LoadedModel
from wm.training.reporter import NullReporter
from wm.training.verdict import config_warnings
from wm.training_run import RunInputs

STEPS = 2


def debug_pass(run: Run) -> list[str]:
    """Train two steps, validate and, if the config plans, plan once with few samples; returns what looks like a mistake.

    Raises UserError with run and reason.
    """
    try:
        return _pass(run)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else ""
        raise UserError(f"{run.title}: the debug pass failed: {type(error).__name__}: {reason}") from error


def _pass(run: Run) -> list[str]:
    config = with_overrides(
        run.config,
        {
            "train.epochs": 1,
            "train.steps_per_epoch": STEPS,
            "train.device": "cpu",
            "evaluate.clips": 8,
            "evaluate.probe_clips": 16,
            "plan.max_iterations": 1,
        },
    )
    inputs = RunInputs(config, run.inputs.root, run.inputs.encoder)
    training = inputs.training(NullReporter(), inputs.local_batches, keep_checkpoints=False)
    training.run()
    warnings = [*config_warnings(training.model), *inputs.dataset.notes]
    if not config.evaluate.grid.goal_horizons:
        return warnings
    model = training.model.eval().requires_grad_(False)
    statistics = DataStatistics.from_json(training.facts["statistics"])
    loaded = LoadedModel(_hasty(config), inputs.encoder, model, statistics, training.facts)
    problem = load_problems(problems_file(run, config.evaluate.grid.goal_horizons[0]))[0]
    world = build_world(loaded.config.plan.world)
    outcome = planning_evaluation(loaded.config.plan, loaded, [world]).solve(problem)
    if outcome.failure is not None:
        raise UserError(f"planning: {outcome.failure}")
    return warnings


def _hasty(config: ExperimentConfig) -> ExperimentConfig:
    """The same planner with next to no samples."""
    few: dict[str, int] = {"num_samples": 4, "num_elites": 2, "num_iterations": 1}
    planner: Config = config.plan.planner
    fields = type(planner).model_fields
    hasty = planner.model_copy(update={key: value for key, value in few.items() if key in fields})
    return config.model_copy(update={"plan": config.plan.model_copy(update={"planner": hasty})})
