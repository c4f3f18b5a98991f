"""The deformable layout: particles one after another, and a proprio that says nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.wm.data.damage import Fault, cut, edit, poisoned, remove
from tests.wm.data.layouts import EPISODES, STEPS, open_layout, write_layout
from tests.wm.data.samples import user_error
from wm.config.data import DataConfig, DinoWmSourceConfig
from wm.data.dataset import Dataset


def test_particles_come_one_after_another(tmp_path: Path) -> None:
    write_layout("deformable", tmp_path)
    states = torch.arange(EPISODES * STEPS * 3 * 4).reshape(EPISODES, STEPS, 3, 4).double()
    torch.save(states, tmp_path / "states.pth")
    source = open_layout("deformable", tmp_path)
    assert source.state_names[:5] == ("x0", "y0", "z0", "inverse_mass0", "x1")
    np.testing.assert_array_equal(source.episode(1).state, states[1].reshape(STEPS, 12))
    assert source.action_names == ("x_start", "z_start", "x_end", "z_end")


def test_proprio_is_a_zero_that_stays_zero(tmp_path: Path) -> None:
    """As the reference normalises it: mean 0, and 1e-6 for a standard deviation."""
    write_layout("deformable", tmp_path / "data" / "rope")
    config = DataConfig(sources={"rope": DinoWmSourceConfig(path="rope", layout="deformable")}, val_fraction=0.25)
    dataset = Dataset(config, tmp_path, None)
    proprio = dataset.statistics.proprio
    assert proprio is not None
    assert (proprio.mean.tolist(), proprio.std.tolist()) == ([0.0], pytest.approx([1e-6]))
    values = dataset.sources["rope"].episode(0).proprio
    assert values is not None
    assert values.shape == (STEPS, 1)
    assert not proprio.normalize(values).any()
    assert dataset.sources["rope"].proprio_names == ("none",)


def test_float_frames_are_rounded_and_clipped(tmp_path: Path) -> None:
    write_layout("deformable", tmp_path)
    frames = torch.full((STEPS, 8, 8, 3), 100.0)
    frames[0, ..., 0], frames[0, ..., 1], frames[0, ..., 2] = 99.6, 300.0, -4.0
    torch.save(frames, tmp_path / "000000" / "obses.pth")
    read = open_layout("deformable", tmp_path).episode(0).frames([0, 1])
    assert read[0, 0, 0].tolist() == [100, 255, 0]
    assert (read[1] == 100).all()


FAULTS: dict[str, Fault] = {
    "no frame file": remove("000002/obses.pth"),
    "cut frames": cut("000000/obses.pth", 0.5),
    "fewer frames": edit("000000/obses", lambda f: f[:-1].clone()),
    "nan particle": edit("states", poisoned(1, float("nan"))),
    "nan action": edit("actions", poisoned(1, float("nan"))),
    "flattened particles": edit("states", lambda s: s.flatten(2)),
    "particles of three numbers": edit("states", lambda s: s[..., :3]),
    "two actions": edit("actions", lambda a: a[..., :2]),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_bad_folder_gets_one_line_naming_the_file(tmp_path: Path, fault: str) -> None:
    write_layout("deformable", tmp_path / "rope")
    file = FAULTS[fault](tmp_path / "rope")
    message = user_error(lambda: open_layout("deformable", tmp_path / "rope").episode(0).frames([0]))
    assert str(file) in message


def test_the_folder_above_is_not_one_of_the_two(tmp_path: Path) -> None:
    for name in ("granular", "rope"):
        write_layout("deformable", tmp_path / name, episodes=2)
    message = user_error(lambda: open_layout("deformable", tmp_path))
    assert "found granular, rope" in message
