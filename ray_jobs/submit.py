"""A submission: the command a job runs, the folder it runs in, where its results go, and where its code came from."""

from __future__ import annotations

import re
import secrets
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import environ
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from experiments.pretrain_spec import load_pretrain_spec
from experiments.provenance import git_commit
from experiments.search_space import load_space
from experiments.spec import load_spec
from ray_jobs.job_server import connect, faults_in_one_line
from ray_jobs.jobs import STOP_GRACE_S, exit_code, follow
from ray_jobs.staging import path_in_job, stage
from wm.config.errors import UserError
from wm.config.yaml import parse_override

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

DETACHED = 130  # as a shell says of Ctrl-C


@dataclass(frozen=True)
class Submission:
    """What is sent to a cluster.

    Args:
        command: run by a shell in the staged folder.
        files: path in the job -> file here, beside the code.
        home: storage.root on the cluster's nodes; None leaves it to the WM_HOME of the head.
    """

    command: tuple[str, ...]
    job_id: str
    files: Mapping[str, Path] = field(default_factory=dict)
    home: Path | None = None

    @property
    def entrypoint(self) -> str:
        """The command, quoted: whatever a value holds, the shell takes it as one word."""
        return shlex.join(self.command)

    @property
    def metadata(self) -> dict[str, str]:
        """Kept with the job."""
        commit = git_commit()
        return {"commit": commit, "dirty": "yes" if commit.endswith("+dirty") else "no", "entrypoint": self.entrypoint}

    @property
    def env_vars(self) -> dict[str, str]:
        """Of the driver and of its workers."""
        home = {} if self.home is None else {"WM_HOME": str(self.home)}
        return {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_GRACE_S), **home}


def prepare(
    spec: str,
    overrides: Sequence[str] = (),
    *,
    space: str | None = None,
    trials: int | None = None,
    seeds: int | None = None,
    job_id: str | None = None,
    encoder: bool = False,
) -> Submission:
    """`wm submit`'s arguments as a submission. Raises UserError for what can be known to be wrong here.

    Args:
        encoder: `spec` is one of an encoder.
    """
    if encoder and space is not None:
        raise UserError(
            "--space: a sweep searches an experiment's settings, not an encoder's; leave out --encoder or --space"
        )
    if space is None and (trials, seeds) != (None, None):
        raise UserError("--trials and --seeds belong to a sweep: name its search space with --space")
    if job_id is not None and not re.fullmatch(r"[\w.-]{1,128}", job_id, re.ASCII):
        raise UserError(f"--job-id: '{job_id}': expected letters, digits, '-', '_' and '.'")
    if encoder:
        loaded, config_overrides = load_pretrain_spec(spec, overrides)
        root = loaded.resolve(config_overrides).storage.root
    else:
        # The search's own settings are checked by the sweep.
        loaded, config_overrides = load_spec(spec, [text for text in overrides if not text.startswith("sweep.")])
        root = loaded.resolve_runs(config_overrides)[0].config.storage.root
    given = [text for text in overrides if parse_override(text)[0] != "storage.root"]
    home = (
        Path(root or environ.get("WM_HOME") or "").expanduser().absolute() if root or environ.get("WM_HOME") else None
    )
    if root is not None:
        given.append(_override("storage.root", str(home)))  # relative paths would lie in the job's own folder
    spec_name, files = path_in_job(spec, "spec")
    if space is None:
        job = "ray_jobs.pretrain_encoder" if encoder else "ray_jobs.experiment"
        command = ["python", "-m", job, spec_name, *given]
    else:
        load_space(space)
        space_name, more = path_in_job(space, "space")
        files |= more
        options = {"--space": space_name, "--trials": trials, "--seeds": seeds}
        words = [str(word) for option, value in options.items() if value is not None for word in (option, value)]
        command = ["python", "-m", "ray_jobs.sweep", spec_name, *words, *given]
    name = re.sub(r"[^\w.-]+", "_", f"{loaded.name}-{Path(space).stem}" if space else loaded.name, flags=re.ASCII)
    return Submission(tuple(command), job_id or f"{name}-{secrets.token_hex(3)}", files, home)


def submit(submission: Submission, address: str | None, console: Console, *, wait: bool = True) -> int:
    """Stage, send and follow; the job's exit code, or DETACHED after Ctrl-C, which leaves the job alone.

    `console` gets the notes; the job's log, or its id when not followed, goes to stdout. Raises UserError.
    """
    client = connect(address, same_version=True)
    send(client, submission)
    where = submission.home or "the WM_HOME of the cluster"
    commit = submission.metadata["commit"]
    console.print(f"{submission.job_id}: submitted at {commit}; results in {where}", highlight=False, soft_wrap=True)
    if not wait:
        print(submission.job_id)
        return 0
    try:
        job = follow(client, submission.job_id, sys.stdout)
    except KeyboardInterrupt:
        console.print(
            f"no longer followed; the job goes on. `wm jobs` lists it, `wm stop {submission.job_id}` ends it.",
            highlight=False,
            soft_wrap=True,
        )
        return DETACHED
    code = exit_code(job)
    why = f": {_summary(job.message)}" if job.driver_exit_code is None and job.message else f", exit code {code}"
    console.print(f"{submission.job_id}: {job.status.value}{why}", highlight=False, soft_wrap=True, markup=False)
    if code == 127:
        console.print(
            "the head found no `python`: start it with the bin folder of its environment in PATH", highlight=False
        )
    return code


def send(client: JobSubmissionClient, submission: Submission) -> None:
    """Upload the staged folder and start the job. Raises UserError, also when the id was used before."""
    with tempfile.TemporaryDirectory(prefix="wm_submit_") as folder:
        stage(Path(folder), submission.files)
        with faults_in_one_line(client.get_address()):
            try:
                client.submit_job(
                    entrypoint=submission.entrypoint,
                    submission_id=submission.job_id,
                    runtime_env={"working_dir": folder, "env_vars": submission.env_vars},
                    metadata=submission.metadata,
                )
            except RuntimeError as error:
                if "already exists" not in str(error):
                    raise
                raise UserError(
                    f"--job-id: '{submission.job_id}' was used before; choose another, or leave it out"
                ) from error


def _override(path: str, value: str) -> str:
    """path=value, quoted where YAML would read something else."""
    try:
        if parse_override(f"{path}={value}")[1] == value:
            return f"{path}={value}"
    except UserError:
        pass
    quoted = value.replace("'", "''")
    return f"{path}='{quoted}'"


def _summary(message: str) -> str:
    """Ray's reason for a job that never started, without its traceback."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[0][:300] if lines else ""
