"""The folder of a job holds what git sees, where it came from, and the files that were named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments import provenance
from ray_jobs import staging
from tests.checkouts import checkout, forget
from wm.config.errors import UserError


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    root = checkout(tmp_path / "repository", monkeypatch)
    monkeypatch.setattr(staging, "REPOSITORY", root)
    yield root
    forget()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "job"
    path.mkdir()
    return path


def staged(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


PROVENANCE = {".provenance/commit", ".provenance/dirty.diff"}


def test_what_git_sees_and_nothing_else(repository: Path, folder: Path) -> None:
    for ignored in ("outputs.log", "data/episode.pth", ".venv/bin/python"):
        (repository / ignored).parent.mkdir(parents=True, exist_ok=True)
        (repository / ignored).write_text("x", encoding="utf-8")
    (repository / "deep").mkdir()
    (repository / "deep" / "new.py").write_text("y = 1\n", encoding="utf-8")
    staging.stage(folder, {})
    # tracked.log: git sees it, though a pattern names it.
    assert staged(folder) == {"code.py", "tracked.log", "deep/new.py", *PROVENANCE}
    assert (folder / ".provenance" / "commit").read_text() == provenance.git_commit()
    assert "# untracked: deep/new.py" in (folder / ".provenance" / "dirty.diff").read_text()


def test_a_deleted_file_and_links_to_folders(repository: Path, folder: Path, tmp_path: Path) -> None:
    (repository / "code.py").unlink()
    (tmp_path / "elsewhere").mkdir()
    (repository / "link").symlink_to(tmp_path / "elsewhere")
    staging.stage(folder, {})
    assert staged(folder) == {"tracked.log", *PROVENANCE}


def test_given_files(repository: Path, folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("question: ?\n", encoding="utf-8")
    staging.stage(folder, {"submitted/spec/mine.yaml": mine})
    assert (folder / "submitted" / "spec" / "mine.yaml").read_text() == "question: ?\n"


def test_too_large_names_the_largest(repository: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "MAX_BYTES", 1000)
    (repository / "weights.bin").write_bytes(b"x" * 5000)
    with pytest.raises(UserError, match=r"the largest: weights\.bin.*gitignore"):
        staging.stage(folder, {})
    assert not staged(folder)


def test_no_checkout(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path / "no")
    monkeypatch.setattr(staging, "REPOSITORY", tmp_path / "no")
    with pytest.raises(UserError, match="not a git checkout"):
        staging.stage(folder, {})


def test_paths_in_the_job(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside, ignored = tmp_path / "mine.yaml", repository / "data" / "mine.yaml"
    ignored.parent.mkdir()
    for file in (outside, ignored, repository / "near.yaml"):
        file.write_text("", encoding="utf-8")
    monkeypatch.chdir(repository)
    assert staging.path_in_job("wall_planning", "spec") == ("wall_planning", {})
    assert staging.path_in_job("near.yaml", "spec") == ("near.yaml", {})
    for file in (outside, ignored):
        assert staging.path_in_job(str(file), "spec") == (
            "submitted/spec/mine.yaml",
            {"submitted/spec/mine.yaml": file},
        )


def test_this_repository_is_small(folder: Path) -> None:
    """What a job of ours uploads: code, and no data, outputs or environments."""
    staging.stage(folder, {})
    found = staged(folder)
    assert {"ray_jobs/experiment.py", "experiments/specs/wall_planning.yaml", *PROVENANCE} <= found
    assert not [name for name in found if name.startswith((".venv/", ".git/", "wm_home/"))]
    assert sum((folder / name).stat().st_size for name in found) < 10 * 2**20
