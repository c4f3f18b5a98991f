"""`wm diagnose`: table, files, resumption; mistakes are one line before any work."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

import ray_jobs.diagnose as diagnose
from ray_jobs.cli import app
from ray_jobs.runtime.placement import Node
from ray_jobs.runtime.planning import PlanTask, Solver, read_outcome
from ray_jobs.runtime.progress import Narrator
from tests.wm.data.samples import inputs, train, trained, user_error
from wm.config.diagnosis import DiagnosisConfig
from wm.config.errors import UserError
from wm.envs.wall import WallWorld
from wm.evaluation.diagnosis_summary import Diagnosis

SMALL = DiagnosisConfig(
    simulator_problems=2, simulator_samples=4, simulator_iterations=1, candidates=4, shifts=("light", "background")
)
Run = Callable[..., tuple[dict[int, Diagnosis], str]]


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Plan here instead of on actors; the outcome files that were not there yet."""
    found: list[str] = []

    def solve_all(tasks: list[PlanTask], num_actors: int, resources: Any, done: Any) -> None:
        for task in tasks:
            outcome = read_outcome(Path(task.out))
            if outcome is None:
                found.append(task.out)
            done(task, outcome or Solver().solve([task])[0])

    monkeypatch.setattr(diagnose, "cluster", lambda: nullcontext([Node(2)]))
    monkeypatch.setattr(diagnose, "solve_all", solve_all)
    return found


@pytest.fixture
def run(tmp_path: Path, fresh: list[str]) -> Run:
    def diagnosed(path: Path, *overrides: str, out: Path | None = None, settings: DiagnosisConfig = SMALL) -> Any:
        console = Console(width=90, record=True, file=io.StringIO())
        given = [f"storage.root={tmp_path}", "plan.episodes=3", "plan.max_iterations=1", *overrides]
        return diagnose.diagnose_checkpoint(path, given, out, Narrator(console), settings), console.export_text()

    return diagnosed


def test_table_files_and_figure(run: Run, tmp_path: Path, fresh: list[str]) -> None:
    out = tmp_path / "out"
    found, said = run(trained("align").folder.path, out=out)
    assert set(found[2].rows) == {"oracle", "true_states", "true_latents", "in_model", "evaluated", "random"}
    assert {name: len(row.solved) for name, row in found[2].rows.items() if name != "oracle"} == {
        "true_states": 2, "true_latents": 2, "in_model": 2, "evaluated": 3, "random": 3,
    }  # fmt: skip
    assert found[2].rows["oracle"].rate == 1
    assert set(found[2].shifts) == {"light", "background"}
    assert len(found[2].error_ratio) == 2
    for words in (
        "recorded actions",
        "simulator, true distance",
        "as evaluated",
        "light",
        "latent error",
        "100 %",
        found[2].verdict.words[0][:40],
    ):
        assert words in said
    assert "…" not in said  # nothing is cut at 90 columns
    saved = json.loads((out / "diagnosis.json").read_text())
    assert saved["goal_horizons"]["2"] == json.loads(json.dumps(found[2].to_json()))
    assert saved["settings"]["simulator_samples"] == 4
    assert (out / "diagnosis.png").read_bytes()[:4] == b"\x89PNG"
    assert len(fresh) == 3 * (3 + 2)


