"""Tokens kept on another filesystem, too: encoded once, copied whole, and never trusted for their name alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.wm.data.samples import STEPS, config, encoder, user_error, wall_root, wall_source
from wm.build import build_dataset
from wm.data.token_files import TokenFiles
from wm.data.token_mirror import TokenMirror


class Forbidden:
    dim, grid, fingerprint = encoder().dim, encoder().grid, encoder().fingerprint

    def encode(self, frames: Any) -> Any:
        raise AssertionError("this episode was encoded already")


def store_at(root: Path, url: str) -> TokenFiles:
    return TokenFiles(root, wall_source(), encoder().fingerprint, kept_as="int8", mirror=TokenMirror(url))


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{tmp_path}/there" if request.param == "memory" else f"file://{tmp_path}/there"


def test_what_one_encoded_another_copies(tmp_path: Path, url: str) -> None:
    first, second = store_at(tmp_path / "first", url), store_at(tmp_path / "second", url)
    assert list(first.write(encoder(), [0, 3])) == [0, 3]
    assert list(second.write(Forbidden(), [3, 0])) == [3, 0]
    for episode in (0, 3):
        assert second.path(episode).read_bytes() == first.path(episode).read_bytes()
    told = [json.loads((store.folder / "about.json").read_text(encoding="utf-8")) for store in (first, second)]
    assert told[0]["relative_error"]["mean"] == pytest.approx(told[1]["relative_error"]["mean"], rel=1e-3)
    with pytest.raises(AssertionError, match="encoded already"):
        list(second.write(Forbidden(), [1]))


@pytest.mark.parametrize("damage", ["cut", "changed", "another", "another episode's"])
def test_what_is_not_whole_or_not_ours_is_encoded_again(tmp_path: Path, damage: str) -> None:
    there = tmp_path / "there"
    first, second = store_at(tmp_path / "first", f"file://{there}"), store_at(tmp_path / "second", f"file://{there}")
    list(first.write(encoder(), [0]))
    copy = there / first.folder.name / first.path(0).name
    if damage == "cut":
        copy.write_bytes(copy.read_bytes()[:500])
    elif damage == "changed":
        copy.write_bytes(copy.read_bytes()[:-200] + bytes(200))
    elif damage == "another episode's":
        list(first.write(encoder(), [1]))
        copy.write_bytes(first.path(1).read_bytes())
        (copy.parent / first.path(1).name).unlink()
    else:
        other = TokenFiles(tmp_path / "other", wall_source(), "0" * 16, kept_as="int8")
        other.save(0, encoder().encode(_frames(other))[0])
        copy.write_bytes(other.path(0).read_bytes())
    list(second.write(encoder(), [0]))
    np.testing.assert_array_equal(second.read(0, np.arange(STEPS)), first.read(0, np.arange(STEPS)))
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]
    assert store_at(tmp_path / "third", f"file://{there}")._fetched(0)  # mended there, too


def _frames(store: TokenFiles) -> Any:
    import torch

    return torch.from_numpy(store.source.episode(0).frames(np.arange(STEPS)))[None]


def test_a_mirror_that_fails_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    store = store_at(tmp_path / "here", f"file://{tmp_path}/file")
    assert f"storage.tokens=file://{tmp_path}/file: " in user_error(lambda: list(store.write(encoder(), [0])))


def test_storage_tokens_is_the_mirror(tmp_path: Path) -> None:
    fingerprint = encoder().fingerprint
    asked = config(data__tokens="store", storage__tokens=f"file://{tmp_path}")
    assert build_dataset(asked, wall_root(), fingerprint).stores["wall"].mirror is not None
    assert build_dataset(config(data__tokens="store"), wall_root(), fingerprint).stores["wall"].mirror is None
    wrong = config(data__tokens="store", storage__tokens="nowhere://x")
    assert "storage.tokens=nowhere://x: " in user_error(lambda: build_dataset(wrong, wall_root(), fingerprint))
