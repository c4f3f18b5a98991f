"""A sweep's trials in durable storage."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.exceptions import StorageInternalError

from experiments.search_space import SearchSpace, check_space, load_space
from experiments.spec import load_spec
from experiments.study import Study
from experiments.sweep_config import SweepConfig
from wm.config.errors import UserError
from wm.config.experiment import ExperimentConfig

SWEEP = SweepConfig(num_startup_trials=3)


@pytest.fixture(scope="module")
def base() -> ExperimentConfig:
    return check_space(load_space("alignment"), load_spec("align_vs_align_recon")[0])


def open_study(root: Path, base: ExperimentConfig, space: str = "alignment", sweep: SweepConfig = SWEEP) -> Study:
    return Study(f"sqlite:///{root / 'optuna.db'}", "a study", load_space(space), base, sweep)


def objective(number: int) -> float:
    return ((number * 7) % 5) / 5


def advance(study: Study, count: int) -> list[dict[str, object]]:
    """Propose and complete, with an objective that depends on the number alone."""
    found = []
    for _ in range(count):
        proposal = study.propose()
        study.complete(proposal.number, {0: objective(proposal.number)}, 1.0)
        found.append(proposal.params)
    return found


@pytest.mark.parametrize("space", ["alignment", "reconstruction", "horizon"])
def test_a_study_opened_again_proposes_what_an_undisturbed_one_would(
    tmp_path: Path, base: ExperimentConfig, space: str
) -> None:
    (tmp_path / "undisturbed").mkdir()
    (tmp_path / "killed").mkdir()
    undisturbed = advance(open_study(tmp_path / "undisturbed", base, space), 6)
    killed: list[dict[str, object]] = []
    for _ in range(6):  # a new process for every trial, each killed once in the middle of it
        open_study(tmp_path / "killed", base, space).propose()
        study = open_study(tmp_path / "killed", base, space)
        assert len(study.reopen()) == 1
        killed += advance(study, 1)
    assert killed == undisturbed
    assert len({str(params) for params in undisturbed}) > 3  # not all the same
    random_only = SweepConfig(num_startup_trials=100)
    (tmp_path / "random").mkdir()
    assert advance(open_study(tmp_path / "random", base, space, random_only), 6)[:3] == undisturbed[:3]
    found = [trial.params for trial in open_study(tmp_path / "random", base, space).trials()]
    assert found[3:] != undisturbed[3:]  # TPE acts


def test_every_trial_is_there_once_with_its_true_state(tmp_path: Path, base: ExperimentConfig) -> None:
    study = open_study(tmp_path, base)
    for _ in range(5):
        study.propose()
    study.report(0, 1, 0.9)
    study.complete(0, {0: 0.25, 1: 0.75}, 60.0)
    study.report(1, 1, 1.5)
    study.report(1, 1, 7.0)  # said again by a resumed run: the first stays
    study.prune(1, 10.0)
    study.fail(2, "the loss is nan")
    again = open_study(tmp_path, base)
    assert again.reopen() == [3, 4]
    complete, pruned, failed, third, fourth = again.trials()
    assert (complete.state, complete.value, complete.seed_values) == ("complete", 0.5, {0: 0.25, 1: 0.75})
    assert (pruned.state, pruned.value, pruned.pruning) == ("pruned", None, [(1, 1.5)])
    assert (failed.state, failed.failure) == ("failed", "the loss is nan")
    assert (third.state, fourth.state) == ("waiting", "waiting")
    assert again.num_finished == 3
    assert [again.propose().number for _ in range(3)] == [3, 4, 5]


def test_preview_leaves_the_study_as_it_is(tmp_path: Path, base: ExperimentConfig) -> None:
    study = open_study(tmp_path, base, sweep=SweepConfig(num_startup_trials=100))
    advance(study, 2)
    running = study.propose()
    preview = study.preview(3)
    assert preview[0] == running
    assert [proposal.number for proposal in preview] == [2, 3, 4]
    assert len(study.trials()) == 3
    study.complete(2, {0: objective(2)}, 1.0)
    assert study.propose() == preview[1]


def test_importances_find_the_path_that_matters(tmp_path: Path, base: ExperimentConfig) -> None:
    study = open_study(tmp_path, base, sweep=SweepConfig(num_startup_trials=100))
    for number in range(24):
        params = study.propose().params
        study.complete(number, {0: float(params["model.alignment.dim"])}, 1.0)
    shares = study.importances()
    assert next(iter(shares)) == "model.alignment.dim"
    assert shares["model.alignment.dim"] > 0.9
    assert "model.alignment.temperature" in shares  # only sampled for some, judged on those


def test_importances_need_differences(tmp_path: Path, base: ExperimentConfig) -> None:
    study = open_study(tmp_path, base, "horizon")  # its second range depends on the first
    for number in range(6):
        study.propose()
        study.complete(number, {0: 0.5}, 1.0)
    assert study.importances() == {}
    for number in range(6, 12):
        study.propose()
        study.complete(number, {0: number / 12}, 1.0)
    assert set(study.importances()) == {"plan.planner.horizon", "plan.execute_steps", "train.rollout_horizon"}


def test_storage_that_cannot_be_used_is_one_line(
    tmp_path: Path, base: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"the study's storage .*unable to open database file"):
        Study(f"sqlite:///{tmp_path}/no/such/folder.db", "a study", load_space("alignment"), base, SWEEP)
    study = open_study(tmp_path, base)

    def full() -> None:
        raise StorageInternalError("An exception is raised during the commit.") from OSError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(study._study, "ask", full)
        with pytest.raises(UserError, match="disk is full; free some space and run"):
            study.propose()
    assert Study.names(f"sqlite:///{tmp_path / 'optuna.db'}") == ["a study"]
    assert study.num_finished == 0


def test_one_objective_at_a_time(base: ExperimentConfig) -> None:
    space = load_space("alignment")
    both = SearchSpace.model_validate(
        {**space.model_dump(), "objectives": {"plan/success_rate_gh5": "max", "val/copy_ratio_h5": "min"}}
    )
    with pytest.raises(UserError, match="one is searched at a time"):
        Study(None, "a study", both, base, SWEEP)
