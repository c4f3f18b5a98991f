"""Where numbers come from: commit, versions, machine."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
STAGED = ".provenance"  # `wm submit` puts this folder beside the code it stages, where there is no .git
LIBRARIES = ("torch", "ray", "transformers", "mlflow", "numpy", "optuna")


@cache
def git_commit() -> str:
    """The short commit of this checkout, with `+dirty` when dirty_diff() is not empty; `unknown` outside a checkout.

    In a submitted job: what held where it was submitted.
    """
    staged = REPOSITORY / STAGED / "commit"
    if staged.is_file():
        return staged.read_text(encoding="utf-8")
    try:
        commit = _git("rev-parse", "--short=12", "HEAD").strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{commit}+dirty" if dirty_diff() else commit


@cache
def dirty_diff() -> str:
    """How the files differ from the commit: a patch, then one line for each untracked file; empty outside a checkout."""
    staged = REPOSITORY / STAGED / "dirty.diff"
    if staged.is_file():
        return staged.read_text(encoding="utf-8")
    try:
        patch = _git("diff", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD")
        untracked = _git("ls-files", "--others", "--exclude-standard", "-z")
    except (OSError, subprocess.SubprocessError):
        return ""
    return patch + "".join(f"# untracked: {name}\n" for name in untracked.split("\0") if name)


def write_provenance(folder: Path) -> None:
    """Put the commit and the diff into a folder that holds a copy of the code."""
    (folder / STAGED).mkdir()
    (folder / STAGED / "commit").write_text(git_commit(), encoding="utf-8")
    (folder / STAGED / "dirty.diff").write_text(dirty_diff(), encoding="utf-8")


def versioned_files() -> list[str]:
    """What git would commit if all were added: tracked and untracked files, without the ignored; relative to REPOSITORY.

    Raises OSError or subprocess.SubprocessError outside a checkout.
    """
    names = _git("ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    return sorted({name for name in names if name})


def library_versions() -> dict[str, str]:
    """Installed versions of what decides the numbers."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def machine() -> str:
    """Processor and core count, for people to read."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = f"{names[0]}, {len(names)} cores" if names else model
    return model


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        errors="replace",  # a patch may hold any bytes
        check=True,
        timeout=10,
    )
    return done.stdout
