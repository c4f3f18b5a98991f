"""LeRobot data sets whose pictures are in the data files: as lerobot wrote them, as they are read by it, and damaged ones."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.wm.data.samples import user_error
from wm.config.data import LerobotSourceConfig
from wm.data.dataset import open_source
from wm.data.sources import lerobot_pictures
from wm.data.sources.lerobot import LerobotSource
from wm.data.sources.lerobot_pictures import ROWS_AT_ONCE

LENGTHS, FPS, SIZE = (30, 21, 40), 10, (32, 48)
CAMERAS = {"main": SIZE, "wrist": (24, 24)}
MAIN = "observation.images.main"


def recorded(episode: int, camera: str) -> np.ndarray:
    """uint8 (T, H, W, 3)."""
    rng = np.random.default_rng([episode, list(CAMERAS).index(camera)])
    return rng.integers(0, 256, (LENGTHS[episode], *CAMERAS[camera], 3), dtype=np.uint8)


def action(episode: int) -> np.ndarray:
    return np.random.default_rng(episode).normal(size=(LENGTHS[episode], 3)).astype(np.float32)


def encoded(picture: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind)
    return buffer.getvalue()


def features() -> dict[str, dict[str, Any]]:
    names = ["height", "width", "channels"]
    cameras = {f"observation.images.{name}": [*size, 3] for name, size in CAMERAS.items()}
    found: dict[str, dict[str, Any]] = {
        key: {"dtype": "image", "shape": shape, "names": names} for key, shape in cameras.items()
    }
    return {**found, "action": {"dtype": "float32", "shape": [3], "names": ["x", "y", "z"]}}


def by_hand(folder: Path, kind: str = "PNG", row_group_size: int = 7) -> Path:
    """v2.1, an episode a file, as datasets' to_parquet leaves it: row groups that are no episodes."""
    pattern = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    told = {"codebase_version": "v2.1", "fps": FPS, "total_episodes": 3, "data_path": pattern, "video_path": None}
    (folder / "meta").mkdir(parents=True)
    (folder / "meta/info.json").write_text(json.dumps({**told, "features": features()}))
    (folder / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "tidy up"}))
    heads = [json.dumps({"episode_index": number, "length": length}) for number, length in enumerate(LENGTHS)]
    (folder / "meta/episodes.jsonl").write_text("\n".join(heads))
    for number, length in enumerate(LENGTHS):
        columns: dict[str, Any] = {
            f"observation.images.{name}": [
                {"bytes": encoded(each, kind), "path": f"{i}.png"} for i, each in enumerate(recorded(number, name))
            ]
            for name in CAMERAS
        }
        columns |= {"action": list(action(number)), "timestamp": (np.arange(length) / FPS).astype(np.float32)}
        columns |= {"frame_index": np.arange(length), "episode_index": np.full(length, number)}
        columns["task_index"] = np.zeros(length, np.int64)
        file = folder / pattern.format(episode_chunk=0, episode_index=number)
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), file, row_group_size=row_group_size)
    return folder


def source(folder: Path, **config: Any) -> LerobotSource:
    found = open_source(LerobotSourceConfig(path=str(folder), **config), "arm", folder)
    assert isinstance(found, LerobotSource)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nobody may write there."""
    return by_hand(tmp_path_factory.mktemp("pictures") / "arm")


@pytest.mark.parametrize("camera", list(CAMERAS))
def test_what_was_recorded_is_what_is_read(whole: Path, camera: str) -> None:
    found = source(whole, camera=camera)
    assert found.camera == camera
    assert found.beside == tuple(f"observation.images.{name}" for name in CAMERAS if name != camera)
    for number, length in enumerate(LENGTHS):
        episode = found.episode(number)
        np.testing.assert_array_equal(episode.frames(np.arange(length)), recorded(number, camera))
        np.testing.assert_array_equal(episode.frames([20, 3, 20]), recorded(number, camera)[[20, 3, 20]])
        np.testing.assert_array_equal(episode.actions, action(number))
    assert found.episode(0).frames([]).shape[0] == 0
    with pytest.raises(IndexError):
        found.episode(1).frames([21])
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.episode(2).frames([39]), recorded(2, camera)[39:])


def test_jpeg_is_decoded_as_pillow_does(tmp_path: Path) -> None:
    found = source(by_hand(tmp_path / "arm", "JPEG")).episode(0).frames([4])[0]
    expected = np.array(Image.open(io.BytesIO(encoded(recorded(0, "main")[4], "JPEG"))))
    np.testing.assert_array_equal(found, expected)


def test_only_the_asked_rows_are_read(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 40 rows in groups of 7 the two that hold the frames, and of all columns one."""
    asked: list[tuple[Any, Any, int]] = []
    read = pq.ParquetFile.iter_batches

    def heard(self: Any, batch_size: int, row_groups: Any = None, columns: Any = None) -> Any:
        for batch in read(self, batch_size, row_groups=row_groups, columns=columns):
            asked.append((row_groups, columns, len(batch)))
            yield batch

    found = source(whole).episode(2)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", heard)
    np.testing.assert_array_equal(found.frames([8, 37, 9]), recorded(2, "main")[[8, 37, 9]])
    assert asked == [([1], [f"{MAIN}.bytes"], 7), ([5], [f"{MAIN}.bytes"], 5)]


