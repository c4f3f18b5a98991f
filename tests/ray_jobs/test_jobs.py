"""Following, stopping and listing, against a client that behaves as Ray's does."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus
from rich.console import Console

import ray_jobs.jobs as jobs
from wm.config.errors import UserError


def job(job_id: str | None, status: str = "SUCCEEDED", **more: Any) -> Any:
    given = {"entrypoint": "python -m x", "metadata": {"commit": "abc"}, "start_time": 1_000_000, "end_time": 1_184_000}
    given["driver_exit_code"] = None
    return SimpleNamespace(submission_id=job_id, status=JobStatus(status), **{**given, **more})


class FakeClient:
    """`log` comes in chunks; a connection breaks after as many as `breaks` says, and the next begins anew."""

    def __init__(self, *found: Any, log: tuple[str, ...] = (), breaks: tuple[int, ...] = ()) -> None:
        self.jobs, self.log, self.breaks, self.stopped = list(found), log, list(breaks), []

    def get_address(self) -> str:
        return "http://head:8265"

    def list_jobs(self) -> list[Any]:
        return self.jobs

    def get_job_info(self, job_id: str) -> Any:
        found = [j for j in self.jobs if j.submission_id == job_id]
        return found[-1] if len(found) == 1 else self.jobs.pop(self.jobs.index(found[0]))

    def stop_job(self, job_id: str) -> bool:
        self.stopped.append(job_id)
        return not self.jobs[0].status.is_terminal()

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        broken = self.breaks.pop(0) if self.breaks else None
        for number, chunk in enumerate(self.log):
            if number == broken:
                raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")
            yield chunk


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_POLL_S", 0.001)


def followed(client: FakeClient) -> tuple[str, Any]:
    out = io.StringIO()
    ended = jobs.follow(client, "a", out)  # type: ignore[arg-type]
    return out.getvalue(), ended


def test_a_log_is_followed_to_the_end() -> None:
    running, done = job("a", "RUNNING"), job("a", "FAILED", driver_exit_code=3)
    text, ended = followed(FakeClient(running, done, log=("one\n", "two\n")))
    assert text == "one\ntwo\n"
    assert jobs.exit_code(ended) == 3


def test_a_broken_stream_goes_on_where_it_was() -> None:
    assert followed(FakeClient(job("a"), log=("one\n", "two\n", "three\n"), breaks=(1, 0, 2)))[0] == "one\ntwo\nthree\n"


def test_a_server_that_stays_away_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_LOST_S", 0.05)
    with pytest.raises(UserError, match=r"no answer for 0.05 s; 'a' may go on"):
        followed(FakeClient(job("a"), log=("one",), breaks=(0,) * 1000))


def test_stop_waits_for_the_end() -> None:
    client = FakeClient(job("a", "RUNNING"), job("a", "RUNNING"), job("a", "STOPPED"))
    ended, asked = jobs.stop(client, "a")  # type: ignore[arg-type]
    assert (ended.status.value, asked) == ("STOPPED", True)
    assert client.stopped == ["a"]


def test_stop_of_what_has_ended() -> None:
    ended, asked = jobs.stop(FakeClient(job("a", "FAILED")), "a")  # type: ignore[arg-type]
    assert (ended.status.value, asked) == ("FAILED", False)


def test_stop_of_an_unknown_job_names_the_nearest() -> None:
    client = FakeClient(job("wall-1f"), job(None))
    with pytest.raises(UserError, match=r"wall-1e: no such job at http://head:8265\. Did you mean 'wall-1f'\?"):
        jobs.stop(client, "wall-1e")  # type: ignore[arg-type]
    assert not client.stopped


def listed(*found: Any, terminal: bool) -> str:
    console = Console(file=io.StringIO(), width=120, force_terminal=terminal, color_system=None)
    jobs.show(FakeClient(*found), console)  # type: ignore[arg-type]
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_list_newest_first_without_drivers_of_others() -> None:
    old = job("old", entrypoint="python -m x\n'a=[b,c]'")
    new = job("new", "RUNNING", start_time=2_000_000, end_time=None, metadata=None)
    header, first, second = listed(old, new, job(None), terminal=False).splitlines()
    assert header.split("\t") == ["id", "status", "entrypoint", "commit", "started", "duration"]
    assert first.split("\t")[:4] == ["new", "RUNNING", "python -m x", ""]
    assert second.split("\t")[:4] == ["old", "SUCCEEDED", "python -m x 'a=[b,c]'", "abc"]
    assert second.split("\t")[-1] == "3 min 04 s"


def test_list_on_a_terminal() -> None:
    assert "'runs=[b,c]'" in listed(job("a", entrypoint="x 'runs=[b,c]'"), terminal=True)
    assert listed(terminal=True) == "no jobs at http://head:8265\n"


@pytest.mark.parametrize(("seconds", "text"), [(-1, "0 s"), (59.9, "59 s"), (184, "3 min 04 s"), (7384, "2 h 03 min")])
def test_duration(seconds: float, text: str) -> None:
    assert jobs.duration(seconds) == text
