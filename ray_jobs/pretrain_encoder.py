"""An encoder from spec to model card: make what data are missing, debug, train, judge, export, record.

python -m ray_jobs.pretrain_encoder tiny [path=value ...]      (or: wm pretrain-encoder ...)
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from experiments.pretrain_spec import PretrainSpec, WorldRecipe, load_pretrain_spec
from experiments.tracking import RunLog, Tracker
from ray_jobs.make_data import check_data, is_made, make_data
from ray_jobs.runtime.cluster import check_shared, cluster, is_local, local_node
from ray_jobs.runtime.encoder_export import describe, export
from ray_jobs.runtime.judging import check_judge
from ray_jobs.runtime.placement import place
from ray_jobs.runtime.pretrain_trial import pretrain_trial
from ray_jobs.runtime.pretraining import Pretraining
from ray_jobs.runtime.progress import Narrator, Stage
from ray_jobs.runtime.storage import storage_root
from ray_jobs.runtime.training import clean, fit_trials, scratch
from wm.config.errors import UserError
from wm.config.pretrain import PretrainConfig
from wm.data.dataset import need_public, open_source
from wm.pretraining_run import PretrainInputs, teacher_encoder
from wm.training.reporter import NullReporter

EXPERIMENT = "encoders"  # in MLflow, unless tracking.experiment says another
DEBUG_STEPS = 2


def pretrain_encoder(spec: PretrainSpec, overrides: dict[str, Any], narrator: Narrator, command: str = "") -> Path:
    """Everything a spec asks for; what is complete already is not done again. Returns the encoder's folder.

    Args:
        command: what a person typed, for the card.

    Raises:
        UserError: before any work for whatever can be known to be wrong, or when training failed.
        KeyboardInterrupt: after a clean stop.
    """
    with narrator.step("Check the spec, the data and the tracker"):
        config = spec.resolve(overrides)
        root = storage_root(config.storage.root)
        config = config.model_copy(update={"storage": config.storage.model_copy(update={"root": str(root)})})
        if is_local():
            place(config.resources, [local_node()], 1)
        missing = missing_data(spec, config, root)
        training = None if missing else open_training(spec, config, root)
        tracker = Tracker(config.tracking, root, config.tracking.experiment or EXPERIMENT)
    if missing:
        with narrator.step(f"Make {len(missing)} of {len(config.data.sources)} data sets", "episodes") as stage:
            for name, (recipe, out) in missing.items():
                _make(name, recipe, out, stage)
    with ExitStack() as stack:
        if training is None:
            with narrator.step("Open the data"):
                training = open_training(spec, config, root)
        narrator.say(
            f"{training.inputs.hash}: {training.steps_done} of {training.total_steps} steps are done; under {root}"
        )
        if training.result is None:
            with narrator.step("Debug pass: a few batches, and the probes on a few pictures"):
                for note in debug_pass(training):
                    narrator.say(f"[yellow]{escape(note)}[/yellow]")
            with narrator.step("Start Ray" if is_local() else "Join the Ray cluster"):
                place(config.resources, stack.enter_context(cluster()), 1)
                check_shared(root)
        log = training.open_log(tracker)
        try:
            out = _run(training, log, narrator, command)
        except BaseException as error:
            log.finish("FAILED" if isinstance(error, UserError) else "KILLED")
            raise
        finally:
            clean(root)
    narrator.console.print(describe(out), soft_wrap=True, highlight=False)
    return out


def open_training(spec: PretrainSpec, config: PretrainConfig, root: Path) -> Pretraining:
    """Raises UserError when the data are not what the config says, or its clips do not fit."""
    return Pretraining(spec, PretrainInputs(config, root))


def missing_data(spec: PretrainSpec, config: PretrainConfig, root: Path) -> dict[str, tuple[WorldRecipe, Path]]:
    """What must be made first, and where. Raises UserError for bad recipes, and for other sources that are not there."""
    need_public(config.data, root)
    missing: dict[str, tuple[WorldRecipe, Path]] = {}
    for name, recipe in spec.make.items():
        out = root / "data" / config.data.sources[name].path
        with _named(name):
            if not is_made(recipe.world, out, **_arguments(recipe)):
                missing[name] = recipe, out
    if missing:
        for name, source in config.data.sources.items():
            if name not in missing:
                open_source(source, name, root / "data" / source.path, config.data.max_faulty)
        for name, (recipe, out) in missing.items():
            with _named(name):
                check_data(recipe.world, out, **_arguments(recipe))
    return missing


def _arguments(recipe: WorldRecipe) -> dict[str, Any]:
    """As `make_data` takes them."""
    given = recipe.model_dump(exclude={"world", "size", "settings"})
    return {**given, "frame_size": recipe.size, "overrides": recipe.settings}


@contextmanager
def _named(name: str) -> Iterator[None]:
    """A fault says which recipe it is in."""
    try:
        yield
    except UserError as error:
        raise UserError(f"make.{name}: {error}") from error


def _make(name: str, recipe: WorldRecipe, out: Path, stage: Stage) -> None:
    with _named(name):
        make_data(recipe.world, out, **_arguments(recipe), progress=lambda done, total: stage.update(done, total, name))


def debug_pass(training: Pretraining) -> list[str]:
    """Two steps in this process, and the probes on a few pictures; returns what a person should know.

    Raises UserError with the reason.
    """
    config = training.config
    quick = {"epochs": 1, "steps_per_epoch": DEBUG_STEPS, "device": "cpu", "patience": None}
    hasty = config.model_copy(update={"train": config.train.model_copy(update=quick)})
    try:
        inputs = PretrainInputs(hasty, training.inputs.root)
        trained = inputs.training(NullReporter(), inputs.local_batches, keep_checkpoints=False)
        trained.run()
        notes = check_judge(config, inputs.dataset, teacher_encoder(trained.model, config))
    except UserError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(f"{training.title}: the debug pass failed: {type(error).__name__}: {reason}") from error
    return [*inputs.dataset.faulty_notes, *notes]  # labels are not learnt from


def _run(training: Pretraining, log: RunLog, narrator: Narrator, command: str) -> Path:
    if training.result is None:
        with narrator.step(f"Train on {training.config.resources.num_workers} workers", "steps") as stage:
            _train(training, log, stage)
    result = training.result
    if result is None:
        reason = training.failure or "its processes died more often than resources.max_failures allows"
        log.tag(failure=reason)
        raise UserError(f"{training.title} could not be trained: {reason}")
    last = result["history"][-1]["step"]
    if last < training.total_steps:
        narrator.say(
            f"ended at step {last} of {training.total_steps}: {training.config.train.best_metric} stopped improving"
        )
    log.rows(result["history"])
    log.rows([{"step": last, "metrics": {"train/time_s": result["time_s"]}}])
    with narrator.step("Export the encoder and write its card", "parts") as stage:
        out = export(training, command, stage)
    log.artifact(out, "encoder")
    log.tag(failure="")
    log.finish("FINISHED")
    return out


def _train(training: Pretraining, log: RunLog, stage: Stage) -> None:
    job, folder = training.job, scratch(training.inputs.root)
    stage.update(training.steps_done, training.total_steps, training.title)
    fit_trials(
        [training],
        lambda number: pretrain_trial(job, folder),
        lambda _, rows: log.rows(rows),
        stage,
        folder,
        at_once=1,
        max_failures=training.config.resources.max_failures,
    )


def typed(spec: str, overrides: Sequence[str]) -> str:
    """The command line, for the card; where results lie is this machine's own."""
    given = [each for each in overrides if not each.startswith(("storage.", "tracking."))]
    return shlex.join(["wm", "pretrain-encoder", spec, *given])


def main(arguments: Sequence[str]) -> int:
    """`python -m ray_jobs.pretrain_encoder SPEC [path=value ...]`."""
    console = Console()
    try:
        if not arguments:
            raise UserError("a spec is missing: python -m ray_jobs.pretrain_encoder SPEC [path=value ...]")
        spec, overrides = load_pretrain_spec(arguments[0], arguments[1:])
        pretrain_encoder(spec, overrides, Narrator(console), typed(arguments[0], arguments[1:]))
    except UserError as error:
        console.print(f"error: {error}", style="red", soft_wrap=True, highlight=False, markup=False)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
