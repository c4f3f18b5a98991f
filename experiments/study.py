"""A sweep's trials in Optuna's durable storage: each once, with its true state, whoever was killed in between.

waiting --propose--> running --complete--> complete
   ^                    |------prune-----> pruned
   |                    '------fail------> failed
   '-- reopen: what a killed driver left running is proposed again first, with its own number and values
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from typing import Any, Literal, NamedTuple

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from experiments.search_space import Choice, SearchSpace
from experiments.sweep_config import SweepConfig
from experiments.sweep_record import TrialRecord
from wm.config.errors import UserError
from wm.config.experiment import ExperimentConfig

_STATES: dict[TrialState, Literal["complete", "pruned", "failed", "running", "waiting"]] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
_SEEDS, _PRUNING, _FAILURE, _SECONDS = "seed_values", "pruning", "failure", "seconds"
_MIN_FOR_IMPORTANCE = 4


class Proposal(NamedTuple):
    """A trial to run: config path -> value."""

    number: int
    params: dict[str, Any]


class Study:
    """One sweep's trials. One process at a time may hold it.

    Args:
        url: Optuna storage, as in sqlite:///STORAGE_ROOT/optuna.db; None keeps all in memory.
        name: the study's name there.
        base: the searched run's own config, for conditions and bounds that refer to it.

    Raises:
        UserError: the storage cannot be opened or written.
    """

    def __init__(
        self, url: str | None, name: str, space: SearchSpace, base: ExperimentConfig, sweep: SweepConfig
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        (_, mode), *others = space.objectives.items()
        if others:
            raise UserError(f"{space.name}: objectives: one is searched at a time, got {list(space.objectives)}")
        self._space, self._base, self._sweep = space, base, sweep
        # TPE ranks pruned trials by what they reported last, in the objective's own sense.
        prune_mode = next(iter(space.prune_on.values()), mode)
        self._sign = 1.0 if prune_mode == mode else -1.0
        with _storage_faults(url):
            self._study = optuna.create_study(
                storage=url,
                study_name=name,
                direction="maximize" if mode == "max" else "minimize",
                sampler=_SeededTPE(sweep.seed, sweep.num_startup_trials),
                load_if_exists=True,
            )
            self._url = url
            self._trials: dict[int, optuna.Trial] = {}

    @staticmethod
    def names(url: str) -> list[str]:
        """The studies that were started. Raises UserError when the storage cannot be read."""
        with _storage_faults(url):
            return sorted(optuna.get_all_study_names(url))

    def reopen(self) -> list[int]:
        """Put what is still running, and so was abandoned, back in the queue; returns the numbers."""
        with _storage_faults(self._url):
            left = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            for trial in left:
                self._study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
            return [trial.number for trial in left]

    def propose(self) -> Proposal:
        """The next trial: an abandoned one if there is any, else a new one. It is running from now on."""
        with _storage_faults(self._url):
            trial = self._study.ask()
            self._trials[trial.number] = trial
            return Proposal(trial.number, self._sample(trial))

    def preview(self, count: int) -> list[Proposal]:
        """What would be proposed next if nothing more became known; the study itself is left as it is."""
        known = self.copy_in_memory()
        return [known.propose() for _ in range(count)]

    def copy_in_memory(self) -> Study:
        """The same trials, what is running back in the queue, in a study that nothing else sees."""
        copy = Study(None, self._study.study_name, self._space, self._base, self._sweep)
        with _storage_faults(self._url):
            for trial in self._study.get_trials():
                if trial.state == TrialState.RUNNING:
                    trial.state, trial.datetime_start = TrialState.WAITING, None
                copy._study.add_trial(trial)
        return copy

    def report(self, number: int, epoch: int, value: float) -> None:
        """The validation metric at an epoch of the judged seed; one already known is left as it is."""
        with _storage_faults(self._url):
            trial = self._trials[number]
            pruning: dict[str, float] = dict(trial.user_attrs.get(_PRUNING, {}))
            if str(epoch) not in pruning and isfinite(value):
                trial.set_user_attr(_PRUNING, {**pruning, str(epoch): value})
                trial.report(self._sign * value, epoch)

    def complete(self, number: int, seed_values: Mapping[int, float], seconds: float) -> None:
        """The trial ended with the objective of each seed; its value is their mean."""
        with _storage_faults(self._url):
            trial = self._trials[number]
            trial.set_user_attr(_SEEDS, {str(seed): value for seed, value in seed_values.items()})
            trial.set_user_attr(_SECONDS, seconds)
            self._tell(trial, TrialState.COMPLETE, sum(seed_values.values()) / len(seed_values))

    def prune(self, number: int, seconds: float) -> None:
        """The trial was stopped on its validation metric."""
        with _storage_faults(self._url):
            self._trials[number].set_user_attr(_SECONDS, seconds)
            self._tell(self._trials[number], TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        """The trial could not be finished."""
        with _storage_faults(self._url):
            self._trials[number].set_user_attr(_FAILURE, reason)
            self._tell(self._trials[number], TrialState.FAIL)

    @property
    def num_finished(self) -> int:
        """Complete, pruned and failed."""
        return sum(trial.state in ("complete", "pruned", "failed") for trial in self.trials())

    def trials(self) -> list[TrialRecord]:
        """Every trial, by number."""
        with _storage_faults(self._url):
            return [self._record(trial) for trial in self._study.get_trials(deepcopy=False)]

    def importances(self) -> dict[str, float]:
        """Share of the objective's variance that each path explains (fANOVA), largest first.

        Empty with fewer than four complete trials, or where the objective is the same in all. A path that some trials did not
        sample is judged on those that did.
        """
        complete = [t for t in self._study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
        found: dict[str, float] = {}
        for path in self._space.space:
            having = [trial for trial in complete if path in trial.params]
            if len(having) < _MIN_FOR_IMPORTANCE or len({trial.value for trial in having}) == 1:
                continue
            shared = [p for p in self._space.space if all(p in trial.params for trial in having)]
            if len({str(trial.params[path]) for trial in having}) == 1:
                continue
            subset = optuna.create_study(direction=self._study.direction)
            subset.add_trials(_over_one_range(having, shared))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
                shares = optuna.importance.get_param_importances(subset, evaluator=evaluator, params=shared)
            found[path] = float(shares[path])
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def _tell(self, trial: optuna.Trial, state: TrialState, value: float | None = None) -> None:
        self._study.tell(trial, value, state=state)
        del self._trials[trial.number]

    def _sample(self, trial: optuna.Trial) -> dict[str, Any]:
        sampled: dict[str, Any] = {}
        for path, parameter in self._space.space.items():
            if not self._space.active(path, sampled, self._base):
                continue
            if isinstance(parameter, Choice):
                sampled[path] = parameter.values[_index(trial, path, parameter)]
                continue
            low, high = self._space.bounds(path, sampled, self._base)
            if parameter.kind == "int":
                sampled[path] = trial.suggest_int(path, int(low), int(high))
            else:
                sampled[path] = trial.suggest_float(path, low, high, log=parameter.kind == "loguniform")
        return sampled

    def _record(self, trial: FrozenTrial) -> TrialRecord:
        attrs = trial.user_attrs
        params: dict[str, Any] = {}
        for path, value in trial.params.items():
            parameter = self._space.space.get(path)
            params[path] = _decode(value, parameter) if isinstance(parameter, Choice) else value
        return TrialRecord(
            number=trial.number,
            state=_STATES[trial.state],
            params={path: params[path] for path in self._space.space if path in params},
            value=trial.value if trial.state == TrialState.COMPLETE else None,
            seed_values={int(seed): float(value) for seed, value in attrs.get(_SEEDS, {}).items()},
            pruning=sorted((int(epoch), float(value)) for epoch, value in attrs.get(_PRUNING, {}).items()),
            failure=attrs.get(_FAILURE),
            seconds=attrs.get(_SECONDS),
        )


class _SeededTPE(BaseSampler):
    """TPE whose every draw has a generator of its own, from (sweep seed, trial, path).

    So a resumed study proposes what an undisturbed one would: there is no generator state to lose. Source: Bergstra et al.
    2011; multivariate, as in Falkner et al. 2018, arXiv:1807.01774.
    """

    def __init__(self, seed: int, num_startup_trials: int) -> None:
        self._seed, self._num_startup = seed, num_startup_trials

    def _tpe(self, trial: FrozenTrial, path: str) -> TPESampler:
        digest = hashlib.sha256(f"{self._seed}/{trial.number}/{path}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big")
        return TPESampler(seed=seed, n_startup_trials=self._num_startup, constant_liar=True, multivariate=True)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._tpe(trial, "").infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._tpe(trial, "").sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._tpe(trial, param_name).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Nothing: there is no state."""


