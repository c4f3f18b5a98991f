"""robomimic's and robosuite's files: read as they lie, our own exactly, and every bad file refused in one line."""

from __future__ import annotations

import multiprocessing
import pickle
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.wm.data.samples import user_error
from tests.wm.data.sources.recorded import LENGTHS, can_episodes, can_folder, can_source, robomimic_file
from wm.config.data import DataConfig, RobomimicSourceConfig
from wm.config.experiment import ExperimentConfig
from wm.config.resolve import Layer, resolve
from wm.data.clip_reader import to_batch
from wm.data.dataset import Dataset, open_source
from wm.data.sources import robosuite_objects
from wm.data.sources.robomimic_hdf5 import RobomimicHdf5Source
from wm.envs.robosuite_tasks import PROPRIO_NAMES, TASKS
from wm.types import ClipRef


def source(path: Path, **config: Any) -> RobomimicHdf5Source:
    found = open_source(RobomimicSourceConfig(path="lift", **config), "lift", path)
    assert isinstance(found, RobomimicHdf5Source)
    return found


def values(path: Path, key: str) -> Any:
    with h5py.File(path) as file:
        return np.asarray(file[f"data/{key}"])


def test_what_our_writer_writes_reads_back_exactly() -> None:
    found = can_source()
    assert list(found.lengths) == list(LENGTHS)
    assert found.fps == 20
    for index, recorded in enumerate(can_episodes()):
        episode = found.episode(index)
        np.testing.assert_array_equal(episode.frames(np.arange(episode.length)), recorded.frames)
        np.testing.assert_array_equal(episode.actions, recorded.actions)
        np.testing.assert_array_equal(episode.proprio, recorded.proprio)
        np.testing.assert_array_equal(episode.state, recorded.states)
        assert episode.tags == {"demo": index + 1, "success": float(recorded.success or False)}
        assert episode.id == f"can/demo_{index + 1}"
    seen = can_source(camera="robot0_eye_in_hand").episode(2).frames([3])
    np.testing.assert_array_equal(seen, can_episodes()[2].views["robot0_eye_in_hand"][3:4])


def test_columns_are_called_as_in_the_worlds() -> None:
    found = can_source()
    assert found.action_names == ("dx", "dy", "dz", "drx", "dry", "drz", "gripper")
    assert found.proprio_names == PROPRIO_NAMES
    assert found.state_names == TASKS["can"].state_names
    for task in TASKS.values():
        assert robosuite_objects.ITEMS[task.env_name] == task.labels


def test_robomimics_own_file(tmp_path: Path) -> None:
    path = robomimic_file(tmp_path / "image.hdf5")
    found = source(tmp_path)  # a folder with one file
    assert [episode.id for episode in map(found.episode, range(4))] == [f"lift/demo_{n}" for n in (0, 1, 2, 10)]
    assert found.fps == 30
    assert found.state_names == TASKS["lift"].state_names
    last = found.episode(3)
    parts = [values(path, f"demo_10/obs/robot0_{key}") for key in ("joint_pos", "gripper_qpos", "joint_vel")]
    proprio = np.concatenate(parts, axis=1).astype(np.float32)
    np.testing.assert_array_equal(last.proprio, proprio)
    pose = values(path, "demo_10/obs/object")[:, :7].astype(np.float32)
    np.testing.assert_array_equal(last.state, np.concatenate([proprio, pose], axis=1))
    np.testing.assert_array_equal(last.actions, values(path, "demo_10/actions").astype(np.float32))
    pictures = values(path, "demo_10/obs/agentview_image")
    np.testing.assert_array_equal(last.frames([31, 0, 5, 5]), pictures[[31, 0, 5, 5]])
    assert last.tags == {"demo": 10.0, "mask_train": 1.0, "mask_valid": 0.0}
    for wrong in ([32], [-1]):
        with pytest.raises(IndexError):
            last.frames(wrong)


