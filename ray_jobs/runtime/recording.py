"""An experiment in MLflow: one parent, a child for each run, every number once."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.figures import rollout_strip
from experiments.ledger import CONFIG, PICTURES, PLAN_LOG
from experiments.pictures import plan_video
from experiments.provenance import dirty_diff, git_commit, library_versions, machine
from experiments.spec import Spec
from experiments.tracking import RunLog, Tracker, flatten
from ray_jobs.runtime.problems import problems_file
from ray_jobs.runtime.runs import Run
from wm.build import build_world, load
from wm.evaluation.forgetting import Forgetting
from wm.evaluation.outcomes import PlanOutcome, outcome_frames
from wm.evaluation.problems import load_problems
from wm.evaluation.retrieval import FrameBank, imagined_strip
from wm.training.checkpoint import find_checkpoint

FAULTY = "faulty_episodes.json"
_BANK_CLIPS = 256


class Recorder:
    """Writes one experiment. The same command finds the same parent and children again."""

    def __init__(self, tracker: Tracker, spec: Spec, runs: Sequence[Run], parent: str | None = None) -> None:
        self.tracker = tracker
        self._runs = runs
        self._children: dict[int, RunLog] = {}
        key = "/".join(sorted(run.key + str(run.config.evaluate.grid) for run in runs))
        identity = hashlib.sha256(f"{spec.name}/{runs[0].config.plan.episodes}/{key}".encode()).hexdigest()[:12]
        tags = {
            "wm.role": "experiment",
            "wm.question": spec.question,
            "wm.reference": spec.reference,
            "wm.runs": json.dumps(list(spec.runs)),
            "wm.compare": json.dumps([str(pair) for pair in spec.comparisons]),
            "wm.metric": spec.metric,
            "wm.mode": spec.mode,
            "spec": spec.name,
            **{f"fact.{name}": value for name, value in facts(runs).items()},
        }
        self.parent = tracker.open_run(spec.name, identity, parent=parent, tags=tags)
        keep_diff(self.parent)
        self._spec = spec

    def child(self, run: Run) -> RunLog:
        """The run's MLflow run, opened on first use."""
        if id(run) not in self._children:
            tags = {
                "variant": run.plan.run,
                "case": run.plan.case,
                "seed": str(run.plan.seed),
                "spec": self._spec.name,
                "commit": git_commit(),
                "data_fingerprint": run.inputs.dataset.fingerprint,
                "encoder": f"{run.config.encoder.kind} {run.inputs.encoder.fingerprint}",
                "wm.train_hash": run.inputs.hash,
                **{f"version.{name}": version for name, version in library_versions().items()},
            }
            # Paths and addresses stay out: they are this machine's, and an address may hold a password.
            config = run.config.model_dump(mode="json", exclude={"storage", "tracking"})
            log = self.tracker.open_run(run.name, run.key, parent=self.parent.run_id, tags=tags, params=flatten(config))
            self._children[id(run)] = log
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / CONFIG
                file.write_text(json.dumps(config, indent=1), encoding="utf-8")
                log.artifact(file)
            faulty = run.inputs.dataset.faulty
            if faulty:
                log.text(FAULTY, json.dumps([each._asdict() for each in faulty], indent=1))
                log.tag(**{"wm.faulty_episodes": str(len(faulty))})
        return self._children[id(run)]

    def rows(self, run: Run, rows: Iterable[Mapping[str, Any]]) -> None:
        """Metric rows of a run; those already there are skipped."""
        self.child(run).rows(rows)

    def fail(self, run: Run, reason: str) -> None:
        """A run that will not be complete."""
        log = self.child(run)
        log.tag(failure=reason)
        log.finish("FAILED")

    def outcomes(
        self, run: Run, by_horizon: Mapping[int, Sequence[PlanOutcome]], logs: Mapping[int, list[dict[str, Any]]]
    ) -> None:
        """Checkpoint, plan log and pictures of a complete run."""
        log = self.child(run)
        checkpoint = find_checkpoint(run.inputs.folder.path)
        log.artifact(checkpoint, "checkpoint")
        with tempfile.TemporaryDirectory() as folder:
            files = {Path(folder) / PLAN_LOG: json.dumps(logs).encode()}
            for name, content in self._pictures(run, checkpoint, by_horizon).items():
                files[Path(folder) / PICTURES[name]] = content
            for file, content in files.items():
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
                log.artifact(file, file.parent.name)
        log.tag(failure="")
        log.finish()

    def forgetting(self, run: Run, found: Forgetting) -> None:
        """What a run that started from another forgot."""
        self.child(run).text("forgetting.json", json.dumps(found.to_json(), indent=1))
        self.rows(run, [{"step": run.inputs.total_steps, "metrics": found.forgotten}])

    def controls(self, values: Mapping[str, Mapping[str, list[float]]]) -> None:
        """The random-action control of each case."""
        self.parent.tag(**{"wm.controls": json.dumps(values)})

    def finish(self, status: str, report: Path | None = None, seconds: Mapping[str, float] | None = None) -> None:
        """End the parent, and every child that is still running."""
        if report is not None:
            self.parent.artifact(report)
        if seconds:
            self.parent.tag(**{"fact.seconds": ", ".join(f"{name}: {value:.1f}" for name, value in seconds.items())})
        if status != "FINISHED":
            for run in self._runs:
                if id(run) in self._children and run.failure is None:
                    self._children[id(run)].finish(status)
        self.parent.finish(status)

    def _pictures(
        self, run: Run, checkpoint: Path, by_horizon: Mapping[int, Sequence[PlanOutcome]]
    ) -> dict[str, bytes]:
        inputs, evaluate = run.inputs, run.config.evaluate
        if not inputs.dataset.has_pixels:
            return {}
        model = load(checkpoint)
        clip = inputs.dataset.held_out_clips(run.config.model.history_len + run.config.longest_horizon).spread(
            1, evaluate.seed
        )
        bank = inputs.dataset.training_clips(run.config.model.history_len + 1).spread(_BANK_CLIPS, evaluate.seed)
        known = FrameBank(model.model, inputs.dataset, bank, inputs.batch(bank))
        strip = imagined_strip(model.model, inputs.dataset, clip[0], inputs.batch(clip), known)
        pictures = {"rollout_strip": rollout_strip(strip)}
        horizon = next(iter(by_horizon), 0)
        outcome = next((o for o in by_horizon.get(horizon, ()) if o.failure is None), None)
        if outcome is not None:
            problem = next(p for p in load_problems(problems_file(run, horizon)) if p.id == outcome.problem)
            executed = outcome_frames(build_world(run.config.plan.world), problem, outcome.states)
            pictures["plan_video"] = plan_video(executed, problem.frame_g, outcome.success)
        return pictures


def keep_diff(parent: RunLog) -> None:
    """How the code differs from the commit that the facts name."""
    if dirty_diff():
        parent.text("uncommitted.diff", dirty_diff())


def facts(runs: Sequence[Run]) -> dict[str, str]:
    """What held for all runs: commit, data, encoder, machine, versions."""
    first = runs[0]
    return {
        "commit": git_commit(),
        "data": ", ".join(sorted({run.inputs.dataset.fingerprint for run in runs})),
        "encoder": f"{first.config.encoder.kind} {first.inputs.encoder.fingerprint}",
        "machine": machine(),
        "versions": ", ".join(f"{name} {version}" for name, version in library_versions().items()),
    }
