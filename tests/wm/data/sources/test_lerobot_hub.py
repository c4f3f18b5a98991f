"""LeRobot data sets from the hub: only what is needed, once, and without it the ways out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.wm.data.samples import user_error
from tests.wm.data.sources.recorded import lerobot_folder, lerobot_source
from wm.config.data import LerobotSourceConfig
from wm.data.sources import lerobot_hub
from wm.data.sources.lerobot import LerobotSource


def hub(remote: Path, asked: list[list[str]]) -> Hub:
    """snapshot_download over a folder."""
    from fnmatch import fnmatch

    def download(
        repository: str, *, repo_type: str, revision: str | None, local_dir: Path, allow_patterns: list[str]
    ) -> str:
        assert (repository, repo_type, revision) == ("lab/arm", "dataset", "v1")
        asked.append(allow_patterns)
        for file in remote.rglob("*"):
            name = str(file.relative_to(remote))
            if file.is_file() and any(fnmatch(name, pattern) for pattern in allow_patterns):
                (local_dir / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, local_dir / name)
        return str(local_dir)

    return download  # fmt: skip


def hub_source(root: Path, **config: Any) -> LerobotSource:
    given = {"path": "lab/arm", "revision": "v1", "camera": "wrist", **config}
    return LerobotSource(LerobotSourceConfig(**given), "arm", root / "lab" / "arm")


def test_only_what_is_needed_comes_from_the_hub_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(lerobot_hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(lerobot_hub, "snapshot_download", hub(lerobot_folder("v3.0"), asked))
    found = hub_source(tmp_path, episodes=2)
    np.testing.assert_array_equal(
        found.episode(1).frames([9]), lerobot_source("v3.0", camera="wrist").episode(1).frames([9])
    )
    wrist = "videos/observation.images.wrist/chunk-000/file-000.mp4"
    assert asked == [["meta/*"], ["data/chunk-000/file-000.parquet", wrist]]
    hub_source(tmp_path, episodes=2)
    assert len(asked) == 2
    hub_source(tmp_path)  # the other episodes
    assert asked[2] == ["data/chunk-000/file-001.parquet", wrist.replace("file-000", "file-001")]


def test_without_the_hub_one_line_says_the_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*given: Any, **more: Any) -> str:
        raise ConnectionError("no route to host\nand more")

    def silent(*given: Any, local_dir: Path, **more: Any) -> str:  # what it does when a local folder exists already
        return str(local_dir)

    monkeypatch.setattr(lerobot_hub, "HF_HUB_OFFLINE", False)
    for fake in (down, silent):
        monkeypatch.setattr(lerobot_hub, "snapshot_download", fake)
        message = user_error(lambda: hub_source(tmp_path))
        for part in (
            str(tmp_path / "lab" / "arm"),
            "meta/info.json",
            "lab/arm on the Hugging Face hub",
            "run once online",
        ):
            assert part in message
    monkeypatch.setattr(lerobot_hub, "snapshot_download", down)
    assert "no route to host" in user_error(lambda: hub_source(tmp_path))
    monkeypatch.setattr(lerobot_hub, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in user_error(lambda: hub_source(tmp_path))
    shutil.copytree(lerobot_folder("v3.0"), tmp_path / "lab" / "arm")
    assert len(hub_source(tmp_path)) == 4  # what lies there needs no hub
    folder = tmp_path / "a folder"
    named = LerobotSourceConfig(path=str(folder))
    assert "no LeRobot data set here" in user_error(lambda: LerobotSource(named, "arm", folder))
