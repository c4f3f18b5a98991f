"""Bad input at the command line: one clear line that names the thing and the remedy, exit code 2, nothing half-written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ray_jobs.cli as cli
from ray_jobs.make_data import make_wall
from tests.integration.conftest import REPOSITORY, SPEC
from wm.config.errors import UserError


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cli")
    make_wall(root / "data" / "wall", episodes=8, steps=30, frame_size=28)
    (root / "small.yaml").write_text(SPEC, encoding="utf-8")
    return root


def run(home: Path, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The UserError line that a command ends with; no Ray is started before it."""
    monkeypatch.setenv("WM_HOME", str(home))
    result = CliRunner().invoke(cli.app, list(arguments))
    assert isinstance(result.exception, UserError), result.output
    assert not list(home.glob("runs/*/checkpoints/*"))
    return str(result.exception)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.variant=algn", ("model.variant", "algn", "align")),
        ("train.epoch=3", ("train.epoch", "train.epochs")),
        ("train.epochs=three", ("train.epochs", "three", "integer")),
        ("plan.planner.num_elites=400", ("num_elites", "400", "num_samples", "8")),
        ("evaluate.grid.goal_horizons=[20]", ("plan/success_rate_gh3", "never reported", "gh20")),
        ("evaluate.horizons=[1,3,30]", ("evaluate.horizons", "longest held-out episode has 30")),
        ("plan.world.frame_size=84", ("plan.world.frame_size", "28")),
        ("data.sources.wall.path=nowhere", ("nowhere", "no such data folder", "wm data make")),
        ("train.batch_size=4000", ("train.batch_size", "4000")),
        ("resources.num_workers=8", ("CPUs", "resources.num_workers")),
        ("resources.gpus_per_worker=-1", ("resources.gpus_per_worker",)),
        ("encoder.kind=dinov4", ("encoder.kind", "dinov4", "dinov3")),
        ("noequals", ("noequals", "path=value")),
    ],
)
def test_a_wrong_setting_is_one_line(
    home: Path, override: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = run(home, "train", str(home / "small.yaml"), override, monkeypatch=monkeypatch)
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message


def test_goal_beyond_the_episodes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["evaluate.grid.goal_horizons=[20]", "metric=plan/success_rate_gh20"]
    message = run(home, "train", str(home / "small.yaml"), *given, monkeypatch=monkeypatch)
    assert "20 model steps at frameskip 2 need 41 env steps" in message
    assert "30" in message


def test_folder_of_another_layout(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "demo.hdf5").write_bytes(b"x")
    path = f"data.sources.wall.path={tmp_path / 'other'}"
    message = run(home, "train", str(home / "small.yaml"), path, monkeypatch=monkeypatch)
    assert "wall_single" in message
    assert "demo.hdf5" in message


def test_resume_with_nothing_to_resume(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = run(home, "train", str(home / "small.yaml"), "--resume", monkeypatch=monkeypatch)
    assert "no run of 'small'" in message


def test_unknown_spec_world_checkpoint_and_experiment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Did you mean 'align_vs_align_recon'" in run(home, "train", "align_vs_alignrecon", monkeypatch=monkeypatch)
    assert "unknown world 'wal'" in run(home, "data", "make", "wal", "--out", str(home / "x"), monkeypatch=monkeypatch)
    assert "no checkpoint there" in run(home, "plan", str(home / "data"), monkeypatch=monkeypatch)
    assert "no experiment 'nothing'" in run(home, "compare", "nothing", monkeypatch=monkeypatch)


def test_output_folder_that_is_not_empty(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.txt").write_text("x", encoding="utf-8")
    message = run(home, "data", "make", "wall", "--out", str(tmp_path), monkeypatch=monkeypatch)
    assert "not empty" in message
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_full_disk(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**9, 10**9, 1000))
    message = run(home, "data", "make", "wall", "--out", str(tmp_path / "new"), monkeypatch=monkeypatch)
    assert "MiB needed" in message
    assert not (tmp_path / "new").exists()


def test_tracking_server_that_does_not_answer(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "tracking.uri=http://someone:secret@127.0.0.1:9"
    message = run(home, "train", str(home / "small.yaml"), uri, monkeypatch=monkeypatch)
    assert "MLflow does not answer" in message
    assert "secret" not in message


def test_ray_address_that_does_not_answer(home: Path) -> None:
    environment = {**os.environ, "WM_HOME": str(home), "RAY_ADDRESS": "127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-m", "ray_jobs.cli", "train", str(home / "small.yaml")],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "RAY_ADDRESS=127.0.0.1:9: no answer" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_unreadable_episode_stops_before_training(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    shutil.copytree(home / "data", tmp_path / "data")
    (tmp_path / "small.yaml").write_text(SPEC, encoding="utf-8")
    (tmp_path / "data" / "wall" / "obses" / "episode_000.pth").write_bytes(b"not a tensor")
    message = run(tmp_path, "train", str(tmp_path / "small.yaml"), monkeypatch=monkeypatch)
    assert "episode_000.pth: unreadable" in message


def test_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Typer turns it into an exit before `main` sees it; a command that dealt with it itself has said what there is to say."""

    def interrupted(console: object) -> int:
        raise KeyboardInterrupt

    def settled(console: object) -> int:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise cli.typer.Exit(130) from None

    import ray_jobs.doctor

    monkeypatch.setattr(cli.signal, "signal", lambda *given: None)
    monkeypatch.setattr(sys, "argv", ["wm", "doctor"])
    for diagnose, said in ((interrupted, True), (settled, False)):
        monkeypatch.setattr(ray_jobs.doctor, "diagnose", diagnose)
        with pytest.raises(SystemExit) as leaving:
            cli.main()
        assert leaving.value.code == 130
        assert ("the same command goes on" in capsys.readouterr().err) == said


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys, ray_jobs.cli; print([m for m in ('ray', 'torch', 'mlflow', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
