"""`wm import-checkpoint` and `wm export-checkpoint` as a person calls them; an imported checkpoint is planned with."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

import ray_jobs.plan as plan
import wm
from ray_jobs.cli import app
from ray_jobs.eval import evaluate_checkpoint
from ray_jobs.runtime.progress import Narrator
from ray_jobs.runtime.trained import open_trained
from tests.ray_jobs.test_plan import solved_in_process  # noqa: F401  # a fixture
from tests.wm.data import samples
from tests.wm.data.layouts import EPISODES, write_layout
from tests.wm.data.samples import user_error
from tests.wm.interop.reference import golden_case, tiny_encoder, write_run
from wm.config.errors import UserError
from wm.data.clip_index import split_episodes
from wm.data.clip_reader import to_batch
from wm.interop.importing import import_checkpoint
from wm.training.checkpoint import find_checkpoint
from wm.types import ClipRef


def wall_run(folder: Path, weight: float = 0.0) -> Path:
    """A Wall model of the reference: one frame of history, two numbers of proprio; `weight` is added to one of its arrays."""
    case = golden_case("rollout_concat1_hist1")
    case.arrays["w/predictor.pos_embedding"] = case.arrays["w/predictor.pos_embedding"] + np.float32(weight)
    case.arrays["w/proprio_encoder.patch_embed.weight"] = case.arrays["w/proprio_encoder.patch_embed.weight"][:, :2]
    return write_run(folder, case, env__name="wall")


@pytest.mark.slow
def test_import_plan_export(tmp_path: Path, solved_in_process: list[str]) -> None:  # noqa: F811
    """The whole way: the reference's file, planning in simulation, the reference's names again."""
    source, ours = wall_run(tmp_path / "theirs"), tmp_path / "ours"
    given = ["import-checkpoint", str(source), str(ours), "--data", str(samples.wall_folder())]
    case = golden_case("rollout_concat1_hist1")
    result = CliRunner().invoke(app, [*given, *tiny_encoder(case)])
    assert result.exit_code == 0, result.output
    assert f"imported: {ours}" in result.output
    assert "stands in for the dinov2" in result.output

    overrides = [
        f"storage.root={tmp_path / 'home'}",
        "plan.episodes=2",
        "plan.max_iterations=1",
        f"plan.world.frame_size={samples.SIZE}",
        "plan.world.layout=random",
        "plan.planner.num_samples=8",
        "plan.planner.num_elites=2",
        "plan.planner.num_iterations=2",
        "plan.planner.horizon=2",
        "evaluate.grid.goal_horizons=[2]",
    ]
    narrator = Narrator(Console(quiet=True))

    def solved() -> int:
        """By models, not by the controls."""
        return len([file for file in solved_in_process if not {"random", "oracle"} & set(Path(file).parts)])

    (found, *_) = plan.plan_checkpoints([ours], overrides, tmp_path / "out", narrator)
    assert [outcome.failure for outcome in found.outcomes[2]] == [None, None]
    assert solved() == 2
    plan.plan_checkpoints([ours], overrides, tmp_path / "out", narrator)
    assert solved() == 2
    # The same settings and epoch, other weights: what was planned with the first is not taken for it.
    other = wall_run(tmp_path / "other", weight=1.0)
    result = CliRunner().invoke(
        app, ["import-checkpoint", str(other), str(tmp_path / "b"), *given[3:], *tiny_encoder(case)]
    )
    assert result.exit_code == 0, result.output
    plan.plan_checkpoints([tmp_path / "b"], overrides, tmp_path / "out", narrator)
    assert solved() == 4

    result = CliRunner().invoke(app, ["export-checkpoint", str(ours), str(tmp_path / "exported")])
    assert result.exit_code == 0, result.output
    assert "no place for action_embedding, proprio_embedding" in result.output
    assert (tmp_path / "exported" / "predictor.safetensors").is_file()


def test_planning_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    case = golden_case("rollout_concat1")
    source = write_run(tmp_path / "theirs", case)
    result = CliRunner().invoke(app, ["import-checkpoint", str(source), str(tmp_path / "ours"), *tiny_encoder(case)])
    assert result.exit_code == 0, result.output
    assert "note: `wm plan` will refuse it: it was imported without its data" in result.output
    message = user_error(lambda: plan.plan_checkpoints([tmp_path / "ours"], [], None, Narrator(Console(quiet=True))))
    assert "import it again with --data FOLDER" in message


def test_evaluation_reads_what_the_model_was_trained_with(tmp_path: Path) -> None:
    """Normalised with the checkpoint's own statistics (all episodes), not with those of the training episodes."""
    case, ours = golden_case("rollout_concat1_hist1"), tmp_path / "ours"
    given = ["import-checkpoint", str(wall_run(tmp_path / "theirs")), str(ours), *tiny_encoder(case)]
    result = CliRunner().invoke(app, [*given, "--data", str(samples.wall_folder()), "data.tokens=online"])
    assert result.exit_code == 0, result.output
    root = f"storage.root={tmp_path / 'home'}"
    checkpoint = find_checkpoint(ours)
    dataset = open_trained(checkpoint, [root], "eval", ("storage",)).inputs.dataset
    read = to_batch(dataset.reader.read([ClipRef("wall", 0, 0, 5, 2)])).actions[0]
    raw = samples.wall_source().episode(0).actions
    assert raw is not None
    torch.testing.assert_close(wm.load(ours).model_actions(raw[:10]), read, rtol=0, atol=0)
    of_training = samples.wall_dataset().statistics.action
    assert of_training is not None
    assert dataset.statistics.action is not None
    assert of_training.std.tolist() != dataset.statistics.action.std.tolist()

    few = ["evaluate.clips=4", "evaluate.probe_clips=8", "evaluate.horizons=[1,2]"]
    found = evaluate_checkpoint(ours, [root, *few], tmp_path / "out", Narrator(Console(quiet=True)))
    assert np.isfinite(found["labelled"]["copy_ratio_h1"])

    alone = CliRunner().invoke(
        app, ["import-checkpoint", str(write_run(tmp_path / "p", golden_case("rollout_concat1"))), str(tmp_path / "alone"),
              *tiny_encoder(golden_case("rollout_concat1"))]
    )  # fmt: skip
    assert alone.exit_code == 0, alone.output
    narrator = Narrator(Console(quiet=True))
    assert "--data FOLDER" in user_error(lambda: evaluate_checkpoint(tmp_path / "alone", [], None, narrator))


