"""LeRobot data sets of both formats: as lerobot reads them, and every bad one refused in one line."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.conftest import SHARED_DATA
from tests.wm.data.damage import at, column, cut, info, remove
from tests.wm.data.samples import NEEDS_FFMPEG, encoder, user_error
from tests.wm.data.sources.recorded import (
    LENGTHS,
    can_episodes,
    can_facts,
    lerobot_data_set,
    lerobot_folder,
    lerobot_frames,
    lerobot_source,
    write,
)
from wm.config.data import DataConfig, LerobotSourceConfig
from wm.data.clip_reader import to_batch
from wm.data.dataset import Dataset, open_source
from wm.data.sources.lerobot import LerobotSource
from wm.data.token_files import TokenFiles
from wm.data.writers.lerobot import LerobotWriter
from wm.types import ClipRef, RecordedEpisode

VERSIONS = ("v2.1", "v3.0")
G1 = SHARED_DATA / "lerobot_v21_g1"


def source(folder: Path, **config: Any) -> LerobotSource:
    found = open_source(LerobotSourceConfig(path=str(folder), **config), "arm", folder)
    assert isinstance(found, LerobotSource)
    return found


def copy(version: str, target: Path) -> Path:
    """One to damage."""
    return Path(shutil.copytree(lerobot_folder(version), target))


def close(found: np.ndarray, recorded: np.ndarray) -> None:
    """As far as the codec goes: the next frame, or another camera's, is far off."""
    assert found.shape == recorded.shape
    assert np.abs(found.astype(int) - recorded).mean() < 12


@pytest.mark.parametrize("version", VERSIONS)
def test_what_was_recorded_is_what_is_read(version: str) -> None:
    found = lerobot_source(version)
    assert list(found.lengths) == list(LENGTHS)
    assert found.fps == 20
    for index, recorded in enumerate(can_episodes()):
        episode = found.episode(index)
        np.testing.assert_array_equal(episode.actions, recorded.actions)
        np.testing.assert_array_equal(episode.proprio, recorded.proprio)
        np.testing.assert_array_equal(episode.state, recorded.states)
        close(episode.frames(np.arange(episode.length)), lerobot_frames(index, (48, 64)))
        assert episode.id == f"arm/{index:06d}"
        assert episode.task == ("put the can away", "take it back")[index % 2]
        assert episode.tags == {"task": index % 2, "workspace_id": 7, "success": float(recorded.success or False)}
    assert found.action_names == tuple(f"a{number}" for number in range(7))
    assert found.proprio_names == tuple(f"q{number}" for number in range(16))
    assert found.state_names[:2] == ("environment_state_1", "environment_state_2")


def test_both_formats_give_the_same() -> None:
    """Episode by episode, through the whole video of v2.1 and the half of one of v3.0: the codec starts at another place."""
    for camera in ("main", "wrist"):
        old, new = (lerobot_source(version, camera=camera) for version in VERSIONS)
        for index in range(len(old)):
            first, second = old.episode(index), new.episode(index)
            np.testing.assert_array_equal(first.actions, second.actions)
            close(first.frames([0, 7, 20]), second.frames([0, 7, 20]))


def test_the_second_episode_of_a_video_is_exact(tmp_path: Path) -> None:
    folder = lerobot_folder("v3.0")
    with av.open(str(folder / "videos/observation.images.main/chunk-000/file-001.mp4")) as container:
        every = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    episode = lerobot_source("v3.0").episode(3)
    np.testing.assert_array_equal(episode.frames(np.arange(LENGTHS[3])), every[LENGTHS[2] :])


