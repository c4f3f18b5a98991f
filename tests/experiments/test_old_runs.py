"""Old runs: what their folders say, in MLflow, once."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from experiments.old_runs import find_runs, read_run
from experiments.old_runs_record import record_run, tracked_name
from experiments.tracking import Tracker
from wm.config.platform import TrackingConfig

HYDRA = """
env: {name: wall, dataset: {data_path: '${oc.env:DATASET_DIR}/wall'}}
img_size: 224
model: {image_size: '${img_size}'}
training: {seed: 3, predictor_lr: 5e-4}
wandb_run_id: abc123
"""
LOG = """[2024-01-31 10:15:00,123][__main__][INFO] - Epoch 1  Training loss: 0.5000                  Validation loss: 0.6000
noise
[2024-01-31 10:25:00,123][__main__][INFO] - Epoch 2  Training loss: 0.2500                  Validation loss: nan
"""


def write(folder: Path, **files: str | dict[str, Any]) -> Path:
    """Files by path, with `__` for the slash and `_dot_` for the dot of a suffix."""
    for name, content in files.items():
        file = folder / name.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def reference_run(folder: Path) -> Path:
    """What DINO-WM's train.py leaves behind, W&B's files with it."""
    wandb = folder / "wandb" / "run-20240131_101500-abc123"
    write(
        wandb / "files",
        **{
            "config_dot_yaml": "_wandb: {value: {v: 1}}\nextra: {desc: null, value: 5}\nwandb_version: 1\n",
            "wandb-summary_dot_json": {
                "_step": 1,
                "epoch": 2,
                "val_z_loss": 0.125,
                "img": {"_type": "image-file"},
                "note": "x",
            },
            "wandb-metadata_dot_json": {
                "git": {"commit": "0a9492f"},
                "host": "box",
                "startedAt": "2024-01-31T10:15:00",
            },
            "output_dot_log": LOG,
        },
    )
    (wandb / "run-abc123.wandb").write_bytes(b"\x00binary")
    return write(folder, hydra_dot_yaml=HYDRA)


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    return Tracker(TrackingConfig(), tmp_path_factory.mktemp("mlflow"), "imported")


def recorded(tracker: Tracker, identity: str) -> Any:
    found = tracker.find(identity)
    assert found is not None
    return tracker.client.get_run(found)


def test_a_reference_run_whole(tmp_path: Path, tracker: Tracker) -> None:
    run = read_run(reference_run(tmp_path / "2024-01-31" / "10-15-00"))
    assert run.params["model.image_size"] == 224
    assert (
        run.params["env.dataset.data_path"] == "${oc.env:DATASET_DIR}/wall"
    )  # this machine's variables are not the run's
    assert run.params["training.predictor_lr"] == 5e-4
    assert run.params["extra"] == 5
    assert list(run.rows) == [1, 2]
    assert run.rows[1] == {"train_loss": 0.5, "val_loss": 0.6}
    assert run.rows[2].keys() == {"train_loss", "val_loss", "val_z_loss", "epoch"}
    assert run.rows[2]["val_z_loss"] == 0.125
    assert any("binary history is not read" in note for note in run.notes)
    assert "2 steps" in record_run(tracker, run)
    entry = recorded(tracker, run.identity)
    assert entry.info.status == "FINISHED"
    assert entry.info.run_name == "2024-01-31/10-15-00"
    assert entry.data.params["training.seed"] == "3"
    assert entry.data.tags["commit"] == "0a9492f"
    assert entry.data.tags["wm.source"] == str(run.folder)
    history = tracker.client.get_metric_history(entry.info.run_id, "train_loss")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.25)]
    assert math.isnan(tracker.client.get_metric_history(entry.info.run_id, "val_loss")[-1].value)


def test_importing_twice_adds_nothing(tmp_path: Path, tracker: Tracker) -> None:
    folder = write(
        tmp_path / "a" / "b", _dot_hydra__config_dot_yaml="seed: 1\n", metrics_dot_csv="step,loss\n0,1.0\n5,0.5\n"
    )
    record_run(tracker, read_run(folder))
    first = recorded(tracker, read_run(folder).identity)
    count = len(tracker.client.search_runs([tracker.experiment_id]))
    assert record_run(tracker, read_run(folder)) == "there already as 'a/b'"
    again = recorded(tracker, read_run(folder).identity)
    assert again.to_dictionary() == first.to_dictionary()
    assert len(tracker.client.search_runs([tracker.experiment_id])) == count
    write(folder, metrics_dot_csv="step,loss\n0,1.0\n5,0.5\n10,0.25\n")  # it was trained on
    assert "1 new numbers" in record_run(tracker, read_run(folder))
    history = tracker.client.get_metric_history(first.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(0, 1.0), (5, 0.5), (10, 0.25)]


def test_csv_files_as_they_come(tmp_path: Path) -> None:
    """Gaps, other step columns, words among the numbers, several tables, Lightning's folders."""
    folder = write(
        tmp_path,
        hydra_dot_yaml="seed: 1\n",
        progress_dot_csv="epoch,train/loss,phase,val/loss\n1,0.5,warm,\n2,,main,0.75\n,9,,\n",
        lightning_logs__version_0__metrics_dot_csv="lr,global_step\n0.1,10\n",
    )
    run = read_run(folder)
    assert run.rows == {1: {"progress/train/loss": 0.5}, 2: {"progress/val/loss": 0.75}, 10: {"metrics/lr": 0.1}}
    write(tmp_path / "alone", hydra_dot_yaml="a: 1\n", numbers_dot_csv="x,y\n1,2\n3,4\n")
    run = read_run(tmp_path / "alone")
    assert run.rows == {0: {"x": 1.0, "y": 2.0}, 1: {"x": 3.0, "y": 4.0}}
    assert "rows are counted" in run.notes[0]


