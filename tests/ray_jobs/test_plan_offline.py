"""`wm plan --offline`: a model that knows its world plans what was recorded; what is there is used again; mistakes are one line."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

import ray_jobs.plan_offline as entry
from ray_jobs.cli import app
from ray_jobs.plan_offline import plan_offline
from ray_jobs.runtime.progress import Narrator
from tests.wm.data import samples
from tests.wm.data.samples import trained, user_error
from tests.wm.test_precomputed_run import config
from wm.training.reporter import NullReporter
from wm.training_run import RunInputs

PICTURES = ["offline_gh2_clip_0.png", "offline_gh2_clip_1.png", "offline_gh2_clip_2.png", "offline_summary.png"]


def planned(
    path: Path, root: Path, dataset: str, *overrides: str, out: Path | None = None
) -> tuple[dict[str, Any], str]:
    """What it returns and what it says."""
    console = Console(width=120, record=True, file=io.StringIO())
    given = [f"storage.root={root}", "plan.episodes=4", *overrides]
    return plan_offline(path, dataset, given, out, Narrator(console)), console.export_text()


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Figures take longer than the plans of these models; one test draws them."""
    if "drawn" not in request.node.name:
        monkeypatch.setattr(entry, "to_png", lambda figure: b"")


def write_features(folder: Path, seed: int, actions_of: int = 2, episodes: int = 12) -> None:
    """s' = s + .3 a; features are a fixed rotation of s."""
    rng = np.random.default_rng(seed)
    actions = rng.normal(size=(episodes, 40, actions_of)).astype(np.float32)
    states = np.cumsum(0.3 * actions[..., :2], axis=1, dtype=np.float32) - 0.3 * actions[..., :2]
    features = (states @ np.random.default_rng(9).normal(size=(2, 6))).astype(np.float16)
    folder.mkdir(parents=True)
    np.savez(folder / "features.npz", features=features, states=states, actions=actions)


@pytest.fixture(scope="module")
def maze(tmp_path_factory: pytest.TempPathFactory) -> RunInputs:
    """A model of one context frame that has learnt s' = s + .3 a from features: what the best plan adds up to is known."""
    root = tmp_path_factory.mktemp("root")
    write_features(root / "data" / "maze", 0)
    planner = {"kind": "cem", "horizon": 3, "num_samples": 64, "num_elites": 8, "num_iterations": 8}
    values = {"train__steps_per_epoch": 300, "plan__planner": planner, "storage__root": str(root)}
    run = RunInputs(config(**values, evaluate__grid__goal_horizons=[1, 3]), root)
    run.training(NullReporter(), run.local_batches).run()
    write_features(root / "elsewhere", 1, episodes=5)
    return run


def test_a_model_that_knows_its_world_plans_what_was_recorded(maze: RunInputs, tmp_path: Path) -> None:
    """One step has one solution, of three the sum is known. Two env actions a model step: their mean is what moves."""
    found, said = planned(maze.folder.path, maze.root, "maze", "plan.episodes=12", out=tmp_path)
    metrics = {name.removeprefix("plan/offline_"): value for name, value in found["metrics"].items()}
    assert found["counts"] == {f"gh{h}": {"clips": 12, "episodes": 3} for h in (1, 3)}
    assert metrics["cosine_gh1"] > 0.9
    assert metrics["r2_gh1"] > 0.4
    assert metrics["cosine_clip_gh3"] > 0.9
    assert metrics["r2_clip_gh3"] > 0.8
    assert metrics["cosine_gh3"] < 0.6  # in which order nobody can know
    assert metrics["mae_gh1/action_0"] < 0.5 * metrics["mae_mean_gh1/action_0"]
    for who in ("other", "random"):
        assert metrics[f"r2_{who}_gh1"] < 0
        assert abs(metrics[f"cosine_{who}_gh1"]) < 0.6
        assert metrics[f"cost_{who}_gh3"] > 2 * metrics["cost_recorded_gh3"]
    assert metrics["copy_ratio_gh3"] < 0.2
    assert metrics["cheaper_gh3"] > 0.5
    assert metrics["failed_clips_gh3"] == 0
    low, high = found["intervals"]["plan/offline_cosine_gh1"]
    assert low <= metrics["cosine_gh1"] <= high
    for words in ("12 clips of 3 episodes of maze", "direction, model step", "action_1", "seconds a plan: median"):
        assert words in said
    (folder,) = tmp_path.iterdir()
    assert json.loads((folder / "offline.json").read_text()) == found
    assert len(list(folder.glob("*.png"))) == 7
    assert len(list(folder.glob("gh1/*.json"))) == 12
    assert not (maze.root / "tokens").exists()