def test_chosen_keys_camera_and_subset(tmp_path: Path) -> None:
    path = robomimic_file(tmp_path / "image.hdf5")
    keys = ("robot0_eef_pos", "robot0_gripper_qpos[:1]")
    found = source(path, proprio_keys=keys, state_keys=("object",), camera="robot0_eye_in_hand_image", filter="train")
    assert [found.episode(i).tags["demo"] for i in range(len(found))] == [
        1,
        2,
        10,
    ]  # by number, whatever the file's order
    assert found.proprio_names == ("eef_pos_1", "eef_pos_2", "eef_pos_3", "gripper_qpos_1")
    assert found.state_names[:8] == (*(f"cube_{part}" for part in robosuite_objects.POSE), "object_8")
    np.testing.assert_array_equal(found.episode(0).state, values(path, "demo_1/obs/object").astype(np.float32))
    np.testing.assert_array_equal(
        found.episode(1).frames([4]), values(path, "demo_2/obs/robot0_eye_in_hand_image")[[4]]
    )
    assert len(source(path, filter="train", episodes=2)) == 2
    assert list(source(path, filter="valid").lengths) == [22]


def test_a_file_without_objects_or_joints(tmp_path: Path) -> None:
    drop = ("obs/object", "obs/robot0_joint_pos", "obs/robot0_joint_vel", "obs/robot0_gripper_qpos")
    found = source(robomimic_file(tmp_path / "a.hdf5", drop=drop))
    assert (found.proprio_names, found.state_names) == ((), ())
    assert found.episode(0).state is None
    assert found.episode(0).proprio is None


def test_proprio_is_what_the_file_has_of_a_panda(tmp_path: Path) -> None:
    found = source(robomimic_file(tmp_path / "a.hdf5", drop=("obs/robot0_joint_vel",)))
    assert found.proprio_names == (*(f"joint_pos_{joint}" for joint in range(1, 8)), "gripper_qpos_1", "gripper_qpos_2")
    assert found.state_names[:9] == found.proprio_names
    assert found.faults == {}


def test_labels_can_be_hidden() -> None:
    episode = can_source(labels="none").episode(0)
    assert (episode.actions, episode.proprio, episode.state) == (None, None, None)


def test_the_config_takes_lists_from_the_command_line() -> None:
    given = {"kind": "robomimic", "path": "lift.hdf5", "proprio_keys": ["robot0_eef_pos"], "filter": "train"}
    config = resolve([Layer("test", {f"data.sources.a.{key}": value for key, value in given.items()})])
    assert isinstance(config, ExperimentConfig)
    assert config.data.sources["a"] == RobomimicSourceConfig(
        path="lift.hdf5", proprio_keys=("robot0_eef_pos",), filter="train"
    )


def test_clips_of_a_data_set(tmp_path: Path) -> None:
    path = robomimic_file(tmp_path / "data" / "lift.hdf5")
    config = DataConfig(sources={"lift": RobomimicSourceConfig(path="lift.hdf5")}, held_out_last=1)
    dataset = Dataset(config, tmp_path, None)
    batch = to_batch(dataset.reader.read([ClipRef("lift", 2, 3, 5, 4)]))
    np.testing.assert_array_equal(batch.obs.visual[0], values(path, "demo_2/obs/agentview_image")[3:19:5])
    assert (batch.has_actions.all(), dataset.action_dim) == (True, 35)


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    path = robomimic_file(tmp_path / "a.hdf5")
    base = source(path).fingerprint
    assert source(robomimic_file(tmp_path / "b.hdf5")).fingerprint == base
    others = [
        source(path, **config).fingerprint
        for config in (
            {"episodes": 3},
            {"labels": "none"},
            {"camera": "robot0_eye_in_hand"},
            {"proprio_keys": ()},
            {"filter": "train"},
        )
    ]
    for number, key in enumerate(("actions", "obs/object", "obs/agentview_image")):
        changed = robomimic_file(tmp_path / f"{number}.hdf5")
        with h5py.File(changed, "r+") as file:
            array: Any = file[f"data/demo_2/{key}"]
            array[0] = array[0] // 2 if array.dtype == np.uint8 else array[0] + 1
        others.append(source(changed).fingerprint)
    assert len({base, *others}) == 1 + len(others)


def edit(change: Callable[[Any], object]) -> Callable[[Path], object]:
    def spoil(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)

    return spoil


def put(key: str, value: Any) -> Callable[[Path], object]:
    def change(file: Any) -> None:
        del file[key]
        file[key] = value

    return edit(change)


def nan(file: Any) -> None:
    file["data/demo_2/actions"][5, 3] = np.nan


def states_only(file: Any) -> None:
    for demo in file["data"].values():
        del demo["obs"]


