"""What a sweep searches, its trials as specs, and what is refused before any work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.search_space import value_at_path
from experiments.spec import load_spec
from experiments.study import Study
from ray_jobs.runtime.searched import Searched, write_spec
from ray_jobs.runtime.sweep_trial import job_file, write_job
from wm.config.errors import UserError


@pytest.mark.parametrize("space", ["alignment", "reconstruction", "horizon"])
def test_a_trials_spec_alone_is_that_trial(opened: Callable[..., Searched], tmp_path: Path, space: str) -> None:
    searched = opened("sweep.num_seeds=2", space=space)
    for proposal in searched.study(in_memory=True).preview(4):
        runs = searched.runs(proposal)
        write_spec(tmp_path / "trial.yaml", searched.trial_spec(proposal.number, proposal.params))
        spec, _ = load_spec(tmp_path / "trial.yaml")
        alone = spec.resolve_runs({"storage.root": str(searched.root)})
        assert [plan.seed for plan in alone] == [0, 1]
        assert [plan.config for plan in alone] == [run.config for run in runs]
        for path, value in proposal.params.items():
            assert value_at_path(runs[0].config, path) == value


def test_the_confirmation_uses_fresh_seeds(opened: Callable[..., Searched], tmp_path: Path) -> None:
    searched = opened("sweep.num_seeds=3", "sweep.fresh_seeds=2")
    proposal = searched.study(in_memory=True).preview(1)[0]
    write_spec(tmp_path / "c.yaml", searched.confirmation_spec(0, proposal.params))
    spec, _ = load_spec(tmp_path / "c.yaml")
    assert spec.seeds == (3, 4)
    assert spec.compare == ("best - default",)
    default, _, best, _ = spec.resolve_runs({"storage.root": str(searched.root)})
    assert default.config.model == searched.base.config.model
    assert best.config.model == searched.runs(proposal)[0].config.model


def test_the_name_stands_for_what_decides_the_trials(opened: Callable[..., Searched]) -> None:
    name = opened().name
    for same in ("sweep.num_trials=3", "sweep.fresh_seeds=0", "resources.runs_at_once=1", "tracking.experiment=x"):
        assert opened(same).name == name, same
    for other in ("sweep.num_seeds=2", "sweep.seed=1", "sweep.pruning.kind=none", "train.epochs=7", "plan.episodes=2"):
        assert opened(other).name != name, other
    assert opened(space="horizon").name != name


def test_a_trial_that_the_config_refuses_fails_alone(tmp_path: Path) -> None:
    write_job(tmp_path, 7, UserError("model.alignment.dim: more than there are"), None, True, 1)
    job = json.loads(job_file(tmp_path, 7).read_text())
    assert job["failure"] == "model.alignment.dim: more than there are"
    assert job["runs"] == []


@pytest.mark.parametrize(
    ("arguments", "more", "expected"),
    [
        ((), {"space": "alignmnt"}, "unknown search space 'alignmnt'. Did you mean 'alignment'"),
        (
            ("sweep.num_trails=3",),
            {},
            "sweep.num_trails: no such setting (in the command line). Did you mean 'sweep.num_trials'",
        ),
        (("sweep.num_trials=0",), {}, "sweep.num_trials: input should be greater than or equal to 1 (got 0)"),
        (
            ("sweep.pruning.kind=asah",),
            {},
            "sweep.pruning.kind: unknown kind 'asah' (in the command line). Did you mean 'asha'",
        ),
        (("sweep.pruning.reduction_factor=1",), {}, "sweep.pruning.reduction_factor: input should be greater than"),
        (("model.alignment.dim=4",), {}, "model.alignment.dim: the space 'alignment' searches it; leave it out"),
        ((), {"case": "wal"}, "--case: no case 'wal' in small. Did you mean 'wall'"),
        ((), {"run": "algn_recon"}, "base: no run 'algn_recon' in small. Did you mean 'align_recon'"),
        (("evaluate.grid.goal_horizons=[3]",), {}, "metric: 'plan/success_rate_gh5' is never reported"),
        (("train.epochs=nonsense",), {}, "train.epochs"),
    ],
)
def test_bad_words_are_one_line(
    opened: Callable[..., Searched], arguments: tuple[str, ...], more: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UserError) as refused:
        opened(*arguments, **more)
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


BASE: dict[str, Any] = {"base": "align_recon", "objectives": {"plan/success_rate_gh5": "max"}}
EPOCHS = {"kind": "int", "low": 1, "high": 3}


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({**BASE, "space": {"train.epocs": EPOCHS}}, "train.epocs"),
        ({**BASE, "space": {"train.epochs": {"kind": "int", "low": 3, "high": 3}}}, "empty range: low 3, high 3"),
        ({**BASE, "space": {"train.epochs": {**EPOCHS, "when": {"train.nothing": [1]}}}}, "train.nothing"),
        (
            {**BASE, "objectives": {"plan/sucess_rate_gh5": "max"}, "space": {"train.epochs": EPOCHS}},
            "is never reported",
        ),
        ({**BASE, "prune_on": {"val/nothing": "min"}, "space": {"train.epochs": EPOCHS}}, "is never reported"),
        ({**BASE, "space": {"train.epochs": {"kind": "integer", "low": 1, "high": 2}}}, "integer"),
        ({**BASE, "space": {}}, "space"),
    ],
)
def test_bad_spaces_are_refused_at_once(
    opened: Callable[..., Searched], tmp_path: Path, space: dict[str, Any], expected: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps(space), encoding="utf-8")
    with pytest.raises(UserError) as refused:
        opened(space=str(file))
    assert expected in str(refused.value)


def test_resume_needs_a_sweep_that_was_started(opened: Callable[..., Searched]) -> None:
    from rich.console import Console

    from ray_jobs.runtime.progress import Narrator
    from ray_jobs.sweep import run_sweep

    searched = opened()
    quiet = Narrator(Console(quiet=True))
    with pytest.raises(UserError, match="--resume: no sweep was started under"):
        run_sweep(searched, quiet, only_resume=True)
    other = opened("sweep.seed=9")
    other.folder.mkdir(parents=True)
    other.study()
    assert other.name in Study.names(other.study_url)
    with pytest.raises(UserError, match=f"--resume: no sweep {searched.name} was started; there are: {other.name}"):
        run_sweep(searched, quiet, only_resume=True)


def test_one_driver_at_a_time(opened: Callable[..., Searched]) -> None:
    import fcntl

    from rich.console import Console

    from ray_jobs.runtime.progress import Narrator
    from ray_jobs.sweep import run_sweep

    searched = opened("sweep.seed=10")
    searched.folder.mkdir(parents=True)
    with (searched.folder / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="is being run by another process"):
            run_sweep(searched, Narrator(Console(quiet=True)))
