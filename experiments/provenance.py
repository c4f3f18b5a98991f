"""Where numbers come from: commit, versions, machine."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
LIBRARIES = ("torch", "ray", "transformers", "mlflow", "numpy", "optuna")


@cache
def git_commit() -> str:
    """The short commit of this checkout, with `+dirty` when files differ from it; `unknown` outside a checkout."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return f"{commit}+dirty" if _git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return "unknown"


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
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
