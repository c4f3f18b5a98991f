"""Ray Tune's hooks for a sweep: who is next, who is stopped, and what each report means.

As shipped, Optuna's searcher under ASHA calls stopped trials complete, leaves trials running for ever when an objective is
missing or NaN, and judges a restored trial by an iteration counter that starts again (RAY.md 3 and 6). Here the study is told the
truth by the watcher, and nothing of Tune's own is ever restored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any, NamedTuple, Protocol

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from experiments.sweep_config import AshaPruning, SweepConfig
from experiments.sweep_record import TrialRecord
from wm.config.errors import UserError


class StudySearch(Searcher):
    """Hands out trial numbers; what they hold lies in the sweep's folder. It hears nothing: the watcher tells the study.

    Args:
        propose: the next trial's number, or None when there are no more.
    """

    def __init__(self, propose: Callable[[], int | None]) -> None:
        super().__init__(metric=None, mode=None)
        self._propose = propose

    def __getstate__(self) -> dict[str, Any]:
        return {}  # never restored: the study is durable

    def suggest(self, trial_id: str) -> Any:
        number = self._propose()
        return Searcher.FINISHED if number is None else {"number": number}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class _Numbered(NamedTuple):
    """A trial under the name it has in the study, which outlives Tune's."""

    trial_id: str


class DurableAsha(ASHAScheduler):
    """ASHA that knows the trials of earlier drivers, and each trial by its number.

    Time is the epoch that the checkpoint holds: Tune's own counter starts again when a trial does.

    It never lets Tune kill a trial, which leaves its placement groups behind and its MLflow run open (RAY.md 2 and 7): `stop` asks
    the trial to end by itself.

    Args:
        seen: finished trials, whose reports count in every rung.
        epochs: of a whole run; nothing is stopped at its last one.
        stop: hears the number of a trial that should not go on.
    """

    def __init__(
        self, pruning: AshaPruning, mode: str, epochs: int, seen: Sequence[TrialRecord], stop: Callable[[int], None]
    ) -> None:
        super().__init__(
            time_attr="epoch",
            metric="judged",
            mode=mode,
            max_t=epochs - 1,
            grace_period=pruning.grace_epochs,
            reduction_factor=pruning.reduction_factor,
            stop_last_trials=False,
        )
        self._stop = stop
        for trial in seen:
            stand_in: Any = _Numbered(str(trial.number))
            super().on_trial_add(_NO_CONTROLLER, stand_in)
            for epoch, value in trial.pruning:
                super().on_trial_result(_NO_CONTROLLER, stand_in, {"epoch": epoch, "judged": value})

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, self._known(trial))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if super().on_trial_result(tune_controller, self._known(trial), result) == TrialScheduler.STOP:
            self._stop(trial.config["number"])
        return TrialScheduler.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Nothing is left to judge."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Its reports still count."""

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Its reports still count."""

    @staticmethod
    def _known(trial: Any) -> Any:
        return _Numbered(str(trial.config["number"]))


_NO_CONTROLLER: Any = None


def scheduler(
    sweep: SweepConfig, mode: str, epochs: int, seen: Sequence[TrialRecord], stop: Callable[[int], None]
) -> TrialScheduler:
    """ASHA where there is an epoch at which a trial can be stopped."""
    pruning = sweep.pruning
    if isinstance(pruning, AshaPruning) and pruning.grace_epochs < epochs:
        return DurableAsha(pruning, mode, epochs, seen, stop)
    return FIFOScheduler()


class Listener(Protocol):
    """What becomes of what trials report."""

    def started(self, number: int) -> None: ...

    def row(self, number: int, run: int, step: int, metrics: dict[str, float]) -> None: ...

    def judged(self, number: int, epoch: int, value: float) -> None: ...

    def planned(self, number: int, done: int, total: int) -> None: ...

    def completed(self, number: int, final: list[dict[str, float]], values: list[float], seconds: float) -> None: ...

    def pruned(self, number: int, seconds: float) -> None: ...

    def failed(self, number: int, reason: str) -> None: ...

    def give_up(self, error: UserError) -> None: ...


class SweepWatcher(tune.Callback):
    """Turns Tune's events into what they mean, in the driver.

    A trial is complete only if it said `final` with a finite objective for every seed, and pruned only if it said so; whatever
    else it ends with is a failure.
    """

    def __init__(self, objective: str, listener: Listener) -> None:
        super().__init__()
        self._objective, self._listener = objective, listener
        self._began: dict[int, float] = {}
        self._final: dict[int, list[dict[str, float]]] = {}
        self._failure: dict[int, str] = {}
        self._pruned: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        self._began.setdefault(number, time.monotonic())
        self._listener.started(number)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        number = trial.config["number"]
        if "failure" in result:
            self._failure[number] = result["failure"]
            if result.get("fatal"):
                self._listener.give_up(UserError(result["failure"]))
        elif "pruned" in result:
            self._pruned.add(number)
        elif "final" in result:
            self._final[number] = result["final"]
        elif "planned" in result:
            self._listener.planned(number, result["planned"], result["problems"])
        elif "metrics" in result:
            self._listener.row(number, result["run"], result["step"], result["metrics"])
            if "judged" in result:
                self._listener.judged(number, result["epoch"], result["judged"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        seconds = time.monotonic() - self._began.get(number, time.monotonic())
        if number in self._failure:
            self._listener.failed(number, self._failure[number])
        elif number in self._pruned:
            self._listener.pruned(number, seconds)
        elif number not in self._final:
            self._listener.failed(number, "it ended without a result")
        else:
            final = self._final[number]
            values = [found.get(self._objective, float("nan")) for found in final]
            if all(map(isfinite, values)):
                self._listener.completed(number, final, values, seconds)
            else:
                self._listener.failed(number, f"its objective {self._objective} is not a finite number: {values}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        lines = [line for line in str(trial.get_error() or "").strip().splitlines() if line.strip()]
        reason = lines[-1].strip()[:300] if lines else "its processes died"
        self._listener.failed(number, self._failure.get(number, reason))
