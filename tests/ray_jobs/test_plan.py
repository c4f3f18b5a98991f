"""`wm plan`: what is planned anew, who is compared with whom, and what is left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import ray_jobs.plan as plan
from experiments.plan_record import Planned
from ray_jobs.runtime.progress import Narrator
from tests.wm.data import samples
from wm.evaluation.problems import load_problems, save_problems
from wm.training.checkpoint import list_checkpoints
from wm.training_run import RunInputs


@pytest.fixture
def solved_in_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Plan here instead of on actors; returns the outcome files that were not there yet."""
    from contextlib import nullcontext

    from ray_jobs.runtime.placement import Node
    from ray_jobs.runtime.planning import PlanTask, Solver, read_outcome

    fresh: list[str] = []
    solver = Solver()

    def solve_all(tasks: list[PlanTask], num_actors: int, resources: Any, done: Any) -> None:
        for task in tasks:
            found = read_outcome(Path(task.out))
            if found is None:
                fresh.append(task.out)
            done(task, found or solver.solve([task])[0])

    monkeypatch.setattr(plan, "cluster", lambda: nullcontext([Node(2)]))
    monkeypatch.setattr(plan, "solve_all", solve_all)
    return fresh


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def runs(home: Path) -> list[RunInputs]:
    """Two seeds of align, one of baseline; the first has two checkpoints."""
    made = [
        samples.inputs(home, train__checkpoint_every_steps=3, model__variant="align"),
        samples.inputs(home, seed=1, model__variant="align"),
        samples.inputs(home, model__variant="baseline"),
    ]
    for run in made:
        samples.train(run)
    return made


def planned(
    home: Path, paths: list[Path], *overrides: str, console: Console | None = None, **options: Any
) -> list[Planned]:
    given = [f"storage.root={home}", "plan.episodes=2", "plan.max_iterations=1", *overrides]
    options = {"out": None, "videos": 1, **options}
    out = options.pop("out")
    return plan.plan_checkpoints(paths, given, out, Narrator(console or Console(quiet=True)), **options)


def test_another_planner_or_checkpoint_is_planned_anew(
    tmp_path: Path, home: Path, runs: list[RunInputs], solved_in_process: list[str]
) -> None:
    checkpoints = list_checkpoints(runs[0].folder.checkpoints)
    assert len(checkpoints) == 2

    def anew(path: Path, *overrides: str) -> int:
        solved_in_process.clear()
        planned(home, [path], *overrides, out=tmp_path / "out")
        return len([file for file in solved_in_process if "/random/" not in file and "/oracle/" not in file])

    assert anew(runs[0].folder.path) == 2
    assert anew(runs[0].folder.path) == 0
    assert anew(checkpoints[-1]) == 0
    assert anew(checkpoints[0]) == 2
    assert anew(runs[0].folder.path, "plan.planner.kind=mppi") == 2


def test_seeds_of_a_variant_are_compared_as_one(
    tmp_path: Path, home: Path, runs: list[RunInputs], solved_in_process: list[str]
) -> None:
    console = Console(record=True, width=100, file=(tmp_path / "said").open("w"))
    paths = [run.folder.path for run in (runs[2], runs[0], runs[1])]
    found = planned(home, paths, "evaluate.grid.goal_horizons=[2,1]", console=console, out=tmp_path / "out")
    assert [(each.label, each.seed, each.control) for each in found] == [
        ("baseline", 0, ""),
        ("align", 0, ""),
        ("align", 1, ""),
        ("random", 0, "random"),
        ("oracle", 0, "oracle"),
    ]
    ids = {tuple(outcome.problem for outcome in each.outcomes[2]) for each in found}
    assert len(ids) == 1  # all were asked the same
    assert all(outcome.success for of in found[-1].outcomes.values() for outcome in of)
    said = console.export_text()
    assert "goal 1" in said
    assert "align - baseline" in said
    assert "oracle actions" in said
    for name in ("goal_horizons.png", "goal_horizons.md", "record.json", "report.html"):
        assert (tmp_path / "out" / name).stat().st_size > 500
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert {run["case"] for run in record["runs"]} == {"goal horizon 1", "goal horizon 2"}