@pytest.mark.parametrize(
    ("world", "layout", "env", "action_dim", "frameskip"),
    [
        ("pusht", "pusht_noise", {"env__name": "pusht"}, 10, 5),
        ("point_maze", "point_maze", {"env__name": "point_maze"}, 10, 5),
        ("rope", "deformable", {"env__name": "deformable_env", "env__dataset__object_name": "rope"}, 8, 2),
    ],
)
def test_imported_models_are_evaluated_on_their_data(
    world: str, layout: str, env: dict[str, Any], action_dim: int, frameskip: int, tmp_path: Path
) -> None:
    """Of every world whose data the reference published."""
    write_layout(layout, tmp_path / "data")
    case = golden_case("rollout_concat1_hist1")
    for part, size in (("action", action_dim), ("proprio", 1 if world == "rope" else 4)):
        key = f"w/{part}_encoder.patch_embed.weight"
        case.arrays[key] = case.arrays[key][:, :size]
    theirs = write_run(tmp_path / "theirs", case, frameskip=frameskip, **env)
    overrides = [*tiny_encoder(case), "data.tokens=online"]
    result = import_checkpoint(theirs, tmp_path / "ours", tmp_path / "data", overrides)
    assert not any("refuse" in note for note in result.notes)
    few = ["evaluate.clips=4", "evaluate.probe_clips=8", "evaluate.horizons=[1,2]"]
    root = f"storage.root={tmp_path / 'home'}"
    found = evaluate_checkpoint(tmp_path / "ours", [root, *few], tmp_path / "out", Narrator(Console(quiet=True)))
    assert np.isfinite(found["labelled"]["copy_ratio_h1"])
    dataset = open_trained(find_checkpoint(tmp_path / "ours"), [root], "eval", ("storage",)).inputs.dataset
    source = dataset.sources[world]
    assert dataset.statistics.action_names == source.action_names
    assert dataset.statistics.state_names == source.state_names
    assert dataset.split[world][1] == ([EPISODES - 1] if world == "pusht" else split_episodes(EPISODES, 0.1, 42)[1])


def test_a_crafted_file_is_refused_at_the_command_line(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'pwned'}",)

    source = write_run(tmp_path / "theirs", golden_case("rollout_concat1"))
    (source / "checkpoints" / "model_latest.pth").write_bytes(pickle.dumps(Evil()))
    result = CliRunner().invoke(app, ["import-checkpoint", str(source), str(tmp_path / "ours")])
    assert isinstance(result.exception, UserError)
    assert "refused: posix.system is not part of a checkpoint" in str(result.exception)
    assert not (tmp_path / "pwned").exists()
    assert not (tmp_path / "ours").exists()


def test_the_manifest_says_where_it_came_from(tmp_path: Path) -> None:
    case = golden_case("rollout_concat1")
    source = write_run(tmp_path / "theirs", case)
    CliRunner().invoke(app, ["import-checkpoint", str(source), str(tmp_path / "ours"), *tiny_encoder(case)])
    (manifest,) = (tmp_path / "ours" / "checkpoints").glob("*/checkpoint.json")
    imported = json.loads(manifest.read_text(encoding="utf-8"))["facts"]["imported"]
    assert imported["from"] == str(source / "checkpoints" / "model_latest.pth")
    assert imported["epoch"] == 7


@pytest.mark.slow
def test_old_runs_join_an_experiment_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WM_HOME", str(tmp_path / "home"))
    run = tmp_path / "outputs" / "one"
    run.mkdir(parents=True)
    (run / "hydra.yaml").write_text("seed: 1\n", encoding="utf-8")
    (run / "metrics.csv").write_text("step,loss\n0,1.5\n", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    given = ["import-runs", str(tmp_path / "outputs"), str(tmp_path / "empty"), "--experiment", "lab"]
    first, again = (CliRunner().invoke(app, given) for _ in range(2))
    assert (first.exit_code, again.exit_code) == (0, 0), first.output
    assert f"{run}: imported as 'outputs/one': 1 params, 1 metrics, 1 steps" in first.output
    assert f"{tmp_path / 'empty'}: nothing readable" in first.output
    assert f"{run}: there already as 'outputs/one'\n" in again.output


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["import-checkpoint", "nowhere", "out"], "nowhere"),
        (["export-checkpoint", "nowhere", "out"], "nowhere"),
        (["import-runs", "nowhere"], "nowhere"),
    ],
)
def test_nothing_there_is_one_line(
    tmp_path: Path, arguments: list[str], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, UserError)
    assert word in str(result.exception)
    assert not list(tmp_path.iterdir())