def test_a_large_row_group_is_left_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = source(by_hand(tmp_path / "arm", row_group_size=1000)).episode(2)
    seen: list[int] = []
    read = pq.ParquetFile.iter_batches

    def heard(self: Any, *given: Any, **more: Any) -> Any:
        for batch in read(self, *given, **more):
            seen.append(len(batch))
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", heard)
    np.testing.assert_array_equal(found.frames([2, 17]), recorded(2, "main")[[2, 17]])
    assert seen == [ROWS_AT_ONCE, ROWS_AT_ONCE]


def changed(change: Callable[[list[Any]], list[Any] | pa.Array]) -> Callable[[Path], object]:
    """The main camera's column of episode 1, changed."""

    def spoil(folder: Path) -> None:
        file = folder / "data/chunk-000/episode_000001.parquet"
        table = pq.read_table(file)
        new = change(table[MAIN].to_pylist())
        kind = None if isinstance(new, pa.Array) else table.schema.field(MAIN).type
        column = new if isinstance(new, pa.Array) else pa.array(new, kind)
        pq.write_table(table.set_column(table.schema.get_field_index(MAIN), MAIN, column), file)

    return spoil


def frame(number: int, data: bytes | None) -> Callable[[list[Any]], list[Any]]:
    return lambda rows: [{**row, "bytes": data} if index == number else row for index, row in enumerate(rows)]


PNG = encoded(np.zeros((*SIZE, 3), np.uint8) + 3)
DEPTH = encoded(np.arange(32 * 48, dtype=np.uint16).reshape(SIZE))
SMALL = encoded(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (frame(5, None), "frame 5 of episode 1 has no bytes"),
        (frame(5, b"nothing"), "frame 5 of episode 1 cannot be decoded"),
        (frame(5, PNG[:-30]), "frame 5 of episode 1 cannot be decoded"),
        (frame(5, DEPTH), "frame 5 of episode 1 is of mode I;16: depth?"),
        (frame(5, SMALL), "frame 5 of episode 1 is 8 x 8, frame 4 32 x 48"),
    ],
)
def test_a_damaged_picture_is_named_when_it_is_read(tmp_path: Path, whole: Path, change: Any, says: str) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "arm"))
    changed(change)(folder)
    found = source(folder)
    message = user_error(lambda: found.episode(1).frames([4, 5]))
    assert says in message
    assert "episode_000001.parquet: observation.images.main: " in message
    assert found.episode(1).frames([6]).any()


def test_a_file_without_pictures_is_refused_at_once(tmp_path: Path, whole: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "arm"))
    changed(lambda rows: pa.array([0.0] * len(rows)))(folder)
    assert "is double, expected pictures" in user_error(lambda: source(folder))
    file = folder / "data/chunk-000/episode_000001.parquet"
    file.write_bytes(file.read_bytes()[:-400])
    assert "episode_000001.parquet: unreadable parquet" in user_error(lambda: source(folder))
    file.unlink()
    assert "episode_000001.parquet: missing" in user_error(lambda: source(folder))


def told(folder: Path, **changes: Any) -> Path:
    file = folder / "meta/info.json"
    info = json.loads(file.read_text())
    file.write_text(json.dumps({**info, "features": {**info["features"], **changes}}))
    return folder


