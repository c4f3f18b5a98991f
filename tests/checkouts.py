"""A small git checkout that stands for the repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from experiments import provenance


def checkout(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One commit of code.py, tracked.log (which .gitignore would leave out) and .gitignore; REPOSITORY is set to it."""
    root.mkdir()
    (root / "code.py").write_text("x = 1\n", encoding="utf-8")
    (root / ".gitignore").write_text("*.log\ndata/\n.venv/\n", encoding="utf-8")
    (root / "tracked.log").write_text("kept\n", encoding="utf-8")
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "-f", "."], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *command], cwd=root, check=True, capture_output=True)
    monkeypatch.setattr(provenance, "REPOSITORY", root)
    forget()
    return root


def forget() -> None:
    """What provenance remembers of the last repository."""
    provenance.git_commit.cache_clear()
    provenance.dirty_diff.cache_clear()
