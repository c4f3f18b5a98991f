"""The pusht_noise layout: two parts, relative actions, velocities, shapes and videos."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.wm.data import samples
from tests.wm.data.damage import Fault, cut, edit, poisoned, remove, write
from tests.wm.data.layouts import EPISODES, STEPS, frames_of, open_layout, write_layout
from tests.wm.data.samples import user_error
from wm.data.sources.pusht_noise import PushTNoiseSource
from wm.data.writers.writer import save_video
from wm.training.reporter import ListReporter
from wm.training_run import RunInputs

NUM_VAL = 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_layout("pusht_noise", tmp_path / "pusht")
    return tmp_path / "pusht"


def test_val_comes_last_and_a_part_can_be_read_alone(folder: Path) -> None:
    both, train, val = (open_layout("pusht_noise", each) for each in (folder, folder / "train", folder / "val"))
    assert isinstance(both, PushTNoiseSource)
    assert (len(both), len(train), len(val), both.num_val) == (EPISODES, EPISODES - NUM_VAL, NUM_VAL, NUM_VAL)
    for index, (part, own) in enumerate([(train, 0), (train, 1), (train, 2), (val, 0)]):
        np.testing.assert_array_equal(both.episode(index).state, part.episode(own).state)
        np.testing.assert_array_equal(both.episode(index).frames([5]), part.episode(own).frames([5]))
        assert both.episode(index).tags == part.episode(own).tags == {"shape": float(index)}


def test_parts_padded_to_different_lengths(folder: Path) -> None:
    for key in ("states", "velocities", "rel_actions"):
        edit(f"val/{key}", lambda values: torch.cat([values, values[:, :5] * float("nan")], 1))(folder)
    source = open_layout("pusht_noise", folder)
    assert list(source.lengths) == [STEPS] * EPISODES
    assert source.episode(3).state is not None


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_lengths_of_any_kind(folder: Path, kind: Any) -> None:
    (folder / "train" / "seq_lengths.pkl").write_bytes(pickle.dumps(kind([STEPS, 7, 3])))
    assert list(open_layout("pusht_noise", folder).lengths) == [STEPS, 7, 3, STEPS]


def test_proprio_is_the_agent(folder: Path) -> None:
    source = open_layout("pusht_noise", folder)
    episode = source.episode(0)
    assert source.proprio_names == ("agent_x", "agent_y", "agent_vx", "agent_vy")
    assert episode.state is not None
    np.testing.assert_array_equal(episode.proprio, episode.state[:, [0, 1, 5, 6]])


@pytest.mark.parametrize("how", ["switched off", "absent"])
def test_without_velocities(folder: Path, how: str) -> None:
    if how == "absent":
        for part in ("train", "val"):
            (folder / part / "velocities.pth").unlink()
    source = open_layout("pusht_noise", folder, with_velocity=how == "absent")
    episode = source.episode(3)
    assert source.state_names == ("agent_x", "agent_y", "block_x", "block_y", "angle")
    assert source.proprio_names == ("agent_x", "agent_y")
    assert episode.state is not None
    assert episode.state.shape == (STEPS, 5)
    np.testing.assert_array_equal(episode.proprio, episode.state[:, :2])


def test_absolute_actions_become_relative(folder: Path) -> None:
    relative = open_layout("pusht_noise", folder)
    for part in ("train", "val"):
        (folder / part / "rel_actions.pth").unlink()
    found = open_layout("pusht_noise", folder)
    for index in range(EPISODES):
        expected = relative.episode(index).actions
        np.testing.assert_allclose(found.episode(index).actions, expected, atol=1e-6)


def test_without_shapes_every_block_is_a_t(folder: Path) -> None:
    (folder / "train" / "shapes.pkl").unlink()
    source = open_layout("pusht_noise", folder)
    assert [source.episode(i).tags["shape"] for i in range(EPISODES)] == [0, 0, 0, 3]


VIDEO = "train/obses/episode_000.mp4"
FAULTS: dict[str, Fault] = {
    "no lengths": remove("train/seq_lengths.pkl"),
    "no video": remove("train/obses/episode_002.mp4"),
    "half a video": cut(VIDEO, 0.5),
    "most of a video": cut(VIDEO, 0.97),
    "an empty video": cut(VIDEO, 0.0),
    "no video at all": write(VIDEO, b"not a video" * 100),
    "nan state": edit("val/states", poisoned(0, float("nan"))),
    "nan velocity": edit("train/velocities", poisoned(2, float("nan"))),
    "nan action": edit("train/rel_actions", poisoned(2, float("nan"))),
    "seven state entries": edit("train/states", lambda s: torch.cat([s, s[..., :2]], -1)),
    "velocities of fewer episodes": edit("train/velocities", lambda v: v[:2]),
    "actions of fewer steps": edit("train/rel_actions", lambda a: a[:, 1:]),
    "a length too long": write("train/seq_lengths.pkl", pickle.dumps([STEPS, STEPS, STEPS + 1])),
    "fewer lengths": write("train/seq_lengths.pkl", pickle.dumps([STEPS])),
    "lengths in words": write("train/seq_lengths.pkl", pickle.dumps(["ten", "ten", "ten"])),
    "one number": write("train/seq_lengths.pkl", pickle.dumps(STEPS)),
    "a pickle that would run": write("train/seq_lengths.pkl", b"cos\nsystem\n(S'true'\ntR."),
    "an unknown shape": write("train/shapes.pkl", pickle.dumps(["T", "tee", "T"])),
    "fewer shapes": write("train/shapes.pkl", pickle.dumps(["T"])),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_bad_folder_gets_one_line_naming_the_file(folder: Path, fault: str) -> None:
    file = FAULTS[fault](folder)
    message = user_error(lambda: open_layout("pusht_noise", folder).episode(0).frames([STEPS - 1]))
    assert str(file.parent) in message
    assert file.name in message


def test_a_video_of_fewer_frames_than_steps(folder: Path) -> None:
    save_video(folder / VIDEO, frames_of(np.random.default_rng(0), STEPS - 1), 10)
    message = user_error(lambda: open_layout("pusht_noise", folder).episode(0).frames([0]))
    assert f"{STEPS - 1} frames for {STEPS} states" in message
    assert str(folder / VIDEO) in message


def test_folders_of_halves(folder: Path) -> None:
    (folder / "train" / "velocities.pth").unlink()
    assert "in one of train/ and val/ only" in user_error(lambda: open_layout("pusht_noise", folder))
    (folder / "val").rename(folder / "other")
    message = user_error(lambda: open_layout("pusht_noise", folder))
    assert "val/ is missing" in message
    assert str(folder / "train") in message
    for name in ("rel_actions", "abs_actions"):
        (folder / "train" / f"{name}.pth").unlink()
    assert "neither rel_actions.pth nor" in user_error(lambda: open_layout("pusht_noise", folder / "train"))


def test_it_trains(folder: Path, tmp_path: Path) -> None:
    """Frames from videos, tokens in the worker; what is held out is val."""
    source = {
        "data__sources__wall__path": str(folder),
        "data__sources__wall__layout": "pusht_noise",
    }  # the samples' name
    settings = {"data__held_out_last": NUM_VAL, "data__clip__frameskip": 4, "plan__world__kind": "pusht"}
    config = samples.config(**source, **settings, evaluate__horizons=[1, 2])
    run = RunInputs(config, tmp_path / "root", samples.encoder())
    assert run.dataset.held_out_episodes() == [("wall", EPISODES - NUM_VAL)]
    batch = next(run.local_batches(0))
    assert (batch.obs.is_pixels, batch.actions.shape[2], bool(batch.has_actions.all())) == (False, 8, True)
    assert batch.obs.proprio is not None
    assert batch.obs.proprio.shape[2] == 4
    reporter = ListReporter()
    samples.train(run, reporter)
    assert [step for step, _, _ in reporter.reports][-1] == run.total_steps
    metrics = {key: value for _, found, _ in reporter.reports for key, value in found.items()}
    assert all(np.isfinite(value) for key, value in metrics.items() if key.startswith(("train/", "val/copy_ratio")))
    assert any(key.startswith("val/copy_ratio") for key in metrics)