def test_chosen_camera_and_columns() -> None:
    config = {
        "camera": "observation.images.wrist",
        "action_keys": ("action[:3]",),
        "proprio_keys": ("observation.state[:7]", "workspace_id"),
        "state_keys": (),
    }
    found = lerobot_source("v3.0", **config)
    episode = found.episode(1)
    close(episode.frames([3]), lerobot_frames(1, (48, 64), 1)[3:4])
    assert (found.action_names, found.state_names, episode.state) == (("a0", "a1", "a2"), (), None)
    assert found.proprio_names == (*(f"q{number}" for number in range(7)), "workspace_id_1")
    recorded = can_episodes()[1]
    np.testing.assert_array_equal(episode.actions, recorded.actions[:, :3])
    assert episode.proprio is not None
    np.testing.assert_array_equal(episode.proprio[:, :7], recorded.proprio[:, :7])
    assert (episode.proprio[:, 7] == 7).all()


def test_labels_can_be_hidden() -> None:
    episode = lerobot_source("v2.1", labels="none").episode(0)
    assert (episode.actions, episode.proprio, episode.state) == (None, None, None)
    assert episode.frames([0]).any()


def test_it_travels_to_workers() -> None:
    found = lerobot_source("v3.0")
    found.episode(0).frames([1])
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.episode(3).frames([5, 1]), found.episode(3).frames([5, 1]))


def test_clips_of_a_data_set(tmp_path: Path) -> None:
    config = DataConfig(sources={"arm": LerobotSourceConfig(path="arm")}, held_out_last=1)
    (tmp_path / "data").mkdir()
    copy("v3.0", tmp_path / "data" / "arm")
    dataset = Dataset(config, tmp_path, None)
    batch = to_batch(dataset.reader.read([ClipRef("arm", 1, 2, 5, 4)]))
    expected = dataset.sources["arm"].episode(1).frames([2, 7, 12, 17])
    np.testing.assert_array_equal(batch.obs.visual[0], expected)
    assert (bool(batch.has_actions.all()), dataset.action_dim) == (True, 35)


def test_frames_of_other_sizes_give_tokens_of_one_shape(tmp_path: Path) -> None:
    """The shorter side fits the encoder, the longer one is cropped in the middle: what is stored can be mixed."""
    shapes: set[tuple[int, ...]] = set()
    for number, size in enumerate(((48, 64), (64, 48), (64, 64))):
        found = source(lerobot_data_set(tmp_path / str(number), size=size))
        assert found.episode(0).frames([0]).shape == (1, *size, 3)
        store = TokenFiles(tmp_path / "tokens", found, encoder().fingerprint)
        assert list(store.write(encoder(), [0])) == [0]
        shapes.add(store.read(0, np.array([5, 20])).shape)
    assert len(shapes) == 1


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    base = lerobot_source("v3.0").fingerprint
    assert source(copy("v3.0", tmp_path / "elsewhere")).fingerprint == base
    others = [
        lerobot_source("v3.0", **config).fingerprint
        for config in ({"episodes": 2}, {"labels": "none"}, {"camera": "wrist"}, {"state_keys": ()})
    ]
    changed = lerobot_data_set(tmp_path / "changed", "v3.0", size=(64, 48))
    others += [source(changed).fingerprint, lerobot_source("v2.1").fingerprint]
    assert len({base, *others}) == 1 + len(others)


OLD, NEW = "data/chunk-000/episode_000001.parquet", "data/chunk-000/file-000.parquet"
VIDEO = "videos/observation.images.main/chunk-000/file-001.mp4"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


