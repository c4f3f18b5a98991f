"""There and back: every number of every layout, also what is one an episode; pictures that are no videos; older folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ray_jobs.convert_data import convert_data
from ray_jobs.inspect_data import inspect_data
from tests.wm.data.layouts import write_franka_motions, write_layout, write_robomimic
from tests.wm.data.sources.recorded import lerobot_folder, robomimic_file
from tests.wm.data.sources.test_lerobot_pictures import LENGTHS, action, by_hand, recorded
from wm.config.catalogue import config_of, source_kinds
from wm.contracts import Source
from wm.data.dataset import open_source
from wm.data.sources.detect import detect, settings_of


def opened(folder: Path, **config: Any) -> Source:
    settings = settings_of(folder, config)
    kind = settings.pop("kind")
    return open_source(config_of(source_kinds(), kind, settings, "source", "kind"), folder.stem, folder)


def convert(source: Path, out: Path, to: str, **given: Any) -> tuple[str, ...]:
    return convert_data(source, out, to, **{"actors": 0, **given}).notes


def same(first: Source, second: Source, names: bool = True) -> None:
    """Vectors bit for bit, and tags."""
    assert list(first.lengths) == list(second.lengths)
    for index in range(len(first)):
        one, two = first.episode(index), second.episode(index)
        assert one.fps == two.fps
        assert dict(one.tags) == {name: value for name, value in two.tags.items() if name in one.tags}
        for key in ("actions", "proprio", "state"):
            np.testing.assert_array_equal(getattr(one, key), getattr(two, key))
    if names:
        assert (first.action_names, first.state_names) == (second.action_names, second.state_names)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["wall_single", "pusht_noise", "deformable", "point_maze"])
def test_dino_wm_to_lerobot_and_back_in_its_own_layout(tmp_path: Path, layout: str) -> None:
    """Walls and doors, shapes of blocks and inverse masses, too."""
    write_layout(layout, tmp_path / "src")
    if layout == "deformable":
        states = torch.load(tmp_path / "src/states.pth", weights_only=True)
        states[..., 3] = 0.25
        torch.save(states, tmp_path / "src/states.pth")
    notes = convert(tmp_path / "src", tmp_path / "lerobot", "lerobot")
    assert notes[0] == "lerobot has no place for: exact frames (its videos are lossy)"
    convert(tmp_path / "lerobot", tmp_path / "back", "dino_wm", layout=layout)
    first, there, back = (opened(tmp_path / name) for name in ("src", "lerobot", "back"))
    same(first, there)
    same(first, back)
    assert bool(first.episode(1).tags) == (layout in ("wall_single", "pusht_noise"))


def test_subsets_numbers_and_success_survive(tmp_path: Path) -> None:
    robomimic_file(tmp_path / "src/demo.hdf5")
    notes = convert(tmp_path / "src", tmp_path / "out", "robomimic", overrides=["camera=agentview"])
    assert "mask" not in notes[0]
    assert "demo" not in notes[0]
    first, second = opened(tmp_path / "src"), opened(tmp_path / "out")
    same(first, second)
    assert second.demos == ["demo_0", "demo_1", "demo_2", "demo_10"]  # type: ignore[attr-defined]
    assert opened(tmp_path / "out", filter="valid").demos == ["demo_0"]  # type: ignore[attr-defined]
    notes = convert(tmp_path / "src", tmp_path / "part", "robomimic", overrides=["camera=agentview", "filter=train"])
    assert opened(tmp_path / "part").demos == ["demo_1", "demo_2", "demo_10"]  # type: ignore[attr-defined]
    notes = convert(tmp_path / "src", tmp_path / "dino", "dino_wm", overrides=["camera=agentview"])
    assert "mask_train, mask_valid" in notes[0]


def test_what_lerobot_says_of_every_frame_is_named_as_lost(tmp_path: Path) -> None:
    notes = convert(lerobot_folder("v2.1"), tmp_path / "out", "dino_wm", overrides=["camera=main"])
    assert "next.success frame by frame" in notes[0]


def test_pictures_that_are_no_videos_are_converted(tmp_path: Path) -> None:
    source = by_hand(tmp_path / "src")
    notes = convert(source, tmp_path / "h5", "robomimic", cameras=["main", "wrist"], overrides=["state_keys=[]"])
    assert "images" not in notes[0]
    for camera in ("main", "wrist"):
        found = opened(tmp_path / "h5", camera=camera)
        for number, length in enumerate(LENGTHS):
            np.testing.assert_array_equal(found.episode(number).frames(np.arange(length)), recorded(number, camera))
            np.testing.assert_array_equal(found.episode(number).actions, action(number))
    lines, report = inspect_data(source, tmp_path / "sheet.png", ["camera=main"], every_frame=True)
    assert not report.errors
    assert "not read: observation.images.wrist" in lines
    assert (tmp_path / "sheet.png").is_file()


@pytest.mark.slow
def test_pictures_that_are_no_videos_become_videos(tmp_path: Path) -> None:
    source = by_hand(tmp_path / "src")
    convert(source, tmp_path / "out", "lerobot", cameras=["main", "wrist"], size=84)
    found = opened(tmp_path / "out", camera="wrist")
    assert list(found.lengths) == list(LENGTHS)
    assert found.episode(2).frames([39]).shape == (1, 84, 84, 3)
    np.testing.assert_array_equal(found.episode(1).actions, action(1))


def test_older_folders_are_told_by_their_files_or_by_a_person(tmp_path: Path) -> None:
    arrays = write_robomimic(tmp_path / "old", older=True)
    assert detect(tmp_path / "old") == {"kind": "dino_wm", "layout": "robomimic", "path": str(tmp_path / "old")}
    convert(tmp_path / "old", tmp_path / "out", "dino_wm")
    same(opened(tmp_path / "old"), opened(tmp_path / "out"))
    convert(tmp_path / "old", tmp_path / "still", "dino_wm", overrides=["with_velocity=false"])
    np.testing.assert_array_equal(opened(tmp_path / "still").episode(0).state, arrays["states"][0])
    episodes = write_franka_motions(tmp_path / "franka")
    told = ["kind=dino_wm", "layout=franka", "colors=rgb"]
    convert(tmp_path / "franka", tmp_path / "motions", "dino_wm", overrides=told)
    found = opened(tmp_path / "motions")
    same(opened(tmp_path / "franka", kind="dino_wm", layout="franka", colors="rgb"), found)
    np.testing.assert_array_equal(found.episode(1).actions, episodes[1]["actions"].astype(np.float32))
    lines, _ = inspect_data(tmp_path / "franka", None, told)
    assert "dino_wm franka" in lines[0]
