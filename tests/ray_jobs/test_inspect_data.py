"""What a person is told about a data set before training on it."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console

from ray_jobs.inspect_data import inspect_folder, tokenize_folder
from ray_jobs.runtime.progress import Narrator
from tests.wm.data.samples import EPISODES, SIZE, STEPS, user_error, wall_copy, wall_folder, wall_source


def test_a_good_data_set() -> None:
    lines = inspect_folder(wall_folder(), None)
    text = "\n".join(lines)
    for part in (
        "wall_single layout",
        wall_source().fingerprint,
        f"episodes {EPISODES}, {STEPS} steps each; frames {SIZE} x {SIZE} x 3 uint8",
        "state: x ",
        "action: dx ",
        "layouts 12",
    ):
        assert part in text
    assert lines[-1] == "nothing suspicious"
    states = wall_source().states[..., 0]
    assert f"[{states.min():.2f}, {states.max():.2f}]" in text
    assert f"x {states.mean():.3f} +- {states.std(ddof=1):.3f}" in text


def change(folder: Path, key: str, values: torch.Tensor) -> None:
    torch.save(values, folder / f"{key}.pth")


def test_suspicious_data(tmp_path: Path) -> None:
    folder = wall_copy(tmp_path / "wall")
    states = torch.from_numpy(wall_source().states.copy())
    actions = torch.from_numpy(wall_source().actions.copy())
    states[3] = states[2]
    actions[5] = 0.25
    actions[6] *= 50  # another simulator's units
    change(folder, "states", states)
    change(folder, "actions", actions)
    frames = torch.zeros(STEPS, 3, SIZE * 2, SIZE, dtype=torch.uint8)
    change(folder, "obses/episode_007", frames)
    lines = [line for line in inspect_folder(folder, None) if line.startswith("suspicious")]
    assert len(lines) == 4
    for part in ("frames of 2 sizes", "another simulator", "1 episodes have one constant action", "1 episodes repeat"):
        assert any(part in line for line in lines)


def test_a_folder_that_is_not_one_is_refused(tmp_path: Path) -> None:
    assert str(tmp_path) in user_error(lambda: inspect_folder(tmp_path, None))
    folder = wall_copy(tmp_path / "wall")
    (folder / "obses" / "episode_011.pth").write_bytes(b"damaged")
    assert "episode_011.pth" in user_error(lambda: inspect_folder(folder, None))


def test_contact_sheet_is_a_picture_of_the_frames(tmp_path: Path) -> None:
    sheet = tmp_path / "sheets" / "sheet.png"
    assert inspect_folder(wall_folder(), sheet)[-1] == f"contact sheet: {sheet}"
    assert sheet.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    picture = cv2.imread(str(sheet))[..., ::-1]
    cell = SIZE + 2
    assert picture.shape == (8 * cell, 3 * cell, 3)
    for row, column, frame in ((0, 0, 0), (2, 1, STEPS // 2), (7, 2, STEPS - 1)):
        found = picture[row * cell + 1 : (row + 1) * cell - 1, column * cell + 1 : (column + 1) * cell - 1]
        np.testing.assert_array_equal(found, wall_source().episode(row).frames([frame])[0])


def test_no_contact_sheet_of_frames_of_several_sizes(tmp_path: Path) -> None:
    folder = wall_copy(tmp_path / "wall")
    change(folder, "obses/episode_001", torch.zeros(STEPS, 3, SIZE * 2, SIZE * 2, dtype=torch.uint8))
    assert "several sizes" in inspect_folder(folder, tmp_path / "sheet.png")[-1]
    assert not (tmp_path / "sheet.png").exists()


def test_tokenizing_fills_the_store_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WM_HOME", str(tmp_path))
    small = [
        f"encoder.{key}={value}"
        for key, value in {"image_size": SIZE, "hidden_size": 8, "depth": 1, "heads": 2}.items()
    ]
    said = []
    for _ in range(2):
        out = io.StringIO()
        tokenize_folder(wall_folder(), small, Narrator(Console(file=out, width=200)))
        said.append(out.getvalue())
    assert f"{EPISODES} episodes encoded" in said[0]
    assert "0 episodes encoded" in said[1]
    (store,) = (tmp_path / "tokens").iterdir()
    assert len(list(store.glob("episode_*.npy"))) == EPISODES
    assert np.load(store / "episode_000000.npy").shape == (STEPS, 4, 8)