@pytest.mark.parametrize(
    ("version", "spoil", "config", "says"),
    [
        ("v2.1", remove("meta/info.json"), {}, "no LeRobot data set here"),
        ("v2.1", cut("meta/info.json", 0.5), {}, "meta/info.json: unreadable"),
        ("v2.1", info(codebase_version="v1.6"), {}, "codebase_version 'v1.6'; v3.0, v2.1 and v2.0 are read"),
        ("v2.1", info(features=None), {}, "meta/info.json: not LeRobot's"),
        ("v2.1", info(data_path="../../{episode_index}.parquet"), {}, "data_path leads out of the data set"),
        ("v2.1", info(total_episodes=5), {}, "meta: 4 episodes, but info.json says 5"),
        ("v2.1", remove(OLD), {}, "episode_000001.parquet: missing, but meta names it"),
        ("v2.1", cut(OLD, 0.6), {}, "episode_000001.parquet: unreadable parquet, missing or damaged"),
        ("v3.0", cut(EPISODES, 0.9), {}, "file-000.parquet: unreadable parquet"),
        ("v3.0", remove(VIDEO), {}, "file-001.mp4: missing"),
        ("v2.1", info(fps=10), {}, "off frame / 10 fps, first at frame 1: a wrong fps"),
        ("v3.0", info(fps=10), {}, "episode 0 has 26 frames at 10 fps, but 1.300 s of video"),
        ("v3.0", column(NEW, "timestamp", at(slice(30, None), 0.1)), {}, "episode 1 has timestamps up to"),
        ("v3.0", column(NEW, "frame_index", at(30, 3)), {}, "episode 1 has 31 rows, expected 31"),
        ("v3.0", column(NEW, "episode_index", at(26, 0)), {}, "episode 0 has 27 rows, expected 26"),
        ("v3.0", column(NEW, "action", at((40, 2), np.nan)), {}, "action of episode 000001 holds NaN"),
        ("v3.0", column(NEW, "observation.state", at((3, 2), np.inf)), {}, "proprio of episode 000000 holds NaN"),
        ("v3.0", column(NEW, "task_index", at(slice(0, 26), 9)), {}, "episode 0 is of task 9, which meta lacks"),
        ("v3.0", column(NEW, "action", lambda values: [[1.0]] * 56 + [[1.0, 2.0]]), {}, "action has vectors of several sizes"),
        ("v3.0", column(NEW, "action", lambda values: values[:, :6]), {}, "file-001.parquet: action has 7 columns, others have 6"),
        ("v3.0", column(NEW, "action", lambda values: ["a"] * 57), {}, "action holds string, expected numbers"),
        ("v3.0", lambda folder: None, {"camera": "wirst"}, "data.sources.arm.camera: no camera 'wirst'. Did you mean 'wrist'?"),
        ("v3.0", lambda folder: None, {"proprio_keys": ("observation.stat",)}, "Did you mean 'observation.state'?"),
        ("v3.0", lambda folder: None, {"action_keys": ("action[1]",)}, "action_keys: 'action[1]' is neither"),
    ],
)  # fmt: skip
def test_a_bad_data_set_is_refused(
    tmp_path: Path, version: str, spoil: Callable[[Path], object], config: dict[str, Any], says: str
) -> None:
    folder = copy(version, tmp_path / "arm")
    spoil(folder)
    message = user_error(lambda: source(folder, **config))
    assert says in message
    assert str(folder) in message or "data.sources.arm" in message


def test_cameras_that_are_no_videos(tmp_path: Path) -> None:
    features = json.loads((lerobot_folder("v2.1") / "meta/info.json").read_text())["features"]
    cases = [
        ({"observation.images.left": features["observation.images.main"], **features}, "main", None),
        ({key.replace("main", "left"): each for key, each in features.items()}, "say which of left, wrist", None),
        ({key: {**each, "dtype": each["dtype"].replace("video", "image")} for key, each in features.items()}, "expected pictures", 1),
        ({key: each for key, each in features.items() if "images" not in key}, "holds no video and no pictures", 1),
    ]  # fmt: skip
    for number, (given, says, _) in enumerate(cases):
        folder = copy("v2.1", tmp_path / str(number))
        info(features=given)(folder)
        if number == 0:
            assert source(folder).camera_key == "observation.images.main"
        else:
            assert says in user_error(lambda folder=folder: source(folder))


def test_a_video_that_does_not_fit_its_episode_is_found_when_read(tmp_path: Path) -> None:
    folder = copy("v2.1", tmp_path / "arm")
    videos = folder / "videos/chunk-000/observation.images.main"
    shutil.copy(videos / "episode_000001.mp4", videos / "episode_000000.mp4")
    found = source(folder)
    message = user_error(lambda: found.episode(0).frames([0]))
    assert "episode_000000.mp4: 31 frames for the 26 rows of episode 0" in message
    assert found.episode(1).frames([0]).any()
    cut("videos/chunk-000/observation.images.main/episode_000001.mp4", 0.5)(folder)
    assert "episode_000001.mp4" in user_error(lambda: found.episode(1).frames([0]))


