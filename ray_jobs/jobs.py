"""Jobs of a cluster: follow one to its end, stop one, list all."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ray_jobs.job_server import faults_in_one_line
from wm.config.errors import UserError, nearest

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

# What SIGTERM leaves a job to close its records. Ray's own three seconds are less than a checkpoint and MLflow take.
STOP_GRACE_S = 60
_POLL_S = 0.5
_LOST_S = 60.0  # how long a dashboard that went away may take to come back
_COLUMNS = ("id", "status", "entrypoint", "commit", "started", "duration")


class HasEnded(Protocol):
    """What `exit_code` needs to know of a job."""

    @property
    def status(self) -> str: ...
    @property
    def driver_exit_code(self) -> int | None: ...


def exit_code(job: HasEnded) -> int:
    """0 when it succeeded, else the job's own code, as a shell gives it; 1 when it has none."""
    if job.status == "SUCCEEDED":
        return 0
    code = job.driver_exit_code or 1
    return code if code > 0 else 128 - code  # a signal is negative to Python


def follow(client: JobSubmissionClient, job_id: str, out: TextIO) -> JobDetails:
    """Write the job's log as it comes, until it has ended. A stream that breaks off is taken up where it was.

    Raises UserError when the dashboard does not come back within a minute.
    """
    import aiohttp

    log = _Log(out)
    lost_at: float | None = None
    while True:
        seen = log.written
        try:
            asyncio.run(log.read(client, job_id))
            return _ended(client, job_id)
        except (RuntimeError, OSError, aiohttp.ClientError) as error:  # a UserError of _ended is none of these
            now = time.monotonic()
            lost_at = now if lost_at is None or log.written > seen else lost_at
            if now - lost_at > _LOST_S:
                raise UserError(
                    f"{client.get_address()}: no answer for {_LOST_S:g} s; '{job_id}' may go on: wm jobs tells"
                ) from error
            time.sleep(_POLL_S)


class _Log:
    """A log that every connection sends from its beginning, written once."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.written = 0

    async def read(self, client: JobSubmissionClient, job_id: str) -> None:
        """Until the server ends the stream."""
        received = 0
        async for text in client.tail_job_logs(job_id):
            fresh = text[max(0, self.written - received) :]
            received += len(text)
            if fresh:
                self._out.write(fresh)
                self._out.flush()
                self.written = received


def stop(client: JobSubmissionClient, job_id: str) -> tuple[JobDetails, bool]:
    """Ask a job to stop and wait until it has; how it ended, and whether it was this that ended it.

    Raises UserError for an unknown job, or when it does not end.
    """
    with faults_in_one_line(client.get_address()):
        known = [job.submission_id for job in client.list_jobs() if job.submission_id]
        if job_id not in known:
            raise UserError(f"{job_id}: no such job at {client.get_address()}.{nearest(job_id, known)}")
        asked = client.stop_job(job_id)
        return _ended(client, job_id, time.monotonic() + STOP_GRACE_S + 30), asked


def _ended(client: JobSubmissionClient, job_id: str, deadline: float = float("inf")) -> JobDetails:
    while not (job := client.get_job_info(job_id)).status.is_terminal():
        if time.monotonic() > deadline:
            raise UserError(f"{job_id}: still {job.status.value}, though it was asked to stop; see the head's logs")
        time.sleep(_POLL_S)
    return job


def show(client: JobSubmissionClient, console: Console) -> None:
    """Every submitted job, the newest first: a table, or tab-separated lines when this is no terminal."""
    with faults_in_one_line(client.get_address()):
        jobs = [job for job in client.list_jobs() if job.submission_id]
    rows = [_row(job, time.time()) for job in sorted(jobs, key=lambda job: job.start_time or 0, reverse=True)]
    if not console.is_terminal:
        for row in [_COLUMNS, *rows]:
            print("\t".join(row), file=console.file)
        return
    table = Table(box=None, pad_edge=False)
    for column in _COLUMNS:
        table.add_column(
            column, overflow="fold" if column == "entrypoint" else "ellipsis", no_wrap=column != "entrypoint"
        )
    for row in rows:
        table.add_row(*map(Text, row))  # an override may look like markup
    console.print(table if rows else f"no jobs at {client.get_address()}", highlight=False)


def _row(job: JobDetails, now: float) -> tuple[str, ...]:
    began = (job.start_time or 0) / 1000
    ended = job.end_time / 1000 if job.end_time else now
    return (
        job.submission_id or "",
        job.status.value,
        " ".join(job.entrypoint.split()),  # one line, whatever it holds
        (job.metadata or {}).get("commit", ""),
        datetime.fromtimestamp(began).strftime("%Y-%m-%d %H:%M:%S") if began else "",
        duration(ended - began) if began else "",
    )


def duration(seconds: float) -> str:
    """`4 s`, `3 min 04 s`, `2 h 03 min`."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
