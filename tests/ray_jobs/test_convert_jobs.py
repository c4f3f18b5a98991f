"""Converting refuses bad arguments in one line, goes on after a kill, and writes over nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from ray_jobs.cli import app
from ray_jobs.convert_data import convert_data
from tests.ray_jobs.converted import convert, opened, same_numbers
from tests.ray_jobs.test_make_data import contents
from tests.wm.data.layouts import write_layout
from tests.wm.data.samples import user_error, wall_folder

ROOT = Path(__file__).parents[2]

BAD: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "target": ({"to": "lerbot"}, ("--to: unknown target 'lerbot'", "Did you mean 'lerobot'?")),
    "layout": ({"layout": "pont_maze"}, ("--layout", "Did you mean 'point_maze'?")),
    "layout of lerobot": ({"to": "lerobot", "layout": "robomimic"}, ("--layout", "only --to dino_wm")),
    "another's layout": ({"layout": "point_maze"}, ("--layout point_maze", "actions", "dx, dy")),
    "small": ({"size": 64}, ("--size: 64", "84..384")),
    "large": ({"size": 385}, ("--size: 385",)),
    "odd": ({"size": 85}, ("--to dino_wm", "--size: 85", "even")),
    "camera": ({"cameras": ["front"]}, ("--camera", "one camera")),
    "cameras": ({"cameras": ["a", "b"]}, ("--camera: 2 given",)),
    "setting": ({"overrides": ["episods=3"]}, ("episods", "Did you mean 'source.episodes'?")),
    "actors": ({"actors": -1}, ("--actors: -1",)),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_arguments_get_one_line(tmp_path: Path, name: str) -> None:
    change, words = BAD[name]
    given = {"to": "dino_wm", **change}
    message = user_error(lambda: convert(wall_folder(), tmp_path / "out", **given))
    for word in words:
        assert word in message
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(tmp_path: Path) -> None:
    write_layout("point_maze", tmp_path / "src")
    before = contents(tmp_path)
    given: dict[str, Any] = {"layout": "point_maze"}
    for out in (tmp_path / "src", tmp_path / "other/../src", tmp_path / "src/obses/new", tmp_path):
        message = user_error(lambda out=out: convert(tmp_path / "src", out, "dino_wm", **given))
        assert "SRC and DST" in message
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("mine")
    assert "not empty" in user_error(lambda: convert(tmp_path / "src", tmp_path / "mine", "dino_wm", **given))
    assert contents(tmp_path) == {**before, "mine/thesis.tex": b"mine"}
    convert(tmp_path / "src", tmp_path / "out", "dino_wm", **given)
    whole = contents(tmp_path / "out")
    assert convert_data(tmp_path / "src", tmp_path / "out", "dino_wm", actors=0, **given).fresh is False
    for change in ({"size": 96}, {"layout": "robomimic"}, {"overrides": ["episodes=2"]}):
        with_change = {**given, **change}
        message = user_error(
            lambda with_change=with_change: convert(tmp_path / "src", tmp_path / "out", "dino_wm", **with_change)
        )
        assert "already holds another data set" in message
    edited = torch.load(tmp_path / "src/actions.pth", weights_only=True) + 1
    torch.save(edited, tmp_path / "src/actions.pth")
    message = user_error(lambda: convert(tmp_path / "src", tmp_path / "out", "dino_wm", **given))
    assert "source_fingerprint" in message
    assert contents(tmp_path / "out") == whole


def test_a_small_disk_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_layout("point_maze", tmp_path / "src")
    needed = 4 * 24 * 64 * 64 * 3
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=10**9, free=needed))
    message = user_error(lambda: convert(tmp_path / "src", tmp_path / "out", "dino_wm", layout="point_maze"))
    assert "free on that disk" in message
    assert not (tmp_path / "out").exists()


def test_a_damaged_episode_ends_the_job_by_name(tmp_path: Path) -> None:
    write_layout("point_maze", tmp_path / "src")
    file = tmp_path / "src/obses/episode_002.pth"
    file.write_bytes(file.read_bytes()[:-3000])
    message = user_error(lambda: convert(tmp_path / "src", tmp_path / "out", "dino_wm", layout="point_maze"))
    assert file.name in message
    write_layout("point_maze", tmp_path / "two")
    torch.save(torch.zeros(24, 32, 64, 3, dtype=torch.uint8), tmp_path / "two/obses/episode_002.pth")
    message = user_error(lambda: convert(tmp_path / "two", tmp_path / "three", "dino_wm", layout="point_maze"))
    assert message == "two/002: frames are 32 x 64, those before it 64 x 64"


@pytest.mark.parametrize("to", ["dino_wm", "robomimic"])
def test_a_killed_job_goes_on(tmp_path: Path, to: str) -> None:
    """SIGKILL after two episodes; the second call converts the others only, and the bytes are those of one call."""
    write_layout("point_maze", tmp_path / "src")
    code = (
        "import os, signal, sys; from pathlib import Path; from ray_jobs.convert_data import convert_data\n"
        "def die(done, total, part):\n    if done == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "convert_data(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], actors=0, progress=die)"
    )
    killed = tmp_path / "killed"
    call = [sys.executable, "-c", code, str(tmp_path / "src"), str(killed), to]
    died = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert died.returncode == -signal.SIGKILL, died.stderr[-2000:]
    assert not (killed / "states.pth").exists()
    heard: list[int] = []
    convert(tmp_path / "src", killed, to, progress=lambda done, total, part: part == "read" and heard.append(done))
    assert heard == [3, 4]
    convert(tmp_path / "src", tmp_path / "whole", to)
    if to == "dino_wm":
        assert contents(killed) == contents(tmp_path / "whole")
    assert set(contents(killed)) == set(contents(tmp_path / "whole"))
    same_numbers(opened(killed), opened(tmp_path / "whole"))


@pytest.mark.ray
@pytest.mark.slow
def test_actors_write_the_same_bytes(tmp_path: Path, ray_cluster: Any) -> None:
    write_layout("point_maze", tmp_path / "src")
    convert(tmp_path / "src", tmp_path / "one", "dino_wm")
    convert(tmp_path / "src", tmp_path / "two", "dino_wm", actors=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    message = user_error(lambda: convert(tmp_path / "src", tmp_path / "three", "dino_wm", actors=5))
    assert "--actors: 5, but there are 4 CPUs" in message


def test_the_command(tmp_path: Path) -> None:
    write_layout("point_maze", tmp_path / "src")
    words = [
        "data",
        "convert",
        str(tmp_path / "src"),
        str(tmp_path / "out"),
        "episodes=2",
        "--to",
        "dino_wm",
        "--size",
        "96",
    ]
    result = CliRunner().invoke(app, [*words, "--actors", "0"])
    assert result.exit_code == 0, result.output
    assert "has no place for" in result.output
    assert f"{tmp_path / 'out'}: written" in result.output
    assert len(opened(tmp_path / "out")) == 2
    assert "complete already" in CliRunner().invoke(app, [*words, "--actors", "0"]).output
