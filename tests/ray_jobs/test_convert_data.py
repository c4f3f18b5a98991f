"""Converting keeps every number, says what is lost, invents nothing, goes on after a kill, and writes over nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from ray_jobs.make_data import make_data
from tests.ray_jobs.converted import VECTORS, convert, every, opened, psnr, same_numbers
from tests.wm.data.layouts import write_franka_steps, write_layout, write_robomimic
from tests.wm.data.samples import user_error
from tests.wm.data.sources.recorded import LENGTHS, can_episodes, can_facts, can_folder, lerobot_folder, write
from wm.data.writers.robosuite_hdf5 import RobosuiteWriter


def can_of_64(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return write(folder, RobosuiteWriter(folder, can_facts(64)), can_episodes(64))


def test_robomimic_to_dino_wm_keeps_every_number(tmp_path: Path) -> None:
    can = can_of_64(tmp_path / "can")
    notes = convert(can, tmp_path / "out", "dino_wm")
    first, second = opened(can), opened(tmp_path / "out")
    assert len(set(first.lengths)) > 1
    same_numbers(first, second)
    assert first.proprio_names == second.proprio_names
    for index in range(len(first)):
        assert psnr(every(second, index), every(first, index)) > 25
    assert notes[0] == (
        "dino_wm's robomimic layout has no place for: success, exact frames (its videos are lossy); "
        "not converted: obs/robot0_eye_in_hand_image, simulator states"
    )
    rows = np.concatenate([episode.actions for episode in can_episodes(64)]).astype(np.float64)
    mean, std = (torch.load(tmp_path / "out" / f"action_{each}.pth", weights_only=True) for each in ("mean", "std"))
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std, rows.std(0, ddof=1), rtol=1e-6)
    states = torch.load(tmp_path / "out" / "states.pth", weights_only=True)
    assert states.shape == (len(LENGTHS), max(LENGTHS), 23)
    assert not states[0, LENGTHS[0] :].any()
    said = json.loads((tmp_path / "out" / "episodes.json").read_text())
    assert [each["id"] for each in said["episodes"]] == [f"can/demo_{number}" for number in range(1, 5)]
    assert not (tmp_path / "out" / ".episodes").exists()


def test_robomimic_to_robomimic_loses_nothing(tmp_path: Path) -> None:
    cameras = ["agentview", "robot0_eye_in_hand"]
    notes = convert(can_folder(), tmp_path / "out", "robomimic", cameras=cameras)
    assert "has no place for: nothing that is lost" in notes[0]
    assert "not converted" not in notes[0]
    first, second = opened(can_folder()), opened(tmp_path / "out")
    same_numbers(first, second)
    with h5py.File(can_folder() / "demo.hdf5") as before, h5py.File(tmp_path / "out" / "demo.hdf5") as after:
        names: list[str] = []
        before.visit(names.append)
        for name in names:
            one, two = before[name], after[name]
            assert {k: str(v) for k, v in one.attrs.items() if k != "env_args"} == {
                k: str(v) for k, v in two.attrs.items() if k != "env_args"
            }
            if isinstance(one, h5py.Dataset):
                np.testing.assert_array_equal(one[()], two[()])


@pytest.mark.parametrize("layout", ["point_maze", "wall_single", "deformable"])
def test_a_layout_of_exact_frames_to_itself_is_lossless(tmp_path: Path, layout: str) -> None:
    write_layout(layout, tmp_path / "src")
    if layout == "deformable":  # masses that are not 1 are kept, too
        states = torch.load(tmp_path / "src/states.pth", weights_only=True)
        states[..., 3] = 0.25
        torch.save(states, tmp_path / "src/states.pth")
    if layout == "point_maze":
        torch.save(torch.tensor([24, 20, 24, 9]), tmp_path / "src/seq_lengths.pth")
    convert(tmp_path / "src", tmp_path / "out", "dino_wm", layout=layout)
    first, second = opened(tmp_path / "src"), opened(tmp_path / "out")
    same_numbers(first, second)
    for index in range(len(first)):
        assert first.episode(index).tags == second.episode(index).tags
        np.testing.assert_array_equal(every(first, index), every(second, index))


def test_pusht_noise_keeps_its_split_and_shapes(tmp_path: Path) -> None:
    recorded = write_layout("pusht_noise", tmp_path / "src", num_val=2)  # ours would hold out one of four
    convert(tmp_path / "src", tmp_path / "out", "dino_wm", layout="pusht_noise")
    first, second = opened(tmp_path / "src"), opened(tmp_path / "out")
    assert first.num_val == second.num_val == 2
    for index in range(4):
        assert second.episode(index).tags == {"shape": float(index)}
        np.testing.assert_array_equal(second.episode(index).state, recorded[index].states)
        np.testing.assert_allclose(second.episode(index).actions, recorded[index].actions, rtol=1e-6)


@pytest.mark.slow
def test_dino_wm_to_lerobot_and_back_keeps_every_number(tmp_path: Path) -> None:
    arrays = write_robomimic(tmp_path / "src")
    notes = convert(tmp_path / "src", tmp_path / "lerobot", "lerobot", task="put the can away")
    assert notes[0] == "lerobot has no place for: exact frames (its videos are lossy)"
    there = opened(tmp_path / "lerobot")
    assert there.episode(0).task == "put the can away"
    assert "workspace_id" not in there.episode(0).tags
    notes = convert(tmp_path / "lerobot", tmp_path / "back", "dino_wm")
    assert "the task in words" in notes[0]
    first, back = opened(tmp_path / "src"), opened(tmp_path / "back")
    same_numbers(first, there)
    same_numbers(first, back)
    for index in range(len(first)):
        assert psnr(every(back, index), arrays["frames"][index, : first.lengths[index]]) > 22


@pytest.mark.slow
def test_lerobot_v21_to_v30(tmp_path: Path) -> None:
    """Two cameras; state, proprio, actions and tasks of every episode."""
    source = lerobot_folder("v2.1")
    names = sorted(key.rsplit(".", 1)[-1] for key in opened_cameras(source))
    given: dict[str, Any] = {"size": 84} if min(every(opened(source, camera=names[0]), 0).shape[1:3]) < 64 else {}
    convert(source, tmp_path / "v30", "lerobot", cameras=names, **given)
    info = json.loads((tmp_path / "v30/meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    for camera in names:
        first, second = opened(source, camera=camera), opened(tmp_path / "v30", camera=camera)
        same_numbers(first, second)
        tasks = [[each.episode(i).task for i in range(len(each))] for each in (first, second)]
        assert tasks[0] == tasks[1]
        assert every(second, 1).shape[0] == first.lengths[1]


def opened_cameras(source: Path) -> list[str]:
    features = json.loads((source / "meta/info.json").read_text())["features"]
    return [key for key, each in features.items() if each["dtype"] == "video"]


@pytest.mark.slow
def test_the_real_v21_to_v30(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "lerobot_v21_g1"
    notes = convert(source, tmp_path / "v30", "lerobot", size=84, overrides=["episodes=2"])
    assert "no observation.environment_state" in notes[1]
    first, second = opened(source, episodes=2), opened(tmp_path / "v30")
    same_numbers(first, second)
    for index in range(2):
        assert every(second, index).shape == (first.lengths[index], 84, 112, 3)


@pytest.mark.slow
def test_demos_of_states_alone_are_drawn_as_they_were(tmp_path: Path) -> None:
    """Frames, actions and states equal those of our own recording, by both of its cameras' names."""
    make_data("lift", tmp_path / "lift", episodes=2, steps=6, frame_size=84, policy="random", actors=0)
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(tmp_path / "lift/demo.hdf5", bare / "demo.hdf5")
    with h5py.File(bare / "demo.hdf5", "a") as file:
        for demo in file["data"].values():  # type: ignore[union-attr]
            del demo["obs"]
    convert(bare, tmp_path / "drawn", "robomimic", cameras=["agentview", "birdview"])
    first, second = opened(tmp_path / "lift"), opened(tmp_path / "drawn")
    same_numbers(first, second)
    assert (len(second.proprio_names), len(second.state_names)) == (16, 23)
    for index in range(2):
        np.testing.assert_array_equal(every(first, index), every(second, index))
    with h5py.File(bare / "demo.hdf5") as before, h5py.File(tmp_path / "drawn/demo.hdf5") as after:
        for name in ("data/demo_2/states", "data/demo_2/actions"):
            np.testing.assert_array_equal(before[name][()], after[name][()])  # type: ignore[index]
        assert before["data/demo_1"].attrs["model_file"] == after["data/demo_1"].attrs["model_file"]
        seen: Any = after["data/demo_1/obs"]
        assert not np.array_equal(seen["agentview_image"][()], seen["birdview_image"][()])
    convert(bare, tmp_path / "large", "dino_wm", size=96)
    assert every(opened(tmp_path / "large"), 0).shape == (6, 96, 96, 3)
    assert "sideview" in user_error(lambda: convert(bare, tmp_path / "other", "dino_wm", cameras=["sidevew"]))
    for name in ("nan", "lfit"):
        (tmp_path / name).mkdir()
        shutil.copy(bare / "demo.hdf5", tmp_path / name)
    with h5py.File(tmp_path / "nan/demo.hdf5", "a") as file:
        file["data/demo_2/states"][3, 5] = np.nan  # type: ignore[index]
    with h5py.File(tmp_path / "lfit/demo.hdf5", "a") as file:
        args = json.loads(str(file["data"].attrs["env_args"]))
        file["data"].attrs["env_args"] = json.dumps({**args, "env_name": "Lfit"})
    message = user_error(lambda: convert(tmp_path / "nan", tmp_path / "out", "robomimic"))
    assert "demo_2: states holds NaN" in message
    message = user_error(lambda: convert(tmp_path / "lfit", tmp_path / "out2", "dino_wm"))
    assert "'Lfit'" in message
    assert "Did you mean 'Lift'?" in message


