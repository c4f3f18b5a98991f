"""Where code comes from, in a checkout, in a copy that `wm submit` staged, and outside both."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments import provenance
from tests.checkouts import checkout, forget


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    root = checkout(tmp_path / "repository", monkeypatch)
    yield root
    forget()


def test_clean(repository: Path) -> None:
    assert len(provenance.git_commit()) == 12
    assert provenance.dirty_diff() == ""


def test_changed_and_untracked(repository: Path) -> None:
    (repository / "code.py").write_text("x = 2  \n", encoding="utf-8")
    (repository / "new näme.py").write_text("y = 1\n", encoding="utf-8")
    (repository / "outputs.log").write_text("ignored", encoding="utf-8")
    assert provenance.git_commit().endswith("+dirty")
    diff = provenance.dirty_diff()
    assert "-x = 1\n+x = 2  \n" in diff
    assert diff.endswith("# untracked: new näme.py\n")
    assert "outputs.log" not in diff


def test_an_untracked_file_alone_is_dirty(repository: Path) -> None:
    """It is imported like any other, so that the commit alone does not give the same numbers."""
    (repository / "new.py").write_text("", encoding="utf-8")
    assert provenance.git_commit().endswith("+dirty")


def test_a_staged_copy_tells_what_its_checkout_told(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "code.py").write_text("x = 2\n", encoding="utf-8")
    told = provenance.git_commit(), provenance.dirty_diff()
    copy = tmp_path / "copy"
    shutil.copytree(repository, copy, ignore=shutil.ignore_patterns(".git"))
    provenance.write_provenance(copy)
    forget()
    monkeypatch.setattr(provenance, "REPOSITORY", copy)
    assert (provenance.git_commit(), provenance.dirty_diff()) == told


def test_outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget()
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path)
    assert provenance.git_commit() == "unknown"
    assert provenance.dirty_diff() == ""
    forget()
