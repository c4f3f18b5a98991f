"""Data of any world: the same from one process as from many, whatever dies on the way; what it records; what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ray_jobs.make_data import make_data, record_job
from ray_jobs.runtime import making
from ray_jobs.runtime.episodes import Failure, record_on_actors
from tests.ray_jobs.test_make_data import contents
from tests.wm.data.samples import user_error, wall_source
from wm.build import build_policy, build_world
from wm.config.policies import ExpertNoisyPolicyConfig
from wm.config.worlds import WallWorldConfig
from wm.envs.demonstrations import record_episode

ROOT = Path(__file__).parents[2]
WALL: dict[str, Any] = {"episodes": 4, "steps": 8, "frame_size": 20, "layout": "random"}
CRASHING = (
    "world.target=tests.ray_jobs.crashing_world:CrashingWorld",
    "world.config.beyond=53.5",
)  # one of the first six starts
CUSTOM: dict[str, Any] = {"episodes": 6, "steps": 8, "frame_size": 20, "format": "wall_single"}

MAZELIKE = ["world.target=tests.ray_jobs.mazelike_world:MazelikeWorld"]


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "episodes.json").read_text())


def test_what_is_recorded_is_what_was_done(tmp_path: Path) -> None:
    made = make_data(
        "wall", tmp_path, **{**WALL, "steps": 40}, policy="expert_noisy", seed=3, overrides=["policy.std=0.3"], actors=0
    )
    assert made.fresh
    source, record = wall_source(tmp_path), summary(tmp_path)
    config = WallWorldConfig(frame_size=20, layout="random")
    world, policy = build_world(config), build_policy(ExpertNoisyPolicyConfig(std=0.3), config)
    for index in range(4):
        expected = record_episode(world, policy, 40, 3, index)
        np.testing.assert_array_equal(source.states[index], expected.states)
        np.testing.assert_array_equal(source.actions[index], expected.actions)
        np.testing.assert_array_equal(source.episode(index).frames(range(40)), expected.frames)
        said = record["episodes"][index]
        assert said["layout"] == expected.layout == source.episode(index).tags
        assert said["success"] is expected.success is True
        np.testing.assert_array_equal(said["goal"], expected.goal)
        assert said["draw"] == index
    assert record["success_rate"] == 1
    assert record["failures"] == []
    assert "success of policy 'expert_noisy': 4 of 4 (100%)" in made.notes
    recipe = json.loads((tmp_path / "recipe.json").read_text())
    assert recipe["policy_config"] == {"kind": "expert_noisy", "std": 0.3}
    assert recipe["world_config"]["layout"] == "random"
    sheet = cv2.imread(str(tmp_path / "contact_sheet.png"))
    assert sheet is not None
    assert sheet.shape == (4 * 22, 3 * 22, 3)
    np.testing.assert_array_equal(sheet[1:, 1:][:20, :20, ::-1], source.episode(0).frames([0])[0])
    assert not (tmp_path / ".episodes").exists()


def test_a_shift_is_drawn_and_said(tmp_path: Path) -> None:
    for name, shift in (("plain", None), ("dark", "light")):
        make_data("wall", tmp_path / name, **WALL, shift=shift, actors=0)
    plain, dark = wall_source(tmp_path / "plain"), wall_source(tmp_path / "dark")
    np.testing.assert_array_equal(plain.states, dark.states)
    assert dark.episode(0).frames([0]).mean() < 0.8 * plain.episode(0).frames([0]).mean()
    assert summary(tmp_path / "dark")["shift"] == "light"
    assert summary(tmp_path / "plain")["shift"] == "none"
    assert "world.shift" in user_error(lambda: make_data("wall", tmp_path / "plain", **WALL, shift="light", actors=0))


def test_a_wall_recipe_of_earlier_versions_is_understood(tmp_path: Path) -> None:
    make_data("wall", tmp_path, **WALL, actors=0)
    flat = {"world": "wall", **WALL, "policy": "wander", "seed": 0}
    (tmp_path / "recipe.json").write_text(json.dumps(flat))
    assert make_data("wall", tmp_path, **WALL, actors=0).fresh is False
    assert "world.layout" in user_error(lambda: make_data("wall", tmp_path, **{**WALL, "layout": "fixed"}, actors=0))


def test_a_world_that_raises_costs_a_draw(tmp_path: Path) -> None:
    """The episode becomes another draw of the same seed, and the summary says so."""
    given = {**CUSTOM, "overrides": [*CRASHING, "world.config.dies=false"]}
    made = make_data("custom", tmp_path, **given, actors=0)
    record = summary(tmp_path)
    assert len(record["failures"]) == 1
    assert all(failure["reason"] == "RuntimeError: the solver did not converge" for failure in record["failures"])
    draws = [episode["draw"] for episode in record["episodes"]]
    assert all(draw % 6 == index for index, draw in enumerate(draws))
    assert sum(draw // 6 for draw in draws) == len(record["failures"])
    assert any("draws failed and were replaced" in note for note in made.notes)
    source = wall_source(tmp_path)
    assert len(source) == 6
    assert (source.states[:, 0, 0] <= 53.5).all()


def test_a_world_that_always_raises_ends_the_job(tmp_path: Path) -> None:
    given = {**CUSTOM, "overrides": [CRASHING[0], "world.config.beyond=0", "world.config.dies=false"]}
    message = user_error(lambda: make_data("custom", tmp_path, **given, actors=0))
    assert message == "episode 0: failed 10 times, at last: RuntimeError: the solver did not converge"


def test_a_policy_that_does_not_fit_the_world_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    message = user_error(lambda: make_data("wall", tmp_path / "out", **WALL, policy="push", actors=0))
    assert message.startswith("--policy push: world 'wall' is no table")
    assert not (tmp_path / "out").exists()


def test_a_folder_in_which_nothing_was_recorded_is_free(tmp_path: Path) -> None:
    given = {**CUSTOM, "overrides": [CRASHING[0], "world.config.beyond=0", "world.config.dies=false"], "actors": 0}
    user_error(lambda: make_data("custom", tmp_path, **given))
    assert make_data("wall", tmp_path, **WALL, actors=0).fresh
    assert "already holds another" in user_error(lambda: make_data("custom", tmp_path, **given))


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file" / "out", Path("/proc/no_data_here")):
        message = user_error(lambda out=out: make_data("wall", out, **WALL, actors=0))
        assert f"{out}: cannot be written" in message


@pytest.mark.ray
@pytest.mark.slow
def test_more_actors_than_a_cluster_has_write_nothing(tmp_path: Path, ray_cluster: Any) -> None:
    message = user_error(lambda: make_data("wall", tmp_path / "out", **{**WALL, "actors": 5}))
    assert "--actors: 5, but there are 4 CPUs" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_actors_make_the_same_bytes(tmp_path: Path, ray_cluster: Any) -> None:
    heard: list[tuple[int, int]] = []
    make_data("wall", tmp_path / "one", **WALL, actors=0)
    make_data("wall", tmp_path / "two", **WALL, actors=2, progress=lambda done, total: heard.append((done, total)))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert heard == [(n, 4) for n in range(1, 5)]


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_actor_is_replaced_and_its_episode_redone(tmp_path: Path, ray_cluster: Any) -> None:
    """Dead once: nothing shows. Dead every time: that draw, and no other, is replaced."""
    calm = [*CRASHING, "world.config.dies=false"]
    make_data("custom", tmp_path / "raises", **CUSTOM, overrides=calm, actors=0)
    make_data("custom", tmp_path / "never", **CUSTOM, overrides=[CRASHING[0], "world.config.beyond=99"], actors=0)
    flag = tmp_path / "died"
    once = [*CRASHING, f"world.config.once={flag}"]
    make_data("custom", tmp_path / "once", **CUSTOM, overrides=once, actors=2)
    assert flag.exists()
    assert summary(tmp_path / "once") == summary(tmp_path / "never")
    np.testing.assert_array_equal(wall_source(tmp_path / "once").states, wall_source(tmp_path / "never").states)

    spared = [*CRASHING, f"world.config.spared_pid={os.getpid()}"]
    make_data("custom", tmp_path / "dies", **CUSTOM, overrides=spared, actors=2)
    dies, raises = summary(tmp_path / "dies"), summary(tmp_path / "raises")
    assert dies["episodes"] == raises["episodes"]
    assert [f["draw"] for f in dies["failures"]] == [f["draw"] for f in raises["failures"]]
    assert all("its process died 2 times" in failure["reason"] for failure in dies["failures"])


@pytest.mark.ray
@pytest.mark.slow
def test_an_episode_that_hangs_is_replaced(tmp_path: Path, ray_cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(making.Recorder):
        def record(self, job: Any, index: int, failures: tuple[Failure, ...]) -> None:
            import time

            if index == 1 and not failures:
                time.sleep(600)
            super().record(job, index, failures)

    monkeypatch.setattr(making, "Recorder", Slow)
    job = record_job("wall", tmp_path, **WALL)
    record_on_actors(job, [0, 1, 2, 3], 2, lambda index: None, timeout_s=40)
    assert job.staged().missing() == []
    assert job.staged().record(1)["failures"] == [{"draw": 1, "reason": "took more than 40 s"}]
    assert job.staged().record(1)["draw"] == 5


@pytest.mark.slow
def test_a_killed_job_goes_on(tmp_path: Path) -> None:
    """SIGKILL after two episodes; the second call records the other two only, and the bytes are those of one call."""
    code = (
        "import os, signal, sys; from pathlib import Path; from ray_jobs.make_data import make_data\n"
        "def die(done, total):\n    if done == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "make_data('custom', Path(sys.argv[1]), episodes=4, steps=8, frame_size=20, format='point_maze', actors=0, "
        "overrides=sys.argv[2:], progress=die)"
    )
    target = tmp_path / "killed"
    call = [sys.executable, "-c", code, str(target), *MAZELIKE]
    died = subprocess.run(call, cwd=ROOT, capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr[-2000:]
    assert not (target / "states.pth").exists()
    heard: list[int] = []
    given: dict[str, Any] = {"episodes": 4, "steps": 8, "frame_size": 20, "format": "point_maze", "overrides": MAZELIKE}
    make_data("custom", target, **given, actors=0, progress=lambda done, total: heard.append(done))
    assert heard == [3, 4]
    make_data("custom", tmp_path / "whole", **given, actors=0)
    assert contents(target) == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("world", "change", "words"),
    [
        ("wal", {}, ("WORLD", "'wal'", "Did you mean 'wall'?")),
        ("wall", {"policy": "exprt"}, ("--policy", "Did you mean 'expert'?")),
        ("wall", {"shift": "lihgt"}, ("--shift", "Did you mean 'light'?")),
        ("linear", {"shift": "light"}, ("--shift", "world 'linear' has no shift")),
        ("wall", {"format": "lerbot"}, ("--format", "Did you mean 'lerobot'?")),
        ("linear", {"format": "wall_single"}, ("--format wall_single", "world 'linear' has none")),
        ("linear", {"format": "robosuite"}, ("--format robosuite", "world 'linear' tells none")),
        ("linear", {"format": "pusht_noise"}, ("--format pusht_noise", "2 actions and 7 state entries")),
        ("linear", {"format": "deformable"}, ("--format deformable", "4 actions")),
        ("linear", {"format": "lerobot", "frame_size": 31}, ("--size: 31", "even")),
        ("linear", {"overrides": ["world.sed=3"]}, ("world.sed", "Did you mean 'world.seed'?")),
        ("linear", {"overrides": ["world.seed=-3"]}, ("world.seed", "greater than or equal to 0")),
        ("wall", {"overrides": ["policy.std=nan"], "policy": "smooth"}, ("policy.std", "nan")),
        ("wall", {"overrides": ["policy.mean_length=9"]}, ("policy: expected min_length <=",)),
        ("wall", {"overrides": ["plan.episodes=3"]}, ("plan.episodes", "world.FIELD=VALUE")),
        ("wall", {"overrides": ["world.layout=random"], "layout": "fixed"}, ("--layout: given twice",)),
        ("wall", {"actors": -1}, ("--actors: -1",)),
        ("wall", {"actors": 4096}, ("--actors: 4096", "CPUs")),
        ("custom", {"overrides": []}, ("world.target", "must be given")),
        ("custom", {"overrides": [CRASHING[0]]}, ("world.target", "failed: TypeError")),
    ],
)
def test_bad_arguments_get_one_line(tmp_path: Path, world: str, change: dict[str, Any], words: tuple[str, ...]) -> None:
    given = {"episodes": 2, "steps": 4, "frame_size": 64, "actors": 0, **change}
    message = user_error(lambda: make_data(world, tmp_path / "out", **given))
    for word in words:
        assert word in message
    assert "\n" not in message
    assert not (tmp_path / "out").exists()