def test_frames_are_scaled_by_areas(tmp_path: Path) -> None:
    write_layout("point_maze", tmp_path / "src")
    convert(tmp_path / "src", tmp_path / "out", "dino_wm", layout="point_maze", size=128)
    first, second = opened(tmp_path / "src"), opened(tmp_path / "out")
    assert every(second, 0).shape[1:3] == (128, 128)
    np.testing.assert_array_equal(every(second, 0)[:, 16::32, 16::32], every(first, 0)[:, 8::16, 8::16])
    same_numbers(first, second)


def test_what_a_source_lacks_is_not_made_up(tmp_path: Path) -> None:
    write_robomimic(tmp_path / "src")
    hidden = ["labels=none"]
    for to in ("dino_wm", "robomimic"):
        message = user_error(lambda to=to: convert(tmp_path / "src", tmp_path / "out", to, overrides=hidden))
        assert "an action for every step, and 'src' has none" in message
    assert not (tmp_path / "out").exists()
    (tmp_path / "features").mkdir()
    np.savez(tmp_path / "features/features.npz", features=np.ones((2, 5, 3), np.float32))
    message = user_error(lambda: convert(tmp_path / "features", tmp_path / "out", "lerobot"))
    assert "features and no frames" in message


@pytest.mark.slow
def test_unlabelled_frames_become_lerobot_without_vectors(tmp_path: Path) -> None:
    write_robomimic(tmp_path / "src")
    notes = convert(tmp_path / "src", tmp_path / "out", "lerobot", overrides=["labels=none"])
    assert "no action, observation.state, observation.environment_state" in notes[1]
    found = opened(tmp_path / "out")
    assert list(found.lengths) == [24, 20]
    assert [getattr(found.episode(0), key) for key in VECTORS] == [None] * 3
    features = json.loads((tmp_path / "out/meta/info.json").read_text())["features"]
    assert not {"action", "observation.state", "observation.environment_state"} & set(features)


