"""A submission says exactly what was asked for, whatever the values hold."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments import provenance
from ray_jobs.jobs import exit_code
from ray_jobs.submit import Submission, prepare
from tests.integration.conftest import SPEC
from wm.config.errors import UserError
from wm.config.yaml import parse_override

HOSTILE = [
    "plan.episodes=3; touch pwned",
    "a=$(touch pwned)",
    "a=`touch pwned`",
    "a='\"'\\",
    "a=x y\tz\n&& touch pwned",
    "a=*",
    "a=~",
    "a=| tee pwned > pwned",
    "a=!!",
]


def test_the_shell_takes_every_value_as_one_word(tmp_path: Path) -> None:
    show = "import sys; sys.stdout.write('\\0'.join(sys.argv[1:]))"
    entrypoint = Submission((sys.executable, "-c", show, *HOSTILE), "job").entrypoint
    # As Ray's supervisor runs it.
    done = subprocess.run(entrypoint, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split("\0") == HOSTILE
    assert not list(tmp_path.iterdir())


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SPEC, encoding="utf-8")
    return path


def test_an_experiment(spec: Path) -> None:
    submission = prepare(str(spec), ["train.epochs=3", "seeds=[0,1]"])
    assert shlex.split(submission.entrypoint) == [
        *("python", "-m", "ray_jobs.experiment", "submitted/spec/small.yaml", "train.epochs=3", "seeds=[0,1]")
    ]
    assert submission.files == {"submitted/spec/small.yaml": spec}
    assert submission.job_id.startswith("small-")
    assert prepare(str(spec)).job_id != prepare(str(spec)).job_id


def test_a_shipped_spec_needs_no_file() -> None:
    submission = prepare("wall_planning", job_id="mine.1")
    assert submission.command == ("python", "-m", "ray_jobs.experiment", "wall_planning")
    assert submission.job_id == "mine.1"
    assert not submission.files


def test_a_sweep() -> None:
    submission = prepare("wall_planning", ["sweep.seed=3"], space="horizon", trials=4, seeds=2)
    assert submission.command == (
        *("python", "-m", "ray_jobs.sweep", "wall_planning", "--space", "horizon"),
        *("--trials", "4", "--seeds", "2", "sweep.seed=3"),
    )
    assert submission.job_id.startswith("wall_planning-horizon-")


def test_an_encoder(tmp_path: Path) -> None:
    submission = prepare("tiny", ["train.epochs=3", "storage.root=/there"], encoder=True)
    assert submission.command == (
        *("python", "-m", "ray_jobs.pretrain_encoder", "tiny", "train.epochs=3", "storage.root=/there"),
    )
    assert submission.home == Path("/there")
    mine = tmp_path / "mine.yaml"
    mine.write_text("purpose: mine\nconfig: {data.sources: {a: {kind: lerobot, path: a}}}\n")
    assert prepare(str(mine), encoder=True).files == {"submitted/spec/mine.yaml": mine}
    with pytest.raises(UserError, match=r"train.epoch: no such setting"):
        prepare("tiny", ["train.epoch=3"], encoder=True)
    with pytest.raises(UserError, match=r"leave out --encoder or --space"):
        prepare("tiny", space="horizon", encoder=True)


def test_results_stay_where_they_are_told_to(spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    unsaid = prepare(str(spec))
    assert unsaid.home is None  # the head's own WM_HOME, or a refusal in the job
    assert "WM_HOME" not in unsaid.env_vars
    monkeypatch.setenv("WM_HOME", "home")
    assert prepare(str(spec)).env_vars["WM_HOME"] == str(tmp_path / "home")
    said = prepare(str(spec), ["storage.root=out", "train.epochs=3"])
    assert said.env_vars["WM_HOME"] == str(tmp_path / "out")
    assert said.command[-2:] == ("train.epochs=3", f"storage.root={tmp_path / 'out'}")


@pytest.mark.parametrize("name", ["a: b", "it's", "with # sign"])
def test_a_root_with_odd_characters(spec: Path, tmp_path: Path, name: str) -> None:
    quoted = name.replace("'", "''")
    last = prepare(str(spec), [f"storage.root='{tmp_path}/{quoted}'"]).command[-1]
    assert parse_override(last) == ("storage.root", f"{tmp_path}/{name}")


def test_a_root_in_the_spec_itself(spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec.write_text(SPEC.replace("config:\n", "config:\n  storage.root: near\n"), encoding="utf-8")
    assert prepare(str(spec)).command[-1] == f"storage.root={tmp_path / 'near'}"


def test_metadata_says_where_the_code_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    for commit, dirty in (("abc123", "no"), ("abc123+dirty", "yes")):
        monkeypatch.setattr("ray_jobs.submit.git_commit", lambda commit=commit: commit)
        submission = Submission(("python", "x y"), "job")
        assert submission.metadata == {"commit": commit, "dirty": dirty, "entrypoint": "python 'x y'"}
    assert provenance.git_commit() != "abc123"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"spec": "wall_plannin"}, "Did you mean 'wall_planning'"),
        ({"overrides": ["train.epoch=3"]}, "train.epochs"),
        ({"overrides": ["noequals"]}, "path=value"),
        ({"space": "horizn"}, "Did you mean 'horizon'"),
        ({"trials": 3}, "--space"),
        ({"job_id": "a/b"}, "--job-id"),
        ({"job_id": ""}, "--job-id"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_sent(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        prepare(**{"spec": "wall_planning", **arguments})  # type: ignore[arg-type]
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 3, 3),
        ("FAILED", 130, 130),
        ("FAILED", -9, 137),
        ("FAILED", None, 1),  # it never started
        ("STOPPED", None, 1),
    ],
)
def test_exit_codes(status: str, code: int | None, expected: int) -> None:
    assert exit_code(SimpleNamespace(status=status, driver_exit_code=code)) == expected