@pytest.mark.parametrize(
    ("spoil", "config", "says"),
    [
        (edit(nan), {}, "action of episode demo_2 holds NaN or infinity"),
        (put("data/demo_1/obs/object", np.full((23, 10), np.inf)), {}, "state of episode demo_1 holds NaN"),
        (edit(states_only), {}, "demo_0 holds simulator states and no pictures: render them first (wm data convert"),
        (put("data/demo_2/obs/agentview_image", np.zeros((24, 12, 12, 3))), {}, "demo_2: obs/agentview_image is missing"),
        (put("data/demo_2/obs/agentview_image", np.zeros((9, 12, 12, 3), np.uint8)), {}, "9 frames for 24 actions"),
        (put("data/demo_2/actions", np.zeros((24, 6))), {}, "demo_2: action has 6 columns, others have 7"),
        (put("data/demo_2/obs/object", np.zeros((20, 10))), {}, "demo_2: object float64 (20, 10)"),
        (put("data/demo_2/actions", np.array([b"x"] * 24)), {}, "demo_2: actions |S1 (24, 1), expected numbers"),
        (put("data/demo_2/actions", np.zeros((20, 7))), {}, "demo_2: 20 actions, num_samples 24"),
        (edit(lambda f: f["data/demo_10/obs"].pop("object")), {}, "demo_10: obs has no 'object'"),
        (edit(lambda f: f["data"].attrs.__setitem__("env_args", "{")), {}, "no JSON object"),
        (edit(lambda f: f.pop("data")), {}, "no group 'data'"),
        (edit(lambda f: f["data"].clear()), {}, "holds no demo_N"),
        (put("mask/train", np.array([b"demo_77"])), {"filter": "train"}, "mask/train names demo_77"),
        (put("mask/train", np.array([], "S8")), {"filter": "train"}, "subset 'train' is empty"),
        (lambda path: None, {"filter": "trian"}, "Did you mean 'train'?"),
        (lambda path: None, {"camera": "agentviw"}, "data.sources.lift.camera: no camera 'agentviw'. Did you mean 'agentview'"),
        (lambda path: None, {"proprio_keys": ("robot0_eef_po",)}, "Did you mean 'robot0_eef_pos'?"),
        (lambda path: None, {"state_keys": ("object[7]",)}, "neither a key nor a key with columns"),
        (edit(lambda f: [each["obs"].move("agentview_image", "front_image") for each in f["data"].values()]), {}, "say which of"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused(
    tmp_path: Path, spoil: Callable[[Path], object], config: dict[str, Any], says: str
) -> None:
    path = robomimic_file(tmp_path / "image.hdf5")
    spoil(path)
    message = user_error(lambda: source(path, **config))
    assert says in message
    assert str(path) in message or "data.sources.lift" in message


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_one_line(tmp_path: Path, share: float) -> None:
    path = robomimic_file(tmp_path / "image.hdf5")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert re.search(r"image\.hdf5: unreadable HDF5, cut short or damaged \(.+\)", user_error(lambda: source(path)))


def test_missing_and_ambiguous_files(tmp_path: Path) -> None:
    assert "no such file or folder" in user_error(lambda: source(tmp_path / "absent.hdf5"))
    assert "holds 0 HDF5 files" in user_error(lambda: source(tmp_path))
    for name in ("a", "b"):
        robomimic_file(tmp_path / f"{name}.hdf5")
    assert "holds 2 HDF5 files: name one of a.hdf5, b.hdf5" in user_error(lambda: source(tmp_path))


def test_pictures_that_are_damaged_are_found_when_read(tmp_path: Path) -> None:
    path = tmp_path / "demo.hdf5"
    path.write_bytes((can_folder() / "demo.hdf5").read_bytes())
    with h5py.File(path) as file:
        chunk = file["data/demo_2/obs/agentview_image"].id.get_chunk_info(7)  # type: ignore[union-attr]
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(bytes(chunk.size))
    episode = source(path).episode(1)
    assert episode.frames([6, 8]).any()
    assert "demo.hdf5: unreadable HDF5" in user_error(lambda: episode.frames([7]))


def _checksum(found: RobomimicHdf5Source) -> int:
    return sum(int(found.episode(i).frames([0, 20, 3]).astype(np.int64).sum()) for i in range(len(found)))


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking beside threads
def test_handles_belong_to_a_process(method: str) -> None:
    found = can_source()
    expected = _checksum(found)
    assert b"h5py" not in pickle.dumps(found)
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        sums = [pool.submit(_checksum, found) for _ in range(4)]
        assert _checksum(found) == expected
        assert all(each.result(timeout=60) == expected for each in sums)
