"""What dies goes on, and ends as the same run: bit for bit on the CPU with one worker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from experiments.tracking import Tracker
from tests.integration.conftest import children_named, finish, make_data, wait_until
from wm.config.platform import TrackingConfig
from wm.training.checkpoint import find_checkpoint, list_checkpoints, read_manifest

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.recovery]

LONG = ("seeds=[0]", "train.steps_per_epoch=150", "train.epochs=2", "train.checkpoint_every_steps=10")


def finals(root: Path) -> dict[str, tuple[dict[str, torch.Tensor], list[dict[str, Any]]]]:
    """Run -> (every tensor of its last checkpoint, its metric rows)."""
    ended: dict[str, tuple[dict[str, torch.Tensor], list[dict[str, Any]]]] = {}
    for run in sorted((root / "runs").iterdir()):
        checkpoint = find_checkpoint(run)
        tensors = {
            f"{file.name}/{key}": value
            for file in checkpoint.glob("*.safetensors")
            for key, value in load_file(file).items()
        }
        ended[run.name] = (tensors, json.loads((run / "result.json").read_text())["history"])
    return ended


def steps_done(root: Path) -> int:
    """The newest checkpoint of any run."""
    found = [int(path.name.removeprefix("step_")) for path in root.glob("runs/*/checkpoints/step_*")]
    return max(found, default=0)


def assert_same(found: Any, expected: Any) -> None:
    assert found.keys() == expected.keys()
    for name, (tensors, history) in expected.items():
        assert found[name][1] == history
        assert found[name][0].keys() == tensors.keys()
        for key, value in tensors.items():
            assert torch.equal(found[name][0][key], value), f"{name}: {key}"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """How the experiment ends when nothing happens to it."""
    import subprocess
    import sys

    from tests.integration.conftest import REPOSITORY, SPEC

    root = tmp_path_factory.mktemp("undisturbed")
    make_data(root)
    spec = root / "small.yaml"
    spec.write_text(SPEC, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "ray_jobs.cli", "train", str(spec), *LONG, f"storage.root={root}"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output = finish(process)
    assert process.returncode == 0, output[-3000:]
    return finals(root)


def test_killed_worker_and_killed_driver_end_as_the_same_runs(
    tmp_path: Path, small_spec: Path, wm_command: Any, undisturbed: dict[str, Any]
) -> None:
    make_data(tmp_path)
    process = wm_command(tmp_path, "train", str(small_spec), *LONG)
    wait_until(lambda: steps_done(tmp_path) >= 50 or process.poll() is not None)
    workers = children_named(process, "ray::RayTrainWorker")
    assert workers, "no training worker to kill"
    workers[0].kill()
    before = steps_done(tmp_path)
    wait_until(lambda: steps_done(tmp_path) >= min(before + 100, 290) or process.poll() is not None)
    assert process.poll() is None, process.stdout.read()[-3000:]
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()  # SIGKILL: no handler runs
    process.wait()
    # Ray's two dashboard agents look after themselves for a minute or more; what computes or writes must be gone.
    agents = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
    working = [child for child in family if child.is_running() and child.name() not in agents]
    _, survivors = psutil.wait_procs(working, timeout=60)
    survivors = [child for child in survivors if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert not survivors, f"left behind: {survivors}"
    assert any(not (run / "result.json").is_file() for run in (tmp_path / "runs").iterdir()), "it had ended already"

    again = wm_command(tmp_path, "train", str(small_spec), *LONG)
    output = finish(again)
    assert again.returncode == 0, output[-3000:]
    assert_same(finals(tmp_path), undisturbed)

    tracker = Tracker(TrackingConfig(), tmp_path, "small")
    runs = tracker.client.search_runs([tracker.experiment_id])
    assert len(runs) == 3, "one parent and two children: no second one after the kills"
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        for key in run.data.metrics:
            steps = [point.step for point in tracker.client.get_metric_history(run.info.run_id, key)]
            assert len(steps) == len(set(steps)), f"{key} was recorded twice at a step"


def test_interrupt_stops_cleanly_and_says_how_to_go_on(tmp_path: Path, small_spec: Path, wm_command: Any) -> None:
    import signal

    make_data(tmp_path)
    process = wm_command(tmp_path, "train", str(small_spec), *LONG)
    wait_until(lambda: steps_done(tmp_path) >= 20 or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    output = finish(process, 120)
    assert process.returncode == 130, output[-3000:]
    assert "the same command goes on" in output
    assert "Traceback" not in output
    tracker = Tracker(TrackingConfig(), tmp_path, "small")
    assert "RUNNING" not in {run.info.status for run in tracker.client.search_runs([tracker.experiment_id])}
    run = next(path for path in (tmp_path / "runs").iterdir() if list_checkpoints(path / "checkpoints"))
    assert read_manifest(list_checkpoints(run / "checkpoints")[-1])["step"] >= 20
