"""Every layout holds what was recorded: read back by name, shape, type, unit and number."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pytest
import torch

from ray_jobs.runtime.episodes import WRITERS
from tests.wm.data.layouts import close_pictures
from tests.wm.data.samples import NEEDS_FFMPEG, user_error
from wm.build import build_world
from wm.config.worlds import PushTWorldConfig
from wm.data.writers.staged import StagedEpisodes
from wm.data.writers.writer import KEYFRAME_EVERY, DatasetFacts, save_video
from wm.types import RecordedEpisode

T = 6
SIZES = {  # world, actions, state entries, proprio
    "wall_single": ("wall", 2, 2, 2),
    "pusht_noise": ("pusht", 2, 7, 4),
    "point_maze": ("point_maze", 2, 4, 4),
    "deformable": ("rope", 4, 9, 1),
    "robosuite": ("can", 7, 23, 16),
    "lerobot": ("can", 7, 23, 16),
}


def facts(layout: str, episodes: int = 3, size: int = 64) -> DatasetFacts:
    world, *sizes = SIZES[layout]
    actions, states, proprio = (tuple(f"{n}{i}" for i in range(k)) for n, k in zip("asp", sizes, strict=True))
    return DatasetFacts(
        world=world,
        settings={"kind": world, "shift": "none"},
        action_names=actions,
        state_names=states,
        proprio_names=proprio,
        layout_names=("wall_x", "door_y", "shape"),
        episodes=episodes,
        frame_size=size,
        fps=20,
        task="put the can away",
        workspace=7,
        env_info={"env_name": "PickPlaceCan", "robots": "Panda"} if layout == "robosuite" else None,
    )


def episode(layout: str, seed: int, size: int = 64, **more: Any) -> RecordedEpisode:
    rng = np.random.default_rng(seed)
    _, actions, states, proprio = SIZES[layout]
    frames = np.repeat(rng.integers(0, 256, (T, 4, 4, 3), dtype=np.uint8), size // 4, axis=1).repeat(size // 4, axis=2)
    return RecordedEpisode(
        frames=frames,
        states=rng.normal(size=(T, states)).astype(np.float32),
        actions=rng.normal(size=(T, actions)).astype(np.float32),
        layout={"wall_x": 30.0 + seed, "door_y": 20.0, "shape": float(seed)},
        proprio=rng.normal(size=(T, proprio)).astype(np.float32),
        **more,
    )


def written(layout: str, folder: Path, **more: Any) -> list[RecordedEpisode]:
    """Three episodes, by way of the staging, as `wm data make` does it."""
    about = facts(layout)
    writer = WRITERS[layout](folder, about)
    writer.check()
    recorded = [episode(layout, seed, **more) for seed in range(3)]
    staged = StagedEpisodes(folder, 3, writer.keeps_frames)
    for index in (2, 0, 1):
        writer.write_frames(index, recorded[index])
        assert not (folder / writer.marker).exists()
        staged.save(index, recorded[index], {"episode": index})
    assert staged.missing() == []
    writer.finish(staged)
    assert (folder / writer.marker).exists()
    staged.remove()
    return recorded


def load(path: Path) -> np.ndarray:
    return torch.load(path, weights_only=True).numpy()


def video(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_wall_single(tmp_path: Path) -> None:
    recorded = written("wall_single", tmp_path)
    for name in ("states", "actions"):
        np.testing.assert_array_equal(load(tmp_path / f"{name}.pth"), [getattr(e, name) for e in recorded])
    np.testing.assert_array_equal(load(tmp_path / "wall_locations.pth"), np.full((3, T, 1), [[[30]], [[31]], [[32]]]))
    frames = load(tmp_path / "obses" / "episode_001.pth")
    np.testing.assert_array_equal(frames, recorded[1].frames.transpose(0, 3, 1, 2))


def test_pusht_noise(tmp_path: Path) -> None:
    recorded = written("pusht_noise", tmp_path)
    for part, members in (("train", recorded[:2]), ("val", recorded[2:])):
        folder = tmp_path / part
        states, actions = (np.stack([getattr(e, name) for e in members]) for name in ("states", "actions"))
        np.testing.assert_array_equal(load(folder / "states.pth"), states[..., :5])
        np.testing.assert_array_equal(load(folder / "velocities.pth"), states[..., 5:])
        # The readers divide by 100.
        np.testing.assert_allclose(load(folder / "rel_actions.pth") / 100, actions, rtol=1e-6)
        np.testing.assert_allclose(load(folder / "abs_actions.pth"), states[..., :2] + 100 * actions, rtol=1e-6)
        assert pickle.loads((folder / "seq_lengths.pkl").read_bytes()) == [T] * len(members)
        shapes = pickle.loads((folder / "shapes.pkl").read_bytes())
        assert shapes == (["T", "L"] if part == "train" else ["Z"])
        for number, member in enumerate(members):
            close_pictures(video(folder / "obses" / f"episode_{number:03d}.mp4"), member.frames)


def test_a_keyframe_is_never_far(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (50, 16, 16, 3), dtype=np.uint8)
    save_video(tmp_path / "v.mp4", frames, 10)
    with av.open(str(tmp_path / "v.mp4")) as container:
        keys = [number for number, frame in enumerate(container.decode(video=0)) if frame.key_frame]
    assert keys[0] == 0
    assert max(np.diff([*keys, 50])) <= KEYFRAME_EVERY == 12


@pytest.mark.parametrize("layout", ["wall_single", "deformable"])
def test_layouts_without_lengths_refuse_several(tmp_path: Path, layout: str) -> None:
    about = replace(facts(layout), is_uneven=True)
    message = user_error(WRITERS[layout](tmp_path, about).check)
    assert f"{layout}: has no place for lengths" in message


def test_a_video_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    """With x264's fastest routines some of these differ: they read past the rows, wherever those are in memory."""
    world, rng = build_world(PushTWorldConfig(frame_size=224)), np.random.default_rng(0)
    world.reset_to(world.sample_problem(rng)[0])
    seen = []
    for _ in range(40):
        world.step(rng.normal(0, 0.3, 2))
        seen.append(world.render())
    frames, files = np.stack(seen), set()
    for number in range(20):
        scattered = np.empty(frames.size + 64, np.uint8)[number : number + frames.size].reshape(frames.shape)
        scattered[:] = frames
        save_video(tmp_path / "a.mp4", scattered, fps=10)
        files.add((tmp_path / "a.mp4").read_bytes())
    assert len(files) == 1


