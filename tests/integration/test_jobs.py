"""Jobs on a head of our own that asks for a token: sent, followed, refused, stopped."""

from __future__ import annotations

import io
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rich.console import Console

from experiments.provenance import git_commit
from tests.integration.conftest import REPOSITORY, finish, wait_until
from tests.integration.heads import Head, start_head

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    with start_head(tmp_path_factory.mktemp("home")) as started:
        yield started


class Ran(NamedTuple):
    code: int
    log: str
    notes: str


@pytest.fixture
def run(head: Head, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Submit python code through the real functions."""
    from ray_jobs.submit import Submission, submit

    def start(code: str, *words: str, **options: Any) -> Ran:
        notes = Console(file=io.StringIO(), width=200)
        job_id = options.pop("job_id", f"test-{secrets.token_hex(4)}")
        given = {name: options.pop(name) for name in ("files", "home") if name in options}
        code_of = submit(Submission(("python", "-c", code, *words), job_id, **given), head.address, notes, **options)
        assert isinstance(notes.file, io.StringIO)
        return Ran(code_of, capsys.readouterr().out, notes.file.getvalue())

    return start


def test_a_job_runs_this_code_and_writes_to_the_heads_home(run: Callable[..., Ran], head: Head) -> None:
    code = """
import os, sys, ray_jobs, experiments.provenance as p
from ray_jobs.runtime.runs import storage_root
print('where', p.REPOSITORY, 'from', p.git_commit(), 'home', storage_root(None), sys.argv[1:])
print('joins', os.environ['RAY_ADDRESS'])
del os.environ['WM_HOME']
try:
    storage_root(None)
except Exception as error:
    print(type(error).__name__, error)
"""
    began = time.monotonic()
    ran = run(code, "$(touch pwned) 'quoted'")
    print(f"a trivial job: {time.monotonic() - began:.1f} s")
    assert ran.code == 0
    assert f"from {git_commit()} home {head.home}" in ran.log
    assert "[\"$(touch pwned) 'quoted'\"]" in ran.log
    assert f"where {REPOSITORY} " not in ran.log
    assert re.search(r"^joins [\d.]+:\d+$", ran.log, re.MULTILINE)
    assert "UserError storage.root=wm_home: the folder of a Ray job is temporary" in ran.log
    assert "SUCCEEDED" in ran.notes


def test_a_given_file_and_home_travel(run: Callable[..., Ran], tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("question: ?\n", encoding="utf-8")
    code = "import os, pathlib; print(pathlib.Path('submitted/spec/mine.yaml').read_text(), os.environ['WM_HOME'])"
    ran = run(code, files={"submitted/spec/mine.yaml": mine}, home=tmp_path / "other")
    assert ran.code == 0
    assert f"question: ?\n {tmp_path / 'other'}" in ran.log


def test_exit_code_of_a_failure_and_reuse_of_its_id(run: Callable[..., Ran]) -> None:
    from wm.config.errors import UserError

    ran = run("import sys; print('so far'); sys.exit(3)", job_id="once")
    assert ran.code == 3
    assert "so far" in ran.log
    assert "once: FAILED, exit code 3" in ran.notes
    with pytest.raises(UserError, match="'once' was used before"):
        run("pass", job_id="once")


def wm(head: Head, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """A command of its own, since Ray keeps the first token that it reads."""
    return subprocess.Popen(
        [sys.executable, "-m", "ray_jobs.cli", *arguments, "--address", head.address],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"RAY_AUTH_TOKEN": "wrong"}, "refuses the token of RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_MODE": "disabled"}, "asks for a token"),
        ({"RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": "/none"}, "/none"),
    ],
)
def test_a_wrong_token_is_one_line(head: Head, environment: dict[str, str], words: str) -> None:
    began = time.monotonic()
    for arguments in (["jobs"], ["submit", "wall_planning"]):
        process = wm(head, *arguments, **environment)
        output = finish(process, 60)
        assert process.returncode == 2
        assert words in output
        assert len(output.strip().splitlines()) == 1
    assert time.monotonic() - began < 20


def test_stop_reaches_the_job(run: Callable[..., Ran], head: Head, tmp_path: Path) -> None:
    started, told = tmp_path / "started", tmp_path / "told"
    # It takes longer to end than Ray's own three seconds of grace.
    code = f"""
import pathlib, signal, sys, time
def end(signum, frame):
    time.sleep(5)
    pathlib.Path({str(told)!r}).write_text(str(signum))
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
pathlib.Path({str(started)!r}).touch()
time.sleep(600)
"""
    ran = run(code, job_id="sleeper", wait=False)
    assert (ran.code, ran.log) == (0, "sleeper\n")
    wait_until(started.exists, 60)
    listed = finish(wm(head, "jobs"), 60)
    assert next(line for line in listed.splitlines() if line.startswith("sleeper\tRUNNING\tpython -c"))
    assert git_commit() in listed
    unknown = wm(head, "stop", "sleepr")
    assert "Did you mean 'sleeper'?" in finish(unknown, 60)
    assert unknown.returncode == 2
    stopping = wm(head, "stop", "sleeper")
    assert finish(stopping, 90) == "sleeper: ended as STOPPED\n"
    assert stopping.returncode == 0
    assert told.read_text() == str(int(signal.SIGTERM))


def test_ctrl_c_leaves_the_job_alone(head: Head, tmp_path: Path) -> None:
    script = f"""
import sys
from rich.console import Console
from ray_jobs.submit import Submission, submit
import signal; signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(submit(Submission(("python", "-c", "import time; print('up'); time.sleep(600)"), "left"), {head.address!r}, Console()))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    seen = ""
    while "\nup\n" not in seen:
        line = process.stdout.readline()
        assert line, seen
        seen += line
    process.send_signal(signal.SIGINT)
    output = finish(process, 30)
    assert process.returncode == 130
    assert "the job goes on" in output
    assert "wm stop left" in output
    assert "\nleft\tRUNNING\t" in "\n" + finish(wm(head, "jobs"), 60)
    assert finish(wm(head, "stop", "left"), 90) == "left: ended as STOPPED\n"