def test_a_source_without_state_says_that_proprio_stands_in(tmp_path: Path) -> None:
    notes = convert(lerobot_folder("v2.1"), tmp_path / "out", "dino_wm", overrides=["camera=main", "state_keys=[]"])
    assert notes[1] == "the source has no state: states.pth holds the proprio again"
    found = opened(tmp_path / "out")
    np.testing.assert_array_equal(found.episode(1).state, found.episode(1).proprio)


def test_franka_and_generic_vectors_go_through_hdf5(tmp_path: Path) -> None:
    arrays = write_franka_steps(tmp_path / "src")
    (tmp_path / "src/proprios.pth").unlink(missing_ok=True)
    notes = convert(
        tmp_path / "src", tmp_path / "out", "robomimic", overrides=["kind=dino_wm", "layout=franka", "colors=rgb"]
    )
    assert "names of columns" in notes[0]
    assert any("no simulator states" in note for note in notes)
    found = opened(tmp_path / "out")
    assert found.episode(0).fps == 10
    np.testing.assert_array_equal(found.episode(1).state, arrays["states"][1, :20])
    np.testing.assert_array_equal(found.episode(1).proprio, arrays["states"][1, :20, :3])
    np.testing.assert_array_equal(found.episode(1).actions, arrays["actions"][1, :20])
    np.testing.assert_array_equal(every(found, 1), arrays["frames"][1, :20])
    with h5py.File(tmp_path / "out/demo.hdf5") as file:
        assert "states" not in file["data/demo_1"]  # type: ignore[operator]