def test_what_is_there_is_not_planned_again(maze: RunInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh: list[str] = []
    solve = entry.OfflineEvaluation.solve

    def counted(self: Any, clip: Any) -> Any:
        fresh.append(clip.id)
        if len(fresh) == fails_at:
            raise KeyboardInterrupt
        return solve(self, clip)

    monkeypatch.setattr(entry.OfflineEvaluation, "solve", counted)

    def again(*overrides: str) -> tuple[int, dict[str, Any]]:
        fresh.clear()
        found, _ = planned(
            maze.folder.path, maze.root, "maze", "evaluate.grid.goal_horizons=[2]", *overrides, out=tmp_path
        )
        return len(fresh), found["metrics"]

    fails_at = 3
    with pytest.raises(KeyboardInterrupt):
        again()
    fails_at = 0
    count, first = again()
    assert count == 2  # two were done before it was stopped
    count, second = again()
    assert (count, second) == (0, first)
    assert again("plan.episodes=6")[0] == 2
    assert again("plan.seed=5")[0] == 4
    assert again("plan.execute_steps=1")[0] == 4


def test_clips_are_the_same_for_every_checkpoint(tmp_path: Path) -> None:
    names = []
    for variant in ("baseline", "align"):
        found, _ = planned(trained(variant).folder.path, tmp_path, "wall", out=tmp_path / variant)
        (folder,) = (tmp_path / variant).iterdir()
        names.append(sorted(file.name for file in folder.glob("gh2/*.json")))
        assert sorted(file.name for file in folder.glob("*.png")) == PICTURES
        assert all(np.isfinite(list(found["metrics"].values())))
        assert {"plan/offline_mae_gh2/dx", "plan/offline_jerk_gh2"} <= found["metrics"].keys()
    assert names[0] == names[1]
    assert len(names[0]) == 4


def test_tokens_that_are_not_stored_yet_are_encoded(tmp_path: Path) -> None:
    run = samples.inputs(tmp_path, data__tokens="store")
    for missing in run.missing_tokens():
        list(missing.store.write(run.encoder, missing.episodes))
    samples.train(run)
    (store,) = run.dataset.stores.values()
    held_out = run.dataset.split["wall"][1]
    for episode in held_out:
        store.path(episode).unlink()
    found, _ = planned(run.folder.path, tmp_path, "wall", "plan.episodes=1")
    assert sum(store.path(episode).is_file() for episode in held_out) == 1
    folder = run.folder.path / "offline" / "step_00000006"
    assert [file.name for file in folder.glob("*/offline.json")] == ["offline.json"]
    assert found["interval_method"] == "none: one episode"


def test_a_folder_that_the_checkpoint_never_saw(maze: RunInputs, tmp_path: Path) -> None:
    """All its episodes are held out, in the checkpoint's units; the data it was trained on may be gone."""
    bare = tmp_path / "bare"
    found, said = planned(
        maze.folder.path, bare, str(maze.root / "elsewhere"), "plan.episodes=10", out=tmp_path / "out"
    )
    assert found["counts"]["gh1"] == {"clips": 10, "episodes": 5}
    assert found["metrics"]["plan/offline_r2_gh1"] > 0.4
    assert "actions are called action_0, action_1 there" not in said
    write_features(bare / "data" / "beside", 2)  # under storage.root/data, by its name
    assert planned(maze.folder.path, bare, "beside", out=tmp_path / "out")[0]["source"] == "beside"


def test_pictures_of_another_folder_are_drawn(tmp_path: Path) -> None:
    samples.make_wall(tmp_path / "more", episodes=3, steps=30, frame_size=samples.SIZE, layout="random", seed=4)
    found, _ = planned(trained("align").folder.path, tmp_path, str(tmp_path / "more"), out=tmp_path / "out")
    assert found["counts"] == {"gh2": {"clips": 4, "episodes": 3}}
    pictures = sorted((tmp_path / "out").glob("*/*.png"))
    assert [file.name for file in pictures] == PICTURES
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in pictures)