def test_point_maze(tmp_path: Path) -> None:
    recorded = written("point_maze", tmp_path)
    for name in ("states", "actions"):
        np.testing.assert_array_equal(load(tmp_path / f"{name}.pth"), [getattr(e, name) for e in recorded])
    np.testing.assert_array_equal(load(tmp_path / "seq_lengths.pth"), [T, T, T])
    for index in range(3):
        np.testing.assert_array_equal(load(tmp_path / "obses" / f"episode_{index:03d}.pth"), recorded[index].frames)


@pytest.mark.parametrize("own", [True, False])
def test_deformable(tmp_path: Path, own: bool) -> None:
    particles = np.random.default_rng(9).normal(size=(T, 5, 3)).astype(np.float32)
    recorded = written("deformable", tmp_path, **({"particles": particles} if own else {}))
    states = load(tmp_path / "states.pth")
    assert states.shape == (3, T, 5 if own else 3, 4)
    places = particles if own else recorded[1].states.reshape(T, 3, 3)
    np.testing.assert_array_equal(states[1, ..., :3], places)
    assert (states[..., 3] == 1).all()
    np.testing.assert_array_equal(load(tmp_path / "actions.pth"), [e.actions for e in recorded])
    frames = load(tmp_path / "000002" / "obses.pth")
    assert frames.dtype == np.float32
    np.testing.assert_array_equal(frames, recorded[2].frames)


def test_robosuite(tmp_path: Path) -> None:
    flat = np.random.default_rng(9).normal(size=(T, 71))
    views = {"robot0_eye_in_hand": np.full((T, 64, 64, 3), 9, np.uint8)}
    met = np.arange(T) >= 4
    more = {"flat_states": flat, "model_file": "<mujoco model='µ'/>", "views": views, "met": met}
    recorded = written("robosuite", tmp_path, **more)
    with h5py.File(tmp_path / "demo.hdf5") as file:
        data: Any = file["data"]
        assert sorted(data) == ["demo_1", "demo_2", "demo_3"]
        assert data.attrs["env"] == "PickPlaceCan"
        assert json.loads(data.attrs["env_info"]) == {"env_name": "PickPlaceCan", "robots": "Panda"}
        env_args = json.loads(data.attrs["env_args"])
        assert (env_args["env_name"], env_args["type"]) == ("PickPlaceCan", 1)
        assert env_args["wm_world"]["kind"] == "can"
        assert data.attrs["total"] == 3 * T
        demo = data["demo_2"]
        assert demo.attrs["model_file"] == "<mujoco model='µ'/>"
        assert demo.attrs["success"]
        assert demo.attrs["num_samples"] == T
        np.testing.assert_array_equal(demo["states"], flat)
        np.testing.assert_array_equal(demo["actions"], recorded[1].actions)
        seen = demo["obs"]
        np.testing.assert_array_equal(seen["agentview_image"], recorded[1].frames)
        np.testing.assert_array_equal(seen["robot0_eye_in_hand_image"], views["robot0_eye_in_hand"])
        joined = [seen[f"robot0_{name}"] for name in ("joint_pos", "gripper_qpos", "joint_vel")]
        np.testing.assert_array_equal(np.concatenate(joined, axis=1), recorded[1].proprio)
        np.testing.assert_array_equal(seen["object"], recorded[1].states[:, 16:])


