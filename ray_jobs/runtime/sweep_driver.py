"""The one process that writes: hands out a sweep's trials, and tells MLflow, the study and the screen what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, TypeVar, cast

from experiments.study import Study
from ray_jobs.runtime.placement import Placement
from ray_jobs.runtime.progress import Narrator
from ray_jobs.runtime.runs import Run
from ray_jobs.runtime.searched import Searched, write_spec
from ray_jobs.runtime.sweep_recording import SweepRecorder
from ray_jobs.runtime.sweep_trial import stop_file, write_job
from ray_jobs.runtime.sweep_view import SweepView
from wm.config.errors import UserError

_Method = TypeVar("_Method", bound=Callable[..., None])


def _guarded(method: _Method) -> _Method:
    """What cannot be written ends the sweep with its reason; its trials stay running in the study, to be gone on with."""

    @wraps(method)
    def call(self: SweepDriver, *given: Any, **named: Any) -> None:
        if self.fault is None:
            try:
                method(self, *given, **named)
            except (UserError, OSError) as error:
                self.give_up(error)

    return cast(_Method, call)


class SweepDriver:
    """Proposes trials and is Tune's `Listener`. It writes to MLflow, to the study and to the screen, in this order.

    A driver that is killed in between leaves the trial running in the study: it is proposed again, found complete on disk, and
    written again under the same names.
    """

    def __init__(
        self, searched: Searched, study: Study, recorder: SweepRecorder, placement: Placement, narrator: Narrator
    ) -> None:
        self._searched, self._study, self._recorder, self._placement = searched, study, recorder, placement
        self._runs: dict[int, list[Run]] = {}
        self.fault: UserError | None = None
        known = study.trials()
        finished = [trial for trial in known if trial.state in ("complete", "pruned", "failed")]
        self._left = searched.space.sweep.num_trials - len(finished)
        self.view = SweepView(
            narrator.console,
            searched.objective,
            searched.prune_on,
            searched.space.sweep.num_trials,
            len(finished),
            placement,
            searched.mode == "max",
        )
        for trial in finished:
            if trial.value is not None:
                self.view.known(trial.number, trial.value)

    def propose(self) -> int | None:
        """Write the next trial's job and spec. None when there are enough, or when the study cannot be written."""
        if self._left <= 0 or self.fault is not None:
            return None
        try:
            return self._propose()
        except (UserError, OSError) as error:
            self.give_up(error)
            return None

    def _propose(self) -> int:
        proposal = self._study.propose()
        self._left -= 1
        searched, number = self._searched, proposal.number
        spec_file = searched.folder / "trials" / f"{number:04d}.yaml"
        # Left by a sweep that gave up. If it was ASHA's, the trial is judged again by what it reported.
        stop_file(searched.folder, number).unlink(missing_ok=True)
        planned = searched.objective.startswith("plan/")
        actors = self._placement.planning_actors_per_run
        try:
            runs = searched.runs(proposal)
            write_spec(spec_file, searched.trial_spec(number, proposal.params))
            write_job(searched.folder, number, runs, searched.prune_on, planned, actors)
            self._runs[number] = runs
        except UserError as error:  # the sampled values do not go together: this trial fails, the others go on
            write_job(searched.folder, number, error, searched.prune_on, planned, actors)
        self._recorder.trial(number, proposal.params, spec_file)
        return number

    def give_up(self, error: UserError | OSError) -> None:
        """Ask every trial to end; the first reason counts."""
        self.fault = self.fault or (error if isinstance(error, UserError) else UserError(f"cannot be written: {error}"))
        for number in self._runs:
            with suppress(OSError):
                self.stop(number)

    def stop(self, number: int) -> None:
        """Ask a trial to end at its next report."""
        stop_file(self._searched.folder, number).touch()

    def started(self, number: int) -> None:
        self.view.running(number, "starting", 0.0)

    @_guarded
    def row(self, number: int, run: int, step: int, metrics: dict[str, float]) -> None:
        runs = self._runs[number]
        fresh = {k: v for k, v in metrics.items() if k not in ("train/steps_per_s", "train/time_s", "train/epoch")}
        self._recorder.rows(number, run, runs[run], [{"step": step, "metrics": fresh}])
        total = runs[run].inputs.total_steps
        doing = f"seed {runs[run].plan.seed}, step {step} of {total}"
        judged = metrics.get(self._searched.prune_on or "") if run == 0 else None
        self.view.running(number, doing, 0.9 * (run + step / total) / len(runs), judged)

    @_guarded
    def judged(self, number: int, epoch: int, value: float) -> None:
        self._study.report(number, epoch, value)

    def planned(self, number: int, done: int, total: int) -> None:
        self.view.running(number, f"planning, {done} of {total} problems", 0.9 + 0.1 * done / total)

    @_guarded
    def completed(self, number: int, final: list[dict[str, float]], values: list[float], seconds: float) -> None:
        runs = self._runs[number]
        self._fill(number)
        self._recorder.complete(number, runs, final, values)
        self._study.complete(number, {run.plan.seed: value for run, value in zip(runs, values, strict=True)}, seconds)
        self.view.ended(number, "complete", sum(values) / len(values), seconds)

    @_guarded
    def pruned(self, number: int, seconds: float) -> None:
        self._fill(number)
        self._recorder.end(number, "pruned")
        self._study.prune(number, seconds)
        self.view.ended(number, "pruned", None, seconds)

    @_guarded
    def failed(self, number: int, reason: str) -> None:
        self._recorder.end(number, "failed", reason)
        self._study.fail(number, reason)
        self.view.ended(number, "failed", note=reason)

    def _fill(self, number: int) -> None:
        """Rows that a driver which ended never heard of are in the runs' own history; the study wants those of the first."""
        for index, run in enumerate(self._runs[number]):
            history = run.inputs.folder.history()
            if history:
                self._recorder.rows(number, index, run, history)
            for row in history if index == 0 else ():
                if self._searched.prune_on in row["metrics"]:
                    self._study.report(number, int(row["epoch"]), row["metrics"][self._searched.prune_on])