def test_mistakes_come_before_the_work(maze: RunInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "_solved", lambda *given: pytest.fail("work was begun"))

    def refused(dataset: str, *overrides: str, run: RunInputs = maze, **given: Any) -> str:
        return user_error(lambda: planned(run.folder.path, run.root, dataset, *overrides, **given))

    assert (
        refused("maz") == "--offline: 'maz' is neither a source of this checkpoint nor a folder. Did you mean 'maze'?"
    )
    too_long = refused("maze", "evaluate.grid.goal_horizons=[2,50]")
    assert "50 is too long; the longest possible is 19 (the longest of 3 held-out episodes has 40 env steps" in too_long
    assert "the checkpoint decides this; `wm plan --offline` takes plan.*" in refused("maze", "model.history_len=2")
    assert "--offline maze takes its held-out episodes" in refused(str(maze.root / "data" / "maze"))
    (tmp_path / "file").write_text("x")
    assert "--out" in refused("maze", out=tmp_path / "file" / "below")
    write_features(tmp_path / "wide", 0, actions_of=3)
    wide = refused(str(tmp_path / "wide"))
    assert (
        "actions of 3 numbers (action_0, action_1, action_2), but the checkpoint's are 2 (action_0, action_1)" in wide
    )
    assert "cannot be read as a source of the checkpoint (as 'maze': " in refused(str(samples.wall_folder()))
    with np.load(maze.root / "elsewhere" / "features.npz") as saved:
        (tmp_path / "video").mkdir()
        np.savez(tmp_path / "video" / "features.npz", features=saved["features"])
        (tmp_path / "thin").mkdir()
        np.savez(tmp_path / "thin" / "features.npz", features=saved["features"][..., :4], actions=saved["actions"])
    assert "none of its 5 episodes has actions" in refused(str(tmp_path / "video"))
    assert "1 tokens of 4 channels a frame, but the checkpoint's are 1 of 6" in refused(str(tmp_path / "thin"))


def test_sources_without_the_model_s_actions(tmp_path: Path) -> None:
    """One without labels, and one with actions that the model does not plan."""
    video = {"kind": "dino_wm", "path": str(samples.wall_folder()), "labels": "none"}
    run = samples.inputs(tmp_path, data__sources__video=video)
    samples.train(run)
    message = user_error(lambda: planned(run.folder.path, tmp_path, "video"))
    assert message == "--offline video: no actions; nothing to compare a plan with. With them: wall"


def test_two_action_vectors(tmp_path: Path) -> None:
    """Columns of an adapter take no part; its own source is refused."""
    sources = {}
    for name, size in (("maze", 2), ("arm", 3)):
        write_features(tmp_path / "data" / name, size, actions_of=size)
        sources[name] = {"kind": "precomputed", "path": name}
    values = {"data__sources": sources, "data__primary": "maze", "train__steps_per_epoch": 2}
    run = RunInputs(config(**values, storage__root=str(tmp_path)), tmp_path)
    assert run.dataset.action_adapters
    run.training(NullReporter(), run.local_batches).run()
    found, _ = planned(
        run.folder.path, tmp_path, "maze", "plan.planner.num_samples=32", "evaluate.grid.goal_horizons=[1]"
    )
    assert [name for name in found["metrics"] if "mae_gh1" in name] == [
        f"plan/offline_mae_gh1/action_{n}" for n in (0, 1)
    ]
    message = user_error(lambda: planned(run.folder.path, tmp_path, "arm"))
    assert "arm: its actions are not those that the model plans" in message


def test_when_every_clip_fails_the_first_reason_is_said(maze: RunInputs, tmp_path: Path) -> None:
    """Nothing is written that would pass for an outcome."""
    checkpoint = Path(str(maze.folder.path))
    loaded = entry.load

    def broken(path: Path, device: str) -> Any:
        model = loaded(path, device)
        for parameter in model.model.parameters():
            parameter.data.fill_(torch.nan)
        return model

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(entry, "load", broken)
        message = user_error(lambda: planned(checkpoint, maze.root, "maze", out=tmp_path))
    assert message.startswith(
        "no clip could be planned on; the first: UserError: the model returned NaN for every candidate"
    )
    assert list(tmp_path.rglob("*.json")) == []


def test_the_command(maze: RunInputs, tmp_path: Path) -> None:
    given = ["plan", str(maze.folder.path), "--offline", "maze", "--episodes", "2", "--out", str(tmp_path)]
    given += [f"storage.root={maze.root}", "evaluate.grid.goal_horizons=[1]"]
    ended = CliRunner().invoke(app, given)
    assert ended.exit_code == 0, ended.output
    (file,) = tmp_path.glob("*/offline.json")
    assert json.loads(file.read_text())["counts"] == {"gh1": {"clips": 2, "episodes": 2}}