def test_what_is_done_is_not_done_again(
    run: Run, tmp_path: Path, fresh: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, out = trained("align").folder.path, tmp_path / "out"
    first, _ = run(checkpoint, out=out)
    small = next((out / "problems").glob("*/4x1_4"))
    solved = {path: path.stat().st_mtime_ns for path in small.rglob("*.json")}
    assert len(solved) == 2 * 4
    gone = sorted(solved)[0]
    gone.unlink()
    fresh.clear()
    monkeypatch.setattr(diagnose, "cluster", lambda: pytest.fail("a cluster was started for nothing"))
    second, _ = run(checkpoint, out=out)
    assert fresh == []
    assert second[2].to_json() == first[2].to_json()
    assert {path for path, written in solved.items() if path.stat().st_mtime_ns != written} == {gone}
    # Another budget is another search; what is planned as evaluated stays.
    run(checkpoint, out=out, settings=SMALL.model_copy(update={"simulator_samples": 6}))
    assert fresh == []
    assert len(list((out / "problems").glob("*/6x1_4/*/*/*.json"))) == 2 * 4


def test_outcomes_of_wm_plan_are_used(
    tmp_path: Path, run: Run, fresh: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray_jobs.plan as plan

    monkeypatch.setattr(plan, "cluster", diagnose.cluster)
    monkeypatch.setattr(plan, "solve_all", diagnose.solve_all)
    own = inputs(tmp_path)
    train(own)
    given = [f"storage.root={tmp_path}", "plan.episodes=3", "plan.max_iterations=1"]
    plan.plan_checkpoints([own.folder.path], given, None, Narrator(Console(quiet=True)))
    assert len([file for file in fresh if not {"random", "oracle"} & set(Path(file).parts)]) == 3
    fresh.clear()
    run(own.folder.path, settings=SMALL.model_copy(update={"shifts": ()}))
    assert len(fresh) == 2 * 3  # the oracle and random actions
    assert (own.folder.path / "diagnosis" / "step_00000006" / "diagnosis.json").is_file()


def test_two_goal_horizons_and_random_problems(run: Run, tmp_path: Path) -> None:
    found, said = run(
        trained("align").folder.path, "evaluate.grid.goal_horizons=[2,3]", "plan.problems=random", out=tmp_path / "out"
    )
    assert set(found) == {2, 3}
    assert "oracle" not in found[2].rows
    assert "plan.problems=random records none" in re.sub(r"\s+", " ", said)
    assert "Goal horizon 3" in said


def test_a_shift_that_refuses_a_state(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A larger body does not fit everywhere: that problem is left out of the shift, and it is said."""
    reset, seen = WallWorld.reset_to, []

    def refuses(self: WallWorld, state: Any) -> None:
        if self._shift == "light":
            seen.append(state)
            if len(seen) == 1:
                raise ValueError("the dot does not fit")
        reset(self, state)

    monkeypatch.setattr(WallWorld, "reset_to", refuses)
    found, _ = run(trained("align").folder.path, out=tmp_path / "out")
    assert len(found[2].shifts["light"].row.solved) == 2
    assert any("shift light: the world refuses the states of 1 problem" in reason for reason in found[2].dropped)


def test_a_model_that_returns_nan_is_reported(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wm.build import load

    def broken(*given: Any, **values: Any) -> Any:
        model = load(*given, **values)
        for parameter in model.model.predictor.parameters():
            parameter.data.fill_(float("nan"))
        return model

    monkeypatch.setattr(diagnose, "load", broken)
    found, _ = run(trained("align").folder.path, out=tmp_path / "out")
    assert found[2].rows["in_model"].failures == 2
    assert any("NaN for every candidate" in reason for reason in found[2].dropped)


def test_mistakes_come_before_the_work(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnose, "_on_actors", lambda *given: pytest.fail("work was begun"))
    path = trained("align").folder.path

    def refused(*overrides: str, **values: Any) -> str:
        return user_error(lambda: run(path, *overrides, **values))

    assert "Did you mean 'light'?" in refused(settings=DiagnosisConfig(shifts=("lihgt",)))
    assert "camera" in refused(settings=DiagnosisConfig(shifts=("camera",)))
    assert "the checkpoint decides this" in refused("model.history_len=1")
    assert "wm diagnose" in refused("train.epochs=1")
    assert "needs one" in refused("evaluate.grid.goal_horizons=[]")
    (tmp_path / "file").write_text("x")
    assert "--out" in refused(out=tmp_path / "file" / "below")
    assert "no checkpoint there" in user_error(lambda: run(tmp_path))


def test_the_command_passes_its_settings_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(diagnose, "diagnose_checkpoint", lambda *given: seen.append(given))
    flags = ["--episodes", "7", "--simulator-samples", "9", "--simulator-iterations", "3", "--simulator-problems", "2"]
    ended = CliRunner().invoke(
        app, ["diagnose", str(tmp_path), "plan.seed=1", *flags, "--shifts", "light,colours", "--best"]
    )
    assert ended.exit_code == 0, ended.output
    path, overrides, out, _, settings, which = seen[0]
    assert (path, overrides, out, which) == (tmp_path, ["plan.seed=1", "plan.episodes=7"], None, "best")
    expected = {
        "simulator_samples": 9,
        "simulator_iterations": 3,
        "simulator_problems": 2,
        "shifts": ("light", "colours"),
    }
    assert settings == DiagnosisConfig(**expected)
    CliRunner().invoke(app, ["diagnose", str(tmp_path), "--shifts", "none"])
    assert seen[1][4].shifts == ()
    assert CliRunner().invoke(app, ["diagnose", str(tmp_path), "--simulator-samples", "1"]).exit_code == 2


def test_an_imported_checkpoint_that_cannot_plan(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    read = diagnose.read_manifest

    def imported(path: Path) -> Any:
        manifest = read(path)
        manifest["facts"]["imported"] = {"no_plan": "it was imported without its data"}
        return manifest

    monkeypatch.setattr(diagnose, "read_manifest", imported)
    with pytest.raises(UserError, match="imported without its data"):
        run(trained("align").folder.path)
