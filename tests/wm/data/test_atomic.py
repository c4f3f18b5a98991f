"""Whole or absent, whatever happens meanwhile."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from wm.data.atomic import atomic_file, atomic_folder, write_json


def write_half(partial: Path) -> None:
    (partial if not partial.is_dir() else partial / "inside").write_text("half")


@pytest.mark.parametrize("how", [atomic_file, atomic_folder])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), ValueError()])
@pytest.mark.parametrize("existed", [False, True])
def test_an_exception_leaves_what_was_there(
    tmp_path: Path, how: Callable[[Path], AbstractContextManager[Path]], error: BaseException, existed: bool
) -> None:
    path = tmp_path / "deeper" / "target"
    if existed:
        with how(path) as partial:
            write_half(partial)
    before = sorted(path.parent.rglob("*")) if existed else []

    def write() -> None:
        with how(path) as partial:
            write_half(partial)
            raise error

    with pytest.raises(type(error)):
        write()
    assert sorted(path.parent.rglob("*")) == before
    assert path.exists() == existed


def test_a_failed_replace_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"), atomic_file(tmp_path / "a") as partial:
        write_half(partial)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [atomic_file, atomic_folder])
def test_what_cannot_be_written_is_named(tmp_path: Path, how: Callable[[Path], AbstractContextManager[Path]]) -> None:
    """A write that finds the disk full does not know its file's name."""
    with pytest.raises(OSError, match="No space") as raised, how(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert raised.value.filename == str(tmp_path / "a")
    with pytest.raises(OSError, match="No space") as raised, how(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device", "/elsewhere")
    assert raised.value.filename == "/elsewhere"


def test_nothing_is_there_before_the_end(tmp_path: Path) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    with atomic_file(file) as partial:
        partial.write_text("new")
        assert not file.exists()
        assert partial.name.startswith(".")  # no glob for whole files finds it
    assert file.read_text() == "new"
    with atomic_folder(folder) as partial:
        (partial / "a").write_text("1")
        assert not folder.exists()
    with atomic_folder(folder) as partial:
        (partial / "b").write_text("2")
        assert (folder / "a").exists()
    assert [path.name for path in folder.iterdir()] == ["b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_json_refuses_what_is_not_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": [1, 0.1]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [1, 0.1]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [1, 0.1]}
