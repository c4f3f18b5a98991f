"""`wm finetune`: the spec that a run and some words become, and the report of forgetting."""

from __future__ import annotations

import json
import shutil
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ray_jobs.finetune import finetune_spec
from ray_jobs.forgetting_table import render_forgetting
from ray_jobs.runtime.forgetting import FILE, measure_forgetting
from ray_jobs.runtime.runs import Run, open_runs
from tests.wm.data.samples import same, train, user_error
from tests.wm.test_started_run import copied, new_folder, old_run
from wm.config.experiment import ExperimentConfig
from wm.evaluation.forgetting import Forgetting
from wm.training_run import RunInputs

PATH = f"data.sources.new.path={new_folder()}"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> RunInputs:
    """Nobody may write there."""
    return copied(tmp_path_factory.mktemp("old"))


def resolved(old: RunInputs, *arguments: str, **more: Any) -> ExperimentConfig:
    spec, overrides = finetune_spec(str(old.folder.path), [PATH, *arguments], **more)
    (plan,) = spec.resolve_runs(overrides)
    return plan.config


def opened(old: RunInputs, *arguments: str, **more: Any) -> Run:
    (run,) = open_runs(*finetune_spec(str(old.folder.path), [PATH, *arguments], **more))
    return run


def complete(run: Run) -> list[dict[str, Any]]:
    history = train(run.inputs)
    run.inputs.folder.finish({"history": history, "time_s": 0.0})
    return history


def test_it_is_the_same_run_but_gentler_and_on_the_new_episodes(old: RunInputs) -> None:
    found, before = resolved(old), old.config
    assert (found.model, found.encoder, found.data.clip, found.seed) == (
        before.model,
        before.encoder,
        before.data.clip,
        before.seed,
    )
    assert found.train.start == old.hash
    assert found.train.ema_decay == before.train.ema_decay == 0.9
    for name in ("predictor_lr", "embedding_lr", "head_lr", "decoder_lr"):
        assert getattr(found.train.optimizer, name) == pytest.approx(0.1 * getattr(before.train.optimizer, name))
    assert list(found.data.sources) == ["new"]
    assert found.data.sources["new"].path == str(new_folder())
    assert found.evaluate.grid.goal_horizons == ()
    assert found.storage.root == str(old.root)


def test_whatever_is_said_counts(old: RunInputs) -> None:
    found = resolved(old, "train.optimizer.head_lr=0.5", "train.ema_decay=0", "plan.episodes=3", "train.epochs=7")
    assert (found.train.optimizer.head_lr, found.train.ema_decay, found.train.epochs) == (0.5, 0, 7)
    assert found.evaluate.grid.goal_horizons == old.config.evaluate.grid.goal_horizons
    spec, overrides = finetune_spec(str(old.folder.path), [PATH, "seeds=[3,4]", "evaluate.horizons=[1]"])
    assert [plan.config.seed for plan in spec.resolve_runs(overrides)] == [3, 4]
    assert spec.metric == "val/copy_ratio_h1"


def test_an_average_is_turned_on_and_settings_of_the_old_data_go(tmp_path: Path) -> None:
    old = old_run(tmp_path, "shortcut")
    assert old.config.data.mixture.is_given
    assert old.config.train.ema_decay == 0
    found = resolved(old, "data.sources.new.labels=none")
    assert found.train.ema_decay == 0.99
    assert not found.data.mixture.is_given
    assert found.data.sources["new"].kind == "dino_wm"


def test_new_episodes_come_from_the_same_recorder_unless_said(tmp_path: Path) -> None:
    old = old_run(tmp_path, "align", data__sources__wall__episodes=8, data__sources__wall__labels="all")
    alike = resolved(old).data.sources["new"].model_dump()
    assert alike == {**old.config.data.sources["wall"].model_dump(), "path": str(new_folder()), "episodes": None}
    other = resolved(old, "data.sources.new.kind=lerobot").data.sources["new"]
    assert other.kind == "lerobot"


def test_a_share_of_old_clips_is_in_every_batch(old: RunInputs) -> None:
    run = opened(old, old_share=0.25)
    schedule = run.inputs.clips.schedule
    for step in range(run.total_steps):
        names = [ref.source for ref in schedule.shard(step, 0, 1)]
        assert sorted(names) == ["new", "new", "new", "wall"]