def test_a_video_of_another_rate_is_found_when_read(tmp_path: Path) -> None:
    other = lerobot_data_set(tmp_path / "other", "v2.1", fps=10)
    folder, video = copy("v2.1", tmp_path / "arm"), "videos/chunk-000/observation.images.main/episode_000000.mp4"
    shutil.copy(other / video, folder / video)
    assert "off frame / 20 fps: another rate?" in user_error(lambda: source(folder).episode(0).frames([0]))


Hub = Callable[..., str]


def first_steps(episode: RecordedEpisode, length: int) -> RecordedEpisode:
    arrays = ("frames", "states", "actions", "proprio", "met", "flat_states")
    views = {name: frames[:length] for name, frames in episode.views.items()}
    return replace(episode, views=views, **{name: getattr(episode, name)[:length] for name in arrays})


@NEEDS_FFMPEG
@pytest.mark.parametrize("lengths", [pytest.param((), marks=pytest.mark.slow), (5, 1, 3, 1)])
def test_our_writers_data_set_is_read_as_lerobot_reads_it(tmp_path: Path, lengths: tuple[int, ...]) -> None:
    from wm.encoders import torchvision_shim

    torchvision_shim.install()
    recorded = can_episodes(64)
    for index, length in enumerate(lengths):
        recorded[index] = first_steps(recorded[index], length)
    write(tmp_path, LerobotWriter(tmp_path, can_facts(64)), recorded)
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    theirs = LeRobotDataset("wm/can", root=tmp_path)
    sources = {name: source(tmp_path, camera=name) for name in ("main", "robot0_eye_in_hand")}
    found = sources["main"]
    assert (len(found), sum(found.lengths), found.fps) == (theirs.num_episodes, theirs.num_frames, theirs.fps)
    assert found.state_names == can_facts().state_names
    position = 0
    for index, length in enumerate(found.lengths):
        episode = found.episode(index)
        seen = {name: each.episode(index).frames(np.arange(length)) for name, each in sources.items()}
        for step in range(length):
            item = theirs[position]
            position += 1
            assert (int(item["episode_index"]), int(item["frame_index"])) == (index, step)
            for key, values in (
                ("action", episode.actions),
                ("observation.state", episode.proprio),
                ("observation.environment_state", episode.state),
            ):
                assert values is not None
                np.testing.assert_array_equal(values[step], item[key].numpy())
            for name, frames in seen.items():
                picture = item[f"observation.images.{name}"].mul(255).round().byte().permute(1, 2, 0).numpy()
                np.testing.assert_array_equal(frames[step], picture)
            assert item["task"] == episode.task
            assert int(item["workspace_id"]) == episode.tags["workspace_id"]


@pytest.mark.skipif(not G1.is_dir(), reason=f"no real data in {G1}")
def test_a_real_robots_videos() -> None:
    found = source(G1)
    assert (len(found), sum(found.lengths), found.fps) == (4, 1045, 30)
    assert (len(found.action_names), len(found.proprio_names), found.state_names) == (26, 26, ())
    assert found.action_names[0] == "kLeftShoulderPitch"
    assert found.episode(0).task == "Pick up the yellow bottle on the table."
    assert [len(found.video(index)) for index in range(4)] == [221, 277, 280, 267]  # every frame is counted
    video, rows = found.video(2).path, [31, 4, 17]
    with av.open(str(video)) as container:
        first = [
            frame.to_ndarray(format="rgb24") for frame, _ in zip(container.decode(video=0), range(32), strict=False)
        ]
    np.testing.assert_array_equal(found.episode(2).frames(rows), np.stack([first[row] for row in rows]))
    assert found.episode(3).frames([266, 140]).shape == (2, 480, 640, 3)