@NEEDS_FFMPEG
@pytest.mark.slow
def test_lerobot(tmp_path: Path) -> None:
    from wm.encoders import torchvision_shim

    torchvision_shim.install()
    views = {"wrist": np.full((T, 64, 64, 3), (200, 30, 90), np.uint8)}
    met = np.arange(T) >= 4
    recorded = written("lerobot", tmp_path, views=views, met=met)
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("wm/can", root=tmp_path)
    assert (dataset.num_episodes, dataset.num_frames, dataset.fps) == (3, 3 * T, 20)
    assert dataset.meta.info["codebase_version"] == "v3.0"
    assert dataset.features["action"]["names"] == [f"a{i}" for i in range(7)]
    assert list(dataset.meta.tasks.index) == ["put the can away"]
    assert sorted(dataset.meta.camera_keys) == ["observation.images.main", "observation.images.wrist"]
    for index in range(3 * T):
        item, (which, step) = dataset[index], divmod(index, T)
        expected = recorded[which]
        assert (int(item["episode_index"]), int(item["frame_index"])) == (which, step)
        assert float(item["timestamp"]) == pytest.approx(step / 20)
        np.testing.assert_array_equal(item["observation.state"], expected.proprio[step])
        np.testing.assert_array_equal(item["observation.environment_state"], expected.states[step])
        np.testing.assert_array_equal(item["action"], expected.actions[step])
        assert int(item["workspace_id"]) == 7
        assert item["task"] == "put the can away"
        assert bool(item["next.success"]) == met[min(step + 1, T - 1)]
        for camera, frames in (("main", expected.frames), ("wrist", views["wrist"])):
            picture = (255 * item[f"observation.images.{camera}"]).permute(1, 2, 0).round().to(torch.uint8).numpy()
            close_pictures(picture[None], frames[step : step + 1])


@pytest.mark.parametrize(
    ("layout", "change", "words"),
    [
        ("pusht_noise", {"frame_size": 63}, "--size: 63"),
        ("pusht_noise", {"state_names": ("x",)}, "2 actions and 7 state entries"),
        ("wall_single", {"layout_names": ()}, "a wall and a door"),
        ("deformable", {"state_names": ("x", "y")}, "holds particles"),
        ("robosuite", {"env_info": None}, "tells none"),
        ("lerobot", {"frame_size": 32}, "at least 64"),
    ],
)
def test_what_a_layout_cannot_hold(tmp_path: Path, layout: str, change: dict[str, Any], words: str) -> None:
    from dataclasses import replace

    message = user_error(lambda: WRITERS[layout](tmp_path, replace(facts(layout), **change)).check())
    assert words in message
    assert "\n" not in message


def test_every_layout_says_what_it_lacks_in_one_line(tmp_path: Path) -> None:
    for layout, make in WRITERS.items():
        writer = make(tmp_path, facts(layout))
        assert "no place for" in writer.lacks
        assert "\n" not in writer.lacks
        assert list(tmp_path.iterdir()) == []  # nothing is written by looking


def test_staged_episodes_come_back_whole(tmp_path: Path) -> None:
    more = {
        "goal": np.array([1.5, 2.5]),
        "met": np.array([False, True] * 3),
        "flat_states": np.random.default_rng(0).normal(size=(T, 5)),
        "model_file": "<a/>",
        "particles": np.zeros((T, 2, 3), np.float32),
        "views": {"wrist": np.ones((T, 2, 2, 3), np.uint8)},
    }
    recorded = episode("wall_single", 0, **more)
    for keeps in (True, False):
        staged = StagedEpisodes(tmp_path / str(keeps), 2, keeps)
        staged.save(1, recorded, {"draw": 4})
        assert staged.missing() == [0]
        assert staged.record(1) == {"draw": 4}
        np.testing.assert_array_equal(staged.thumbnails(1), recorded.frames[[0, 3, 5]])
        found = staged[1]
        for name in ("states", "actions", "proprio", "goal", "met", "flat_states", "particles"):
            value = getattr(recorded, name)
            np.testing.assert_array_equal(getattr(found, name), value)
            assert getattr(found, name).dtype == value.dtype
        assert (found.layout, found.model_file) == (recorded.layout, "<a/>")
        assert len(found.frames) == (T if keeps else 0)
        assert list(found.views) == (["wrist"] if keeps else [])
        with pytest.raises(IndexError):
            staged[2]