def test_each_checkpoint_leaves_films_figures_and_a_log(
    tmp_path: Path, home: Path, runs: list[RunInputs], solved_in_process: list[str]
) -> None:
    planned(home, [runs[0].folder.path], out=tmp_path / "out")
    (folder,) = [path for path in (tmp_path / "out").iterdir() if path.is_dir()]
    names = {path.name for path in (folder / "gh2").iterdir()}
    assert len([name for name in names if name.startswith("plan_0_")]) == 1  # videos=1
    assert not [name for name in names if name.startswith("plan_1_")]
    assert {"trajectories.png", "cost.png", "logs.json"} <= names
    logs = json.loads((folder / "gh2" / "logs.json").read_text())
    assert len(logs) == 2
    assert {"success", "plans", "cost_trace", "clamped", "roughness", "latent_distance"} <= set(logs[0])
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {"plan/success_rate_gh2", "plan/roughness_gh2", "plan/latent_distance_gh2"} <= set(metrics)


def test_mlflow_has_one_run_for_each_checkpoint_and_planner(
    home: Path, runs: list[RunInputs], solved_in_process: list[str]
) -> None:
    from experiments.tracking import Tracker
    from wm.config.platform import TrackingConfig

    for _ in range(2):  # the second finds the first's
        planned(home, [runs[1].folder.path], "plan.planner.num_iterations=2", planners=["cem", "random"])
    tracker = Tracker(TrackingConfig(), home, "planning")
    found = tracker.client.search_runs([tracker.experiment_id], "tags.seed = '1'")
    assert sorted(run.data.tags["planner"] for run in found) == ["cem", "random"]
    (cem,) = [run for run in found if run.data.tags["planner"] == "cem"]
    assert "plan/success_rate_gh2" in cem.data.metrics
    assert cem.data.params["plan.planner.num_iterations"] == "2"
    assert cem.info.status == "FINISHED"
    files = {artifact.path for artifact in tracker.client.list_artifacts(cem.info.run_id)}
    assert {"goal_horizons.png", "goal_horizons.md", "report.html", "success_by_iteration.png", "gh2"} <= files


def test_settings_of_one_planner_are_not_asked_of_another(runs: list[RunInputs]) -> None:
    crossed = plan._crossed(
        Path(),
        ["plan.planner.num_elites=5", "plan.planner.lr=2", "plan.planner.num_iterations=3", "plan.seed=1"],
        ["cem", "gradient"],
    )
    assert crossed == [
        ["plan.planner.num_elites=5", "plan.planner.num_iterations=3", "plan.seed=1", "plan.planner.kind=cem"],
        ["plan.planner.lr=2", "plan.planner.num_iterations=3", "plan.seed=1", "plan.planner.kind=gradient"],
    ]


def test_saved_problems_are_planned_as_they_are(
    tmp_path: Path, home: Path, runs: list[RunInputs], solved_in_process: list[str]
) -> None:
    planned(home, [runs[0].folder.path], out=tmp_path / "first")
    drawn = load_problems(next((home / "problems").glob("*.npz")))
    file = tmp_path / "mine.npz"
    save_problems(file, drawn)
    horizon = drawn[0].goal_horizon
    given = [f"plan.problems={file}", f"evaluate.grid.goal_horizons=[{horizon}]"]
    (found, *_) = planned(home, [runs[0].folder.path], *given, out=tmp_path / "second")
    assert [outcome.problem for outcome in found.outcomes[horizon]] == [problem.id for problem in drawn][:2]
    solved_in_process.clear()
    save_problems(file, drawn[1:])  # another question under the same name
    (found, *_) = planned(home, [runs[0].folder.path], *given, out=tmp_path / "second")
    assert [outcome.problem for outcome in found.outcomes[horizon]] == [drawn[1].id]
    assert solved_in_process
    moved = tmp_path / "elsewhere.npz"
    shutil.copy(file, moved)
    solved_in_process.clear()
    planned(home, [runs[0].folder.path], f"plan.problems={moved}", given[1], out=tmp_path / "second")
    assert not solved_in_process  # the same question under another name