def _index(trial: optuna.Trial, path: str, parameter: Choice) -> int:
    """Optuna knows plain values; others go by their JSON."""
    names = [_plain(value) for value in parameter.values]
    return names.index(trial.suggest_categorical(path, names))


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value, default=list)


def _decode(value: Any, parameter: Choice) -> Any:
    return next((given for given in parameter.values if _plain(given) == value), value)


def _over_one_range(trials: Sequence[FrozenTrial], paths: Sequence[str]) -> list[FrozenTrial]:
    """Only some paths; a bound that refers to another path makes ranges differ, and fANOVA wants one."""
    ranges: dict[str, BaseDistribution] = {}
    for path in paths:
        first, *others = [trial.distributions[path] for trial in trials]
        if isinstance(first, IntDistribution | FloatDistribution):
            every: list[Any] = [first, *others]
            low, high = min(one.low for one in every), max(one.high for one in every)
            first = type(first)(low, high, log=first.log)
        ranges[path] = first
    return [
        optuna.trial.create_trial(
            state=trial.state,
            value=trial.value,
            params={path: trial.params[path] for path in paths},
            distributions=ranges,
        )
        for trial in trials
    ]


@contextmanager
def _storage_faults(url: str | None) -> Iterator[None]:
    """One line for a storage that cannot be used."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = str(error.__cause__ or error).splitlines()[0][:200]
        hint = "free some space and run the same command" if "full" in reason else "check that it can be written"
        raise UserError(f"the study's storage {url}: {reason}; {hint}") from error