def test_depth_is_no_camera(tmp_path: Path, whole: Path) -> None:
    """As in agibot: a map of one channel beside the videos, and one that info.json calls so."""
    folder = Path(shutil.copytree(whole, tmp_path / "arm"))
    depth = {"dtype": "image", "shape": [32, 48, 1], "names": ["height", "width", "channel"]}
    marked = {"dtype": "video", "shape": [32, 48, 3], "info": {"video.is_depth_map": True}}
    told(folder, **{"observation.images.head_depth": depth, "observation.images.front": marked})
    found = source(folder)
    assert found.camera == "main"
    assert {"observation.images.head_depth", "observation.images.front"} <= set(found.beside)
    for camera in ("head_depth", "observation.images.front"):
        assert "colour is read" in user_error(lambda camera=camera: source(folder, camera=camera))
    only = {key: depth for key in features() if "images" in key}
    assert "holds only depth (observation.images.main, " in user_error(lambda: source(told(folder, **only, **{
        "observation.images.head_depth": depth})))  # fmt: skip


def test_unknown_features_are_left_alone(tmp_path: Path, whole: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "arm"))
    told(folder, **{"observation.sound": {"dtype": "audio", "shape": [800]}})
    assert "observation.sound" in source(folder).beside


def test_features_under_other_names_must_be_named(tmp_path: Path, whole: Path) -> None:
    """airoa-moma has action.absolute and action.relative, agibot actions.joint.position: neither is taken, nor passed over."""
    folder = Path(shutil.copytree(whole, tmp_path / "arm"))
    file = folder / "meta/info.json"
    info = json.loads(file.read_text())
    vector = info["features"].pop("action")
    absolute, relative = "action.absolute", "action.relative"
    info["features"] |= {absolute: vector, relative: vector}
    file.write_text(json.dumps(info))
    for number in range(len(LENGTHS)):
        data = folder / f"data/chunk-000/episode_{number:06d}.parquet"
        table = pq.read_table(data)
        table = table.rename_columns([absolute if name == "action" else name for name in table.column_names])
        pq.write_table(table.append_column(relative, table[absolute]), data)
    message = user_error(lambda: source(folder))
    assert (
        "arm.action_keys: no 'action', but action.absolute, action.relative: say which of them, or [] for none"
        in message
    )
    np.testing.assert_array_equal(source(folder, action_keys=(relative,)).episode(1).actions, action(1))
    assert source(folder, labels="none").episode(0).actions is None
    assert source(folder, action_keys=()).episode(0).actions is None
    told(folder, **{"observation.states.joint": vector})
    message = user_error(lambda: source(folder, action_keys=(relative,)))
    assert "arm.proprio_keys: no 'observation.state', but observation.states.joint: say which" in message


@pytest.mark.slow
def test_lerobots_own_v30_is_read_as_lerobot_reads_it(tmp_path: Path) -> None:
    from wm.encoders import torchvision_shim

    torchvision_shim.install()
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    given = {key: {**each, "shape": tuple(each["shape"])} for key, each in features().items()}
    theirs = LeRobotDataset.create("lab/arm", fps=FPS, features=given, root=tmp_path / "arm", use_videos=False)
    for number, length in enumerate(LENGTHS):
        seen = {f"observation.images.{name}": recorded(number, name) for name in CAMERAS}
        for step in range(length):
            values = {key: frames[step] for key, frames in seen.items()}
            theirs.add_frame({**values, "action": action(number)[step], "task": f"task {number}"})
        theirs.save_episode()
    theirs.finalize()
    theirs = LeRobotDataset("lab/arm", root=tmp_path / "arm")
    for name in CAMERAS:
        found = source(tmp_path / "arm", camera=name)
        position = 0
        for number, length in enumerate(LENGTHS):
            frames = found.episode(number).frames(np.arange(length))
            np.testing.assert_array_equal(frames, recorded(number, name))
            np.testing.assert_array_equal(found.episode(number).actions, action(number))
            for step in (0, length - 1):
                item = theirs[position + step][f"observation.images.{name}"]
                np.testing.assert_array_equal(frames[step], item.mul(255).round().byte().permute(1, 2, 0).numpy())
            position += length
        assert found.episode(1).task == "task 1"


def test_the_metadata_is_read_once(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = source(whole).episode(0)
    found.frames([0])
    monkeypatch.setattr(lerobot_pictures.pq, "read_metadata", lambda file: pytest.fail("again"))
    found.frames([1])