def test_checkpoints_of_other_problems_are_refused(
    tmp_path: Path, home: Path, runs: list[RunInputs], solved_in_process: list[str]
) -> None:
    other = samples.inputs(home, seed=3, model__variant="align", data__clip__frameskip=4)
    samples.train(other)
    message = samples.user_error(lambda: planned(home, [runs[0].folder.path, other.folder.path]))
    assert "its problems are not those of" in message


@pytest.mark.parametrize(
    ("overrides", "planners", "words"),
    [
        (["plan.problems=datset"], [], "Did you mean 'dataset'?"),
        (["plan.problems=/nowhere/problems.npz"], [], "no such file"),
        ([], ["cme"], "cem"),
        (["plan.planner.num_elites=900"], [], "num_elites (900) must be at most num_samples"),
        (["plan.planner.horizon=0"], [], "horizon"),
        (["evaluate.grid.goal_horizons=[0]"], [], "goal_horizons"),
        (["train.epochs=3"], [], "the checkpoint decides this"),
        (["plan.limits.a={kind: delta, max_change: 1.0, actions: [nothing]}"], [], "no 'nothing' here"),
    ],
)
def test_bad_input_is_one_line(
    home: Path,
    runs: list[RunInputs],
    solved_in_process: list[str],
    overrides: list[str],
    planners: list[str],
    words: str,
) -> None:
    message = samples.user_error(lambda: planned(home, [runs[0].folder.path], *overrides, planners=planners))
    assert words in message


def test_a_goal_picture_of_another_size_is_one_line(
    tmp_path: Path, home: Path, runs: list[RunInputs], solved_in_process: list[str]
) -> None:
    planned(home, [runs[0].folder.path])
    from dataclasses import replace

    drawn = load_problems(next((home / "problems").glob("*.npz")))
    large = np.zeros((40, 40, 3), np.uint8)
    save_problems(tmp_path / "large.npz", [replace(drawn[0], frame_g=large)])
    given = [f"plan.problems={tmp_path / 'large.npz'}", f"evaluate.grid.goal_horizons=[{drawn[0].goal_horizon}]"]
    message = samples.user_error(lambda: planned(home, [runs[0].folder.path], *given))
    assert "40 x 40" in message


def test_a_model_that_returns_nan_for_one_problem_fails_it_and_says_so(
    tmp_path: Path, home: Path, runs: list[RunInputs], solved_in_process: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from wm.models.dynamics import WorldModelDynamics
    from wm.types import Observation

    out, seen = tmp_path / "out", WorldModelDynamics.encode
    undisturbed, *_ = planned(home, [runs[0].folder.path], out=tmp_path / "undisturbed")
    drawn = {problem.id: problem for file in (home / "problems").glob("*.npz") for problem in load_problems(file)}
    bad, good = (drawn[outcome.problem] for outcome in undisturbed.outcomes[2])

    def encode(self: WorldModelDynamics, obs: Observation) -> torch.Tensor:
        is_bad = (obs.visual[:, -1] == torch.from_numpy(bad.frame_0)).flatten(1).all(dim=1)
        return torch.where(is_bad.view(-1, 1, 1, 1), torch.nan, seen(self, obs))

    monkeypatch.setattr(WorldModelDynamics, "encode", encode)
    console = Console(record=True, width=200, file=(tmp_path / "said").open("w"))
    model, *_ = planned(home, [runs[0].folder.path], console=console, out=out)
    failed, solved = model.outcomes[2]
    assert (failed.problem, solved.problem) == (bad.id, good.id)
    assert "NaN" in str(failed.failure)
    assert solved.failure is None
    assert solved.actions
    (line,) = [line for line in console.export_text().splitlines() if "failed:" in line and "align" in line]
    assert line.strip() == f"align, goal 2, {bad.id}: failed: {failed.failure}"
    assert "\n" not in str(failed.failure)
    assert (out / "goal_horizons.md").is_file() or list(out.glob("*/goal_horizons.md"))


def test_a_place_that_cannot_be_written_is_one_line_before_anything_is_planned(
    tmp_path: Path, home: Path, runs: list[RunInputs], solved_in_process: list[str]
) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file" / "out", Path("/proc/no_plans_here")):
        message = samples.user_error(lambda out=out: planned(home, [runs[0].folder.path], out=out))
        assert message.startswith(f"--out {out}: cannot be made (")
    assert not solved_in_process
