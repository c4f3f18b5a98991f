"""`wm pretrain-encoder` from spec to card; what dies goes on and ends as the same encoder, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from experiments.tracking import Tracker
from tests.integration.conftest import REPOSITORY, children_named, finish, wait_until
from wm.build import build_encoder
from wm.config.encoder import TinyEncoderConfig
from wm.config.platform import TrackingConfig
from wm.training.checkpoint import find_checkpoint

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.recovery]

SPEC = str(REPOSITORY / "tests" / "ray_jobs" / "small_encoder.yaml")
LONG = ("train.steps_per_epoch=100", "train.epochs=2")


def training(root: Path) -> Path:
    """The only one."""
    (found,) = (root / "encoders").iterdir()
    return found


def steps_done(root: Path) -> int:
    found = [int(path.name.removeprefix("step_")) for path in root.glob("encoders/*/checkpoints/step_*")]
    return max(found, default=0)


def ended(root: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]], dict[str, Any]]:
    """(every tensor of the last checkpoint, the metric rows, what is exported)."""
    folder = training(root)
    checkpoint = find_checkpoint(folder)
    tensors = {
        f"{file.name}/{key}": value
        for file in checkpoint.glob("*.safetensors")
        for key, value in load_file(file).items()
    }
    about = json.loads((folder / "encoder" / "encoder.json").read_text())
    return tensors, json.loads((folder / "result.json").read_text())["history"], about


def test_killed_worker_and_killed_driver_end_as_the_same_encoder(tmp_path: Path, wm_command: Any) -> None:
    plain, killed = tmp_path / "plain", tmp_path / "killed"
    process = wm_command(plain, "pretrain-encoder", SPEC, *LONG)
    output = finish(process)
    assert process.returncode == 0, output[-3000:]

    process = wm_command(killed, "pretrain-encoder", SPEC, *LONG)
    wait_until(lambda: steps_done(killed) >= 10 or process.poll() is not None)
    workers = children_named(process, "ray::RayTrainWorker")
    assert workers, "no training worker to kill"
    workers[0].kill()
    before = steps_done(killed)
    wait_until(lambda: steps_done(killed) >= min(before + 20, 190) or process.poll() is not None)
    assert process.poll() is None, process.stdout.read()[-3000:]
    process.kill()  # SIGKILL: no handler runs
    process.wait()
    assert not (training(killed) / "result.json").is_file(), "it had ended already"
    process = wm_command(killed, "pretrain-encoder", SPEC, *LONG)
    output = finish(process)
    assert process.returncode == 0, output[-3000:]

    expected, found = ended(plain), ended(killed)
    assert found[1] == expected[1]
    assert found[0].keys() == expected[0].keys()
    for key, value in expected[0].items():
        assert torch.equal(found[0][key], value), key
    assert found[2]["sha256"] == expected[2]["sha256"]

    tracker = Tracker(TrackingConfig(), killed, "encoders", must_exist=True)
    (run,) = tracker.client.search_runs([tracker.experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "small_encoder")
    for key in run.data.metrics:
        steps = [point.step for point in tracker.client.get_metric_history(run.info.run_id, key)]
        assert len(steps) == len(set(steps)), f"{key} was recorded twice at a step"
    assert {"train/loss", "train/identity", "val/probe/state_r2", "train/time_s"} <= run.data.metrics.keys()
    assert run.data.params["distillation.prototypes"] == "16"
    assert {"commit", "data_fingerprint", "machine", "version.torch"} <= run.data.tags.keys()
    artifacts = {each.path for each in tracker.client.list_artifacts(run.info.run_id, "encoder")}
    wanted = {"MODEL_CARD.md", "config.json", "encoder.json", "loss.png", "model.safetensors"}
    assert {f"encoder/{name}" for name in wanted} <= artifacts

    encoder = build_encoder(TinyEncoderConfig(pretrained=str(training(killed) / "encoder")))
    assert (encoder.dim, encoder.grid) == (32, (2, 2))
    assert found[2]["sources"] == {"wall": "wall"}
    assert "val/probe/state_r2" in found[2]["probes"]


def test_interrupt_stops_cleanly_and_says_how_to_go_on(tmp_path: Path, wm_command: Any) -> None:
    import signal

    process = wm_command(tmp_path, "pretrain-encoder", SPEC, *LONG)
    wait_until(lambda: steps_done(tmp_path) >= 4 or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    output = finish(process, 120)
    assert process.returncode == 130, output[-3000:]
    assert "the same command goes on" in output
    assert "Traceback" not in output
    tracker = Tracker(TrackingConfig(), tmp_path, "encoders", must_exist=True)
    assert {run.info.status for run in tracker.client.search_runs([tracker.experiment_id])} == {"KILLED"}


def test_two_workers_without_probes(tmp_path: Path, wm_command: Any) -> None:
    small = ("resources.num_workers=2", "resources.cpus_per_worker=0.4", "train.best_metric=null")
    process = wm_command(tmp_path, "pretrain-encoder", SPEC, *small)
    output = finish(process)
    assert process.returncode == 0, output[-3000:]
    _, history, about = ended(tmp_path)
    assert history[-1]["step"] == about["step"] == 8
    assert about["probes"] == {}
    assert "None: `train.best_metric` was null." in (training(tmp_path) / "encoder" / "MODEL_CARD.md").read_text()
    again = wm_command(tmp_path, "pretrain-encoder", SPEC, *small)
    output = finish(again)
    assert again.returncode == 0, output[-3000:]
    assert "8 of 8 steps are done" in output
    assert "Start Ray" not in output