def test_planning_logs(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        _dot_hydra__config_dot_yaml="goal_H: 5\n",
        logs_dot_json='{"plan_0/loss": 1.5}\n{"final_eval/success_rate": 0.5, "final_eval/ok": true}\n',
    )
    assert read_run(folder).rows == {0: {"plan_0/loss": 1.5}, 1: {"final_eval/success_rate": 0.5}}


def test_runs_are_found_below_a_folder(tmp_path: Path) -> None:
    reference_run(tmp_path / "outputs" / "day" / "one")
    write(tmp_path / "outputs" / "day" / "two", _dot_hydra__config_dot_yaml="a: 1\n")
    offline = tmp_path / "outputs" / "wandb" / "offline-run-20240101_000000-xyz" / "files"
    write(offline, **{"wandb-summary_dot_json": {"_step": 4, "loss": 1}})
    (tmp_path / "outputs" / "empty").mkdir()
    names = [path.name for path in find_runs(tmp_path / "outputs")]
    assert names == ["one", "two", "offline-run-20240101_000000-xyz"]
    assert read_run(find_runs(tmp_path / "outputs")[-1]).rows == {4: {"loss": 1.0}}
    assert find_runs(tmp_path / "outputs" / "empty") == []
    assert find_runs(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({"hydra_dot_yaml": "a: [1\n"}, "hydra.yaml: not readable"),
        ({"hydra_dot_yaml": "just words\n"}, "hydra.yaml: not readable"),
        ({"hydra_dot_yaml": "- 1\n- 2\n"}, "hydra.yaml: not readable"),
        ({"hydra_dot_yaml": "a: 1\n", "m_dot_csv": "step,name\n1,x\n"}, "m.csv: no numbers"),
        ({"hydra_dot_yaml": "a: 1\n", "m_dot_csv": ""}, "m.csv: no numbers"),
        ({"hydra_dot_yaml": "a: 1\n", "logs_dot_json": "{"}, "logs.json: not one JSON"),
        (
            {"hydra_dot_yaml": "a: 1\n", "wandb__run-1-a__files__wandb-summary_dot_json": "{"},
            "wandb-summary.json: not readable",
        ),
        ({"hydra_dot_yaml": "a: 1\n", "wandb__run-1-a__files__wandb-summary_dot_json": {"x": 1}}, "names no step"),
    ],
)
def test_what_cannot_be_read_is_a_note(tmp_path: Path, files: dict[str, Any], word: str) -> None:
    run = read_run(write(tmp_path, **files))
    assert any(word in note for note in run.notes), run.notes
    assert all("\n" not in note for note in run.notes)


def test_nothing_readable_is_not_recorded(tmp_path: Path, tracker: Tracker) -> None:
    run = read_run(write(tmp_path, hydra_dot_yaml="just words\n"))
    assert record_run(tracker, run) == "nothing readable in it"
    assert tracker.find(run.identity) is None


def test_binary_csv_is_a_note(tmp_path: Path) -> None:
    write(tmp_path, hydra_dot_yaml="a: 1\n")
    (tmp_path / "m.csv").write_bytes(b"\xff\xfe\x00\x01")
    assert "not a readable CSV" in read_run(tmp_path).notes[0]


def test_names_that_mlflow_takes(tmp_path: Path, tracker: Tracker) -> None:
    assert tracked_name("train/loss (mean)") == "train/loss _mean_"
    assert tracked_name("/a//b/../c") == "a/b/c"
    assert tracked_name("../..") == "_"
    assert len(tracked_name("x" * 1000)) == 250
    folder = write(tmp_path / "it's", hydra_dot_yaml="'a=b': 1\n", m_dot_csv="step,loss%,/x//y\n1,2,3\n")
    run = read_run(folder)
    record_run(tracker, run)
    assert recorded(tracker, run.identity).data.metrics == {"loss_": 2.0, "x/y": 3.0}
