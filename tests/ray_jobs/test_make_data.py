"""Data sets are made the same way twice, continued after an interruption, and never over anything else."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ray_jobs.make_data import make_wall
from tests.wm.data.samples import user_error, wall_source

SMALL: dict[str, Any] = {"episodes": 3, "steps": 6, "frame_size": 20, "layout": "random"}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


class Interrupted(Exception):
    pass


def interrupted_after(done: int) -> Any:
    def progress(episodes: int, total: int) -> None:
        if episodes == done:
            raise Interrupted

    return progress


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert make_wall(tmp_path / name, seed=seed, **SMALL) is True
    first, second, other = (contents(tmp_path / name) for name in "abc")
    assert first == second
    assert set(first) == set(other)
    assert first["states.pth"] != other["states.pth"]
    assert first["obses/episode_000.pth"] != other["obses/episode_000.pth"]


def test_what_is_made_can_be_read(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    make_wall(tmp_path / "wall", progress=lambda done, total: heard.append((done, total)), **SMALL)
    source = wall_source(tmp_path / "wall")
    assert len(source) == 3
    assert source.lengths == [6, 6, 6]
    assert source.episode(2).frames([5]).shape == (1, 20, 20, 3)
    assert heard == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("done", [1, 2, 3])
def test_an_interrupted_job_goes_on(tmp_path: Path, done: int) -> None:
    make_wall(tmp_path / "whole", **SMALL)
    folder = tmp_path / "interrupted"
    with pytest.raises(Interrupted):
        make_wall(folder, progress=interrupted_after(done), **SMALL)
    assert "states.pth" in user_error(lambda: wall_source(folder))
    first = folder / "obses" / "episode_000.pth"
    before = first.stat().st_mtime_ns
    assert make_wall(folder, **SMALL) is True
    assert first.stat().st_mtime_ns == before  # not drawn twice
    assert contents(folder) == contents(tmp_path / "whole")


def test_a_complete_data_set_is_left_alone(tmp_path: Path) -> None:
    make_wall(tmp_path, **SMALL)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    assert make_wall(tmp_path, **SMALL) is False
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    assert str(tmp_path) in user_error(lambda: make_wall(tmp_path, **SMALL))
    assert contents(tmp_path) == {"thesis.tex": b"mine"}
    assert str(tmp_path) in user_error(lambda: make_wall(tmp_path / "thesis.tex", **SMALL))
    (tmp_path / "empty").mkdir()
    assert make_wall(tmp_path / "empty", **SMALL) is True


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"episodes": 4}, {"steps": 7}, {"frame_size": 21}, {"layout": "fixed"}, {"policy": "random"}],
)
@pytest.mark.parametrize("complete", [True, False])
def test_other_arguments_are_refused(tmp_path: Path, change: dict[str, Any], complete: bool) -> None:
    if complete:
        make_wall(tmp_path, **SMALL)
    else:
        with pytest.raises(Interrupted):
            make_wall(tmp_path, progress=interrupted_after(1), **SMALL)
    before = contents(tmp_path)
    message = user_error(lambda: make_wall(tmp_path, **{**SMALL, **change}))
    assert next(iter(change)) in message
    assert contents(tmp_path) == before


def test_a_small_disk_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 3 * 6 * 20 * 20 * 3
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=10**9, free=needed))
    message = user_error(lambda: make_wall(tmp_path / "deep" / "wall", **SMALL))
    assert "free on that disk" in message
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=10**9, free=needed * 1.1))
    assert make_wall(tmp_path / "deep" / "wall", **SMALL) is True


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"policy": "wandr"}, ("--policy", "'wandr'", "Did you mean 'wander'?")),
        ({"layout": "fixd"}, ("--layout", "'fixd'", "Did you mean 'fixed'?")),
        ({"episodes": 1}, ("--episodes", "1 is below 2")),
        ({"steps": 1}, ("--steps", "1 is below 2")),
        ({"frame_size": 13}, ("--size", "13 is below 14")),
        ({"seed": -1}, ("--seed", "-1 is below 0")),
    ],
)
def test_bad_arguments_get_one_line(tmp_path: Path, change: dict[str, Any], words: tuple[str, ...]) -> None:
    message = user_error(lambda: make_wall(tmp_path / "wall", **{**SMALL, **change}))
    assert all(word in message for word in words)
    assert not (tmp_path / "wall").exists()


@pytest.mark.parametrize("policy", ["wander", "random"])
def test_policies_and_layouts_differ(tmp_path: Path, policy: str) -> None:
    make_wall(tmp_path / "fixed", **{**SMALL, "layout": "fixed", "policy": policy})
    make_wall(tmp_path / "random", **{**SMALL, "policy": policy})
    fixed, drawn = wall_source(tmp_path / "fixed"), wall_source(tmp_path / "random")
    assert set(fixed.wall_x) == {32.0}
    assert set(fixed.door_y) == {30.0}
    assert len(set(drawn.wall_x)) > 1
