"""Episodes that cannot be used: each kind of fault counted, listed and bounded, never replaced by another."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from tests.wm.data.damage import Fault, at, column, cut, edit, info, remove
from tests.wm.data.layouts import write_layout
from tests.wm.data.samples import EPISODES, user_error, wall_copy
from tests.wm.data.sources.recorded import can_folder, lerobot_folder
from wm.config.catalogue import config_of, source_kinds
from wm.config.data import DataConfig
from wm.data import faults
from wm.data.checks import check_source
from wm.data.dataset import Dataset, open_source
from wm.data.sources.array_source import whole_numbers
from wm.data.sources.detect import detect
from wm.data.sources.file_source import FileSource

ROWS, OLD = "data/chunk-000/file-000.parquet", "data/chunk-000/episode_000001.parquet"
VIDEO = "videos/chunk-001/observation.images.main/episode_000002.mp4"


def at_place(position: tuple[int, ...], value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(values: torch.Tensor) -> torch.Tensor:
        values[position] = value
        return values

    return change


def fewer(frames: torch.Tensor) -> torch.Tensor:
    return frames[:-3].clone()


def demo(change: Callable[[Any], object]) -> Fault:
    """demo_2 of the HDF5 file, changed."""

    def apply(folder: Path) -> Path:
        other = Path(shutil.copy(folder / "demo.hdf5", folder / "other"))  # the file itself is open in this process
        with h5py.File(other, "a") as file:
            change(file["data/demo_2"])
        return other.replace(folder / "demo.hdf5")

    return apply


def zeroed_chunk(number: int) -> Fault:
    """Of the pictures of demo_2."""

    def apply(folder: Path) -> Path:
        with h5py.File(folder / "demo.hdf5") as file:
            chunk = file["data/demo_2/obs/agentview_image"].id.get_chunk_info(number)  # type: ignore[union-attr]
        with (folder / "demo.hdf5").open("r+b") as file:
            file.seek(chunk.byte_offset)
            file.write(bytes(chunk.size))
        return folder / "demo.hdf5"

    return apply


def no_camera(group: Any) -> None:
    del group["obs/agentview_image"]


def without_steps(group: Any) -> None:
    del group["actions"]
    group["actions"] = np.float32(1)


def nan_action(group: Any) -> None:
    group["actions"][3, 1] = np.nan


def wall(folder: Path) -> Path:
    return wall_copy(folder)


def pusht(folder: Path) -> Path:
    write_layout("pusht_noise", folder)
    return folder


def lerobot(version: str) -> Callable[[Path], Path]:
    return lambda folder: Path(shutil.copytree(lerobot_folder(version), folder))


def can(folder: Path) -> Path:
    return Path(shutil.copytree(can_folder(), folder))


# data set, its source's config, what is done to it, the episode that is lost, what is said of it
FAULTS: dict[str, tuple[Callable[[Path], Path], dict[str, Any], Fault, int, str]] = {
    "missing frames": (wall, {}, remove("obses/episode_003.pth"), 3, "episode_003.pth: missing, but"),
    "frames cut short": (wall, {}, cut("obses/episode_003.pth", 0.6), 3, "episode_003.pth"),
    "fewer frames than states": (wall, {}, edit("obses/episode_003", fewer), 3, "episode_003.pth"),
    "NaN action": (wall, {}, edit("actions", at_place((5, 7, 1), torch.nan)), 5, "actions.pth: episode 5 holds NaN"),
    "NaN state of the second part": (
        pusht,
        {},
        edit("val/states", at_place((0, 1, 2), torch.nan)),
        3,
        "val/states.pth: episode 0",
    ),
    "truncated video": (lerobot("v2.1"), {"camera": "main"}, cut(VIDEO, 0.6), 2, "episode_000002.mp4"),
    "missing video": (lerobot("v2.1"), {"camera": "main"}, remove(VIDEO), 2, "episode_000002.mp4: missing"),
    "missing table": (lerobot("v2.1"), {"camera": "main"}, remove(OLD), 1, "episode_000001.parquet: missing"),
    "damaged table": (lerobot("v2.1"), {"camera": "main"}, cut(OLD, 0.5), 1, "unreadable parquet"),
    "another rate": (
        lerobot("v2.1"),
        {"camera": "main"},
        column(OLD, "timestamp", lambda values: values * 2),
        1,
        "a wrong fps, or frames are missing",
    ),
    "NaN proprio": (
        lerobot("v3.0"),
        {"camera": "main"},
        column(ROWS, "observation.state", at((3, 2), np.nan)),
        0,
        "proprio of episode 000000 holds NaN or infinity at step 3",
    ),
    "NaN in a demonstration": (can, {}, demo(nan_action), 1, "action of episode demo_2 holds NaN"),
    "a demonstration without its camera": (
        can,
        {"camera": "agentview"},
        demo(no_camera),
        1,
        "demo_2: obs/agentview_image",
    ),
    "a demonstration without a table of actions": (can, {}, demo(without_steps), 1, "demo_2: no actions (T, n)"),
    "a table of narrower vectors": (
        lerobot("v2.1"),
        {"camera": "main"},
        column(OLD, "action", lambda values: values[:, :-1]),
        1,
        "episode_000001.parquet: action has 6 columns, others have 7",
    ),
    "a table of ragged vectors": (
        lerobot("v2.1"),
        {"camera": "main"},
        column(OLD, "action", lambda values: [row[: 3 + index % 2] for index, row in enumerate(values.tolist())]),
        1,
        "action has vectors of several sizes",
    ),
    "a damaged first picture": (can, {}, zeroed_chunk(0), 1, "unreadable HDF5"),
}


def settings(folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    return {**detect(folder), "path": str(folder), **given}


def dataset(folder: Path, given: dict[str, Any], root: Path, most: float = 0.3) -> Dataset:
    config = DataConfig.model_validate(
        {"sources": {"one": settings(folder, given)}, "max_faulty": most, "val_fraction": 0.4}
    )
    return Dataset(config, root, None)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_counted_listed_and_bounded(tmp_path: Path, name: str) -> None:
    make, given, spoil, lost, said = FAULTS[name]
    folder = make(tmp_path / "data")
    whole = dataset(folder, given, tmp_path)
    assert whole.faulty == []
    spoil(folder)
    found = dataset(folder, given, tmp_path)
    (faulty,) = found.faulty
    assert (faulty.source, faulty.episode) == ("one", lost)
    assert said in faulty.reason
    assert found.sources["one"].episode(lost).id == faulty.id
    # the others stay in the half that they were in
    for before, after in zip(whole.split["one"], found.split["one"], strict=True):
        assert after == [index for index in before if index != lost]
    assert found.fingerprint != whole.fingerprint
    assert any("1 of " in note and said in note for note in found.notes)
    for values in (found.statistics.action, found.statistics.state):
        assert values is None or np.isfinite([*values.mean, *values.std]).all()
    message = user_error(lambda: dataset(folder, given, tmp_path, most=0.01))
    assert said in message
    assert "data.max_faulty, now 0.01" in message


def test_pictures_of_another_size_are_a_fault_where_a_batch_holds_pictures(tmp_path: Path) -> None:
    folder = wall_copy(tmp_path / "data")
    edit("obses/episode_003", lambda frames: frames.repeat(1, 1, 2, 2))(folder)
    config = {"sources": {"one": settings(folder, {})}, "max_faulty": 0.3, "val_fraction": 0.4}
    (faulty,) = Dataset(DataConfig.model_validate({**config, "tokens": "online"}), tmp_path, None).faulty
    assert faulty.episode == 3
    assert "episode_003.pth: episode 003 has frames of 56 x 56 x 3, most have 28 x 28 x 3" in faulty.reason
    assert Dataset(DataConfig.model_validate(config), tmp_path, None).faulty == []  # tokens of any size are of one size


def test_nothing_is_left_out_unless_asked(tmp_path: Path) -> None:
    folder = wall_copy(tmp_path / "data")
    remove("obses/episode_003.pth")(folder)
    remove("obses/episode_004.pth")(folder)
    message = user_error(lambda: dataset(folder, {}, tmp_path, most=0))
    assert "episode_003.pth: missing" in message
    assert "the first of 2 such episodes of 12, 16.7%" in message
    assert len(dataset(folder, {}, tmp_path, most=0.17).faulty) == 2
    assert "16.7%" in user_error(lambda: dataset(folder, {}, tmp_path, most=0.16))


def test_damage_in_the_middle_stops_by_name(tmp_path: Path) -> None:
    folder = can(tmp_path / "data")
    zeroed_chunk(7)(folder)
    found = dataset(folder, {}, tmp_path)
    assert found.faulty == []
    assert "demo.hdf5: unreadable HDF5" in user_error(lambda: found.sources["one"].episode(1).frames([7]))


def test_frames_are_tried_once_for_each_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    real = faults._try_frames  # pyright: ignore[reportPrivateUsage]

    def counting(source: FileSource) -> Callable[[int], Any]:
        look = real(source)

        def one(index: int) -> Any:
            tried.append(index)
            return look(index)

        return one

    monkeypatch.setattr(faults, "_try_frames", counting)
    folder = wall_copy(tmp_path / "data")
    cut("obses/episode_003.pth", 0.6)(folder)
    first = dataset(folder, {}, tmp_path)
    assert sorted(tried) == list(range(EPISODES))
    assert dataset(folder, {}, tmp_path).faulty == first.faulty
    assert len(tried) == EPISODES
    dataset(folder, {}, tmp_path, most=0.5)
    assert len(tried) == EPISODES
    cut("obses/episode_005.pth", 0.6)(folder)
    assert len(dataset(folder, {}, tmp_path).faulty) == 2
    assert len(tried) == 2 * EPISODES
    kept = sorted((tmp_path / "faults").glob("*.json"))
    assert [len(json.loads(file.read_text())) for file in kept] in ([1, 2], [2, 1])


def test_looking_names_every_fault_and_goes_on(tmp_path: Path) -> None:
    folder = wall_copy(tmp_path / "data")
    remove("obses/episode_003.pth")(folder)
    edit("actions", at_place((5, 7, 1), torch.nan))(folder)
    given = settings(folder, {})
    kind = given.pop("kind")
    source = open_source(config_of(source_kinds(), kind, given, "source", "kind"), "one", folder, max_faulty=1)
    report = check_source(source, every_frame=False)
    assert [finding.episode for finding in report.errors] == ["one/003", "one/005"]
    assert len(report.vectors["action"]) == (EPISODES - 2) * source.lengths[0]


def test_a_repaired_fault_is_no_fault(tmp_path: Path) -> None:
    """Damage that leaves a file its size, undone; and a sound copy elsewhere."""
    folder = lerobot("v2.1")(tmp_path / "data")
    sound = Path(shutil.copytree(folder, tmp_path / "sound"))
    file = folder / VIDEO
    whole = file.read_bytes()
    file.write_bytes(bytes(len(whole)))
    assert [each.episode for each in dataset(folder, {"camera": "main"}, tmp_path).faulty] == [2]
    file.write_bytes(whole)
    assert dataset(folder, {"camera": "main"}, tmp_path).faulty == []
    assert dataset(sound, {"camera": "main"}, tmp_path).faulty == []


def test_other_frames_of_the_same_size_are_other_data(tmp_path: Path) -> None:
    folder = wall_copy(tmp_path / "data")
    before = dataset(folder, {}, tmp_path).fingerprint
    edit("obses/episode_003", lambda frames: 255 - frames)(folder)
    assert dataset(folder, {}, tmp_path).fingerprint != before


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, which will drop quantized tensors
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frames: frames.long() * 2, "frames hold"),
        (lambda frames: frames > 3, "frames of torch.bool"),
        (lambda frames: frames.to(torch.complex64), "frames of torch.complex64"),
        (lambda frames: frames.to_sparse(), "holds a sparse tensor, expected plain numbers: save its to_dense()"),
        (
            lambda frames: torch.quantize_per_tensor(frames.float(), 1.0, 0, torch.quint8),
            "holds a quantized tensor, expected plain numbers: save its dequantize()",
        ),
    ],
)
def test_numbers_that_are_no_pictures_are_faults(tmp_path: Path, change: Callable[[Any], Any], said: str) -> None:
    folder = wall_copy(tmp_path / "data")
    edit("obses/episode_003", change)(folder)
    (faulty,) = dataset(folder, {}, tmp_path).faulty
    assert said in faulty.reason


def test_numbers_with_a_gradient_are_numbers(tmp_path: Path) -> None:
    folder = wall_copy(tmp_path / "data")
    whole = dataset(folder, {}, tmp_path).sources["one"].episode(3)
    edit("obses/episode_003", lambda frames: frames.float().requires_grad_())(folder)
    edit("states", lambda states: states.requires_grad_())(folder)
    found = dataset(folder, {}, tmp_path)
    assert found.faulty == []
    np.testing.assert_array_equal(found.sources["one"].episode(3).frames([2, 5]), whole.frames([2, 5]))
    assert whole_numbers(torch.tensor([3.0, 4.0], requires_grad=True), "lengths", 2, 9) == [3, 4]


def test_one_folder_by_two_ways_is_one(tmp_path: Path) -> None:
    folder = can(tmp_path / "data")
    sources = {"one": settings(folder, {}), "two": settings(folder / "demo.hdf5", {"episodes": 3})}
    config = DataConfig.model_validate({"sources": sources, "val_fraction": 0.4})
    assert "reads episodes of 'one' too" in user_error(lambda: Dataset(config, tmp_path, None))


@pytest.mark.parametrize("value", [np.nan, 1e6])
def test_features_that_cannot_be_tokens_are_faults(tmp_path: Path, value: float) -> None:
    features, actions = np.ones((5, 6, 3), np.float32), np.ones((5, 6, 2), np.float32)
    features[2, 0, 1] = value
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data/features.npz", features=features, actions=actions)
    (faulty,) = dataset(tmp_path / "data", {}, tmp_path).faulty
    assert (faulty.episode, "features of episode 2 hold NaN" in faulty.reason) == (2, True)


def test_the_first_demonstration_does_not_decide_for_all(tmp_path: Path) -> None:
    folder = can(tmp_path / "data")
    whole = dataset(folder, {}, tmp_path).sources["one"].state_names
    other = Path(shutil.copy(folder / "demo.hdf5", folder / "other"))
    with h5py.File(other, "a") as file:
        del file["data/demo_1/obs/object"]  # type: ignore[index]
    other.replace(folder / "demo.hdf5")
    found = dataset(folder, {}, tmp_path)
    assert [each.episode for each in found.faulty] == [0]
    assert found.sources["one"].state_names == whole


@pytest.mark.parametrize("shape", [(6,), (7, 1)])
def test_a_first_demonstration_of_another_shape_is_the_one_left_out(tmp_path: Path, shape: tuple[int, ...]) -> None:
    folder = can(tmp_path / "data")
    whole = dataset(folder, {}, tmp_path).sources["one"]
    other = Path(shutil.copy(folder / "demo.hdf5", folder / "other"))
    with h5py.File(other, "a") as file:
        obs: Any = file["data/demo_1/obs"]
        length = len(obs["robot0_joint_pos"])
        del obs["robot0_joint_pos"]
        obs["robot0_joint_pos"] = np.zeros((length, *shape), np.float32)
    other.replace(folder / "demo.hdf5")
    found = dataset(folder, {}, tmp_path)
    assert [each.episode for each in found.faulty] == [0]
    assert found.sources["one"].proprio_names == whole.proprio_names


@pytest.mark.parametrize("pattern", ["{episode_index:>3000000000}", "{video_key.__class__}", "{0}"])
def test_a_path_of_meta_is_no_program(tmp_path: Path, pattern: str) -> None:
    folder = lerobot("v2.1")(tmp_path / "data")
    info(video_path=pattern)(folder)
    assert "is no name with fields" in user_error(lambda: dataset(folder, {"camera": "main"}, tmp_path))


def test_what_nobody_foresaw_is_one_line(tmp_path: Path) -> None:
    folder = lerobot("v2.1")(tmp_path / "data")
    rows = (folder / "meta/episodes.jsonl").read_text()
    (folder / "meta/episodes.jsonl").write_text(rows.replace('"length": ', '"length": 1e400, "told": ', 1))
    message = user_error(lambda: dataset(folder, {"camera": "main"}, tmp_path))
    assert "damaged, or not what its config says" in message


def test_other_pictures_in_the_middle_of_a_demonstration_are_other_data(tmp_path: Path) -> None:
    folder = can(tmp_path / "data")
    before = dataset(folder, {"camera": "agentview"}, tmp_path).fingerprint

    def darker(group: Any) -> None:
        pictures = group["obs/agentview_image"]
        pictures[len(pictures) // 2] = pictures[len(pictures) // 2] // 2

    demo(darker)(folder)
    assert dataset(folder, {"camera": "agentview"}, tmp_path).fingerprint != before