@pytest.mark.parametrize(
    ("run", "arguments", "words"),
    [
        ("HASH", [], ("no new episodes", "data.sources.new.path=FOLDER")),
        ("HASH", ["data.sources.wall.path=x"], ("data.sources.wall", "another")),
        ("HASH", [PATH, "model.history_len=1"], ("model.history_len: 1", "has 2")),
        ("HASH", [PATH, "train.epoch=1"], ("train.epoch", "train.epochs")),
        ("0123456789ab", [PATH], ("no such run", "Valid: ")),
        ("/tmp", [PATH], ("/tmp", "HASH")),
    ],
)
def test_a_mistake_is_one_line(
    old: RunInputs, monkeypatch: pytest.MonkeyPatch, run: str, arguments: list[str], words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("WM_HOME", str(old.root))
    line = user_error(lambda: open_runs(*finetune_spec(run.replace("HASH", old.hash), arguments)))
    assert all(word in line for word in words), line


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunInputs, Run, list[dict[str, Any]]]:
    """(old, fine-tuned, its history)."""
    old = copied(tmp_path_factory.mktemp("tuned"))
    run = opened(old, "train.optimizer.predictor_lr=0.01", "train.ema_decay=0.5")  # in six steps
    return old, run, complete(run)


def shown(run: Run, found: Forgetting) -> str:
    console = Console(width=300, file=StringIO())
    for each in render_forgetting(run.title, found):
        console.print(each)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def validated(row: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row["metrics"].items() if name.startswith("val/")}


def test_both_models_are_judged_on_both_data_sets(tuned: tuple[RunInputs, Run, list[dict[str, Any]]]) -> None:
    """Before, on the old data: the old run's own last validation; after, on the new: the new run's; between them: other numbers."""
    old, run, history = tuned
    found = measure_forgetting(run, lambda done, total: None)
    result = old.folder.result()
    assert result is not None
    assert found.old is not None
    assert found.new is not None
    assert found.missing is None
    assert dict(found.old.before) == pytest.approx(validated(result["history"][-1]), rel=1e-3)
    assert dict(found.new.after) == pytest.approx(validated(history[-1]), rel=1e-3)
    for judged in (found.old, found.new):
        assert judged.after["val/copy_ratio_h1"] != pytest.approx(judged.before["val/copy_ratio_h1"], rel=1e-2)
    assert found.forgotten.keys() == {f"forgetting/{name.removeprefix('val/')}" for name in found.old.before}
    saved = json.loads((run.inputs.folder.path / FILE).read_text())
    assert saved["forgotten"] == found.forgotten
    text = shown(run, found)
    (row,) = [line for line in text.splitlines() if "copy_ratio_h1 " in line]
    before, after = (judged["val/copy_ratio_h1"] for judged in (found.old.before, found.old.after))
    assert row.split()[:5] == ["copy_ratio_h1", "lower", f"{before:.3f}", "->", f"{after:.3f}"]


def test_without_the_old_data_only_the_new_are_reported_until_they_are_back(
    tuned: tuple[RunInputs, Run, list[dict[str, Any]]], tmp_path: Path
) -> None:
    old, _, _ = tuned
    moved = copied(tmp_path)
    shutil.copytree(old.config.data.sources["wall"].path, tmp_path / "data" / "here")
    for path in moved.folder.checkpoints.glob("*/checkpoint.json"):
        saved = json.loads(path.read_text())
        del saved["digest"]
        saved["facts"]["config"]["data"]["sources"]["wall"]["path"] = "here"
        path.write_text(json.dumps(saved))
    run = opened(moved)
    complete(run)
    (tmp_path / "data" / "here").rename(tmp_path / "data" / "gone")
    found = measure_forgetting(run, lambda done, total: None)
    assert found.old is None
    assert found.new is not None
    assert found.missing is not None
    assert "\n" not in found.missing
    assert "here: no such data folder" in found.missing
    assert "What was forgotten is not known" in shown(run, found)
    (tmp_path / "data" / "gone").rename(tmp_path / "data" / "here")
    again = measure_forgetting(run, lambda done, total: None)
    assert again.old is not None
    assert again.new == found.new


def test_with_a_share_of_old_clips_new_ones_are_judged_alone(
    tuned: tuple[RunInputs, Run, list[dict[str, Any]]], tmp_path: Path
) -> None:
    old = copied(tmp_path)
    run = opened(old, old_share=0.25)
    complete(run)
    found, alone = (measure_forgetting(each, lambda done, total: None) for each in (run, tuned[1]))
    assert found.new is not None
    assert alone.new is not None
    assert same(dict(found.new.before), dict(alone.new.before))
