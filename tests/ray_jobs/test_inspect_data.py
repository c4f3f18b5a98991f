"""What a person is told about a data set before training on it."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.numpy import load_file
from typer.testing import CliRunner

from ray_jobs.cli import app
from ray_jobs.convert_data import convert_data
from ray_jobs.inspect_data import inspect_data, tokenize_folder
from ray_jobs.runtime.progress import Narrator
from tests.wm.data.layouts import write_franka_motions, write_franka_steps, write_layout
from tests.wm.data.samples import EPISODES, SIZE, STEPS, user_error, wall_copy, wall_folder, wall_source

SMALL = [
    f"encoder.{key}={value}" for key, value in {"image_size": SIZE, "hidden_size": 8, "depth": 1, "heads": 2}.items()
]


def look(path: Path, sheet: Path | None = None, **given: Any) -> list[str]:
    return inspect_data(path, sheet, **given)[0]


def test_a_good_data_set() -> None:
    lines = look(wall_folder())
    text = "\n".join(lines)
    for part in (
        "dino_wm wall_single, fingerprint",
        wall_source().fingerprint,
        f"episodes {EPISODES}, {STEPS} steps each, {EPISODES * STEPS} in all, 10 a second; frames {SIZE} x {SIZE} x 3 uint8",
        "state (2): x ",
        "action (2): dx ",
        "wall_x: 23 to 44, 10 different",
    ):
        assert part in text, part
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
    actions[5] = 0.25
    actions[6] *= 50  # another simulator's units
    for key, values in (("states", states), ("actions", actions)):
        values[3] = values[2]
        change(folder, key, values)
    shutil.copy(folder / "obses/episode_002.pth", folder / "obses/episode_003.pth")
    change(folder, "obses/episode_007", torch.full((STEPS, 3, SIZE * 2, SIZE), 9, dtype=torch.uint8))
    change(folder, "obses/episode_008", torch.zeros(STEPS, 3, SIZE, SIZE, dtype=torch.uint8))
    lines, report = inspect_data(folder, None)
    assert not report.errors
    odd = [line for line in lines if line.startswith("suspicious")]
    for part in (
        "wall/005: one constant action",
        "another simulator",
        "wall/003: repeats wall/002",
        "wall/007: nothing moves",
        "wall/008: frame 0 is black",
        "1 episodes have frames of another size",
    ):
        assert sum(part in line for line in odd) == 1, part


def test_another_rule_alone_is_suspicious(tmp_path: Path) -> None:
    folder = wall_copy(tmp_path / "wall")
    change(folder, "actions", torch.from_numpy(wall_source().actions * 50))
    assert [line for line in look(folder) if "suspicious" in line] == [
        "suspicious: all: in one episode 100% of steps are not state + 2 action: another simulator's rule?"
    ]
    assert CliRunner().invoke(app, ["data", "validate", str(folder), "--strict"]).exit_code == 1


@pytest.mark.parametrize("make", [write_franka_steps, write_franka_motions])
def test_franka_is_seen_and_its_colours_asked_for(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "cubes")
    assert "colors: say rgb or bgr" in user_error(lambda: look(tmp_path / "cubes"))
    assert "dino_wm franka" in look(tmp_path / "cubes", overrides=["colors=bgr"])[0]


def test_deformable_is_no_franka(tmp_path: Path) -> None:
    write_layout("deformable", tmp_path / "rope")
    assert "dino_wm deformable" in look(tmp_path / "rope")[0]


@pytest.mark.parametrize("told", [[], ["kind=lerobot"]])
def test_a_path_that_leads_nowhere_is_one_line(tmp_path: Path, told: list[str]) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert user_error(lambda: look(loop, overrides=told)) == f"{loop}: a link that leads nowhere"
    assert "File name too long" in user_error(lambda: look(tmp_path / ("x" * 300), overrides=told))
    for source, out in ((loop, tmp_path / "out"), (wall_folder(), loop)):
        message = user_error(lambda: convert_data(source, out, "lerobot", overrides=told))  # noqa: B023
        assert message == f"{loop}: a link that leads nowhere"
    long = tmp_path / ("x" * 300)
    assert "File name too long" in user_error(lambda: convert_data(wall_folder(), long, "lerobot"))


def test_a_sheet_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for sheet in (tmp_path, tmp_path / "file" / "sheet.png"):
        assert f"--sheet: {sheet} cannot be written" in user_error(lambda: look(wall_folder(), sheet))  # noqa: B023
    long = tmp_path / ("x" * 300)  # seen when it is written
    assert "File name too long" in user_error(lambda: look(wall_folder(), long))


def test_every_bad_episode_is_an_error(tmp_path: Path) -> None:
    folder = wall_copy(tmp_path / "wall")
    (folder / "obses" / "episode_011.pth").write_bytes(b"damaged")
    change(folder, "obses/episode_004", torch.ones(STEPS - 1, 3, SIZE, SIZE, dtype=torch.uint8))
    lines, report = inspect_data(folder, tmp_path / "sheet.png")
    assert [finding.episode for finding in report.errors] == ["wall/004", "wall/011"]
    assert any("episode_011.pth: unreadable" in line for line in lines)
    assert any(f"{STEPS - 1} frames for {STEPS} states" in line for line in lines)
    result = CliRunner().invoke(app, ["data", "validate", str(folder)])
    assert result.exit_code == 1
    assert "2 errors, 0 suspicious" in result.output


def test_a_frame_in_the_middle_is_seen_by_validation_alone(tmp_path: Path) -> None:
    folder = wall_copy(tmp_path / "wall")
    frames = torch.from_numpy(wall_source().episode(1).frames(range(STEPS))).permute(0, 3, 1, 2).clone()
    frames[3] = 0
    change(folder, "obses/episode_001", frames)
    assert look(folder)[-1] == "nothing suspicious"
    assert "suspicious: wall/001: frame 3 is black" in look(folder, every_frame=True)
    run = CliRunner()
    assert run.invoke(app, ["data", "validate", str(folder)]).exit_code == 0
    assert run.invoke(app, ["data", "validate", str(folder), "--strict"]).exit_code == 1


def test_features_have_no_frames(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float16)
    np.savez(tmp_path / "features.npz", features=features)
    lines = look(tmp_path, tmp_path / "sheet.png")
    assert "features (P, D) = (1, 4)" in lines[1]
    assert lines[-1] == "nothing suspicious"
    assert not (tmp_path / "sheet.png").exists()


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    assert "no data set that can be read (found nothing); known: lerobot" in user_error(lambda: look(tmp_path))
    assert "no such data folder" in user_error(lambda: look(tmp_path / "none"))
    assert "labels" in user_error(lambda: look(wall_folder(), overrides=["label=none"]))
    assert "action: none" in look(wall_folder(), overrides=["labels=none"])


def test_contact_sheet_is_a_picture_of_the_frames(tmp_path: Path) -> None:
    sheet = tmp_path / "sheets" / "sheet.png"
    assert look(wall_folder(), sheet)[-1] == f"contact sheet: {sheet}"
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
    assert "several sizes" in look(folder, tmp_path / "sheet.png")[-1]
    assert not (tmp_path / "sheet.png").exists()


def test_tokenizing_sees_the_kind_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WM_HOME", str(tmp_path))
    write_franka_motions(tmp_path / "cubes")
    out = io.StringIO()
    told = [*SMALL, "data.val_fraction=0.5", "data.sources.data.colors=bgr"]
    tokenize_folder(tmp_path / "cubes", told, Narrator(Console(file=out, width=200)))
    assert "2 episodes encoded" in out.getvalue()


def test_tokenizing_fills_the_store_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WM_HOME", str(tmp_path))
    said = []
    for _ in range(2):
        out = io.StringIO()
        tokenize_folder(wall_folder(), SMALL, Narrator(Console(file=out, width=200)))
        said.append(out.getvalue())
    assert f"{EPISODES} episodes encoded" in said[0]
    assert "0 episodes encoded" in said[1]
    (store,) = (tmp_path / "tokens").iterdir()
    assert len(list(store.glob("episode_*.safetensors"))) == EPISODES
    assert load_file(store / "episode_000000.safetensors")["tokens"].shape == (STEPS, 4, 8)
