"""Small recorded data sets for the tests of sources: what was recorded, and the folder that our own writer made of it."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wm.config.data import LerobotSourceConfig, RobomimicSourceConfig
from wm.data.sources.lerobot import LerobotSource
from wm.data.sources.robomimic_hdf5 import RobomimicHdf5Source
from wm.data.writers.robosuite_hdf5 import RobosuiteWriter
from wm.data.writers.staged import StagedEpisodes
from wm.data.writers.writer import DatasetFacts, Writer
from wm.envs.robosuite_control import OSC_ACTION_NAMES
from wm.envs.robosuite_tasks import PROPRIO_NAMES, TASKS
from wm.types import RecordedEpisode

LENGTHS = (26, 31, 24, 29)
CAN_STATE = TASKS["can"].state_names


@cache
def _scratch() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="wm-recorded-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def can_facts(size: int = 16) -> DatasetFacts:
    """Of robosuite's can, as `wm data make can` tells them."""
    controller = {"type": "BASIC", "body_parts": {"right": {"type": "OSC_POSE"}}}
    return DatasetFacts(
        world="can",
        settings={"kind": "can"},
        action_names=OSC_ACTION_NAMES,
        state_names=CAN_STATE,
        proprio_names=PROPRIO_NAMES,
        layout_names=(),
        episodes=len(LENGTHS),
        frame_size=size,
        fps=20,
        task="put the can away",
        workspace=7,
        env_info={"env_name": "PickPlaceCan", "control_freq": 20, "controller_configs": controller},
    )


def can_episodes(size: int = 16) -> list[RecordedEpisode]:
    """Numbers that differ everywhere; states begin with proprio, as in the worlds."""
    found: list[RecordedEpisode] = []
    for number, length in enumerate(LENGTHS):
        rng = np.random.default_rng(number)
        states = rng.normal(size=(length, 23)).astype(np.float32)
        blocks = rng.integers(0, 256, (length, 4, 4, 3), dtype=np.uint8)
        found.append(
            RecordedEpisode(
                frames=blocks.repeat(size // 4, axis=1).repeat(size // 4, axis=2),
                states=states,
                actions=rng.uniform(-1, 1, (length, 7)).astype(np.float32),
                layout={},
                proprio=states[:, :16].copy(),
                met=np.arange(length) > 20 + 5 * (number % 2),
                views={"robot0_eye_in_hand": _wrist(number, length, size)},
                flat_states=rng.normal(size=(length, 71)),
                model_file="<mujoco/>",
            )
        )
    return found


def _wrist(number: int, length: int, size: int) -> np.ndarray:
    shades = 50 * number + 5 + np.arange(length, dtype=np.uint8)
    return np.broadcast_to(shades[:, None, None, None], (length, size, size, 3)).copy()


def write(folder: Path, writer: Writer, episodes: list[RecordedEpisode]) -> Path:
    """By way of the staging, as `wm data make` does it."""
    staged = StagedEpisodes(folder, len(episodes), writer.keeps_frames)
    for index, episode in enumerate(episodes):
        writer.write_frames(index, episode)
        staged.save(index, episode, {})
    writer.finish(staged)
    staged.remove()
    return folder


@cache
def can_folder() -> Path:
    """A robosuite file of our own; nobody may write there."""
    folder = _scratch() / "can"
    folder.mkdir()
    return write(folder, RobosuiteWriter(folder, can_facts()), can_episodes())


def can_source(**config: Any) -> RobomimicHdf5Source:
    return RobomimicHdf5Source(RobomimicSourceConfig(path="can", **config), "can", can_folder())


def robomimic_file(path: Path, numbers: tuple[int, ...] = (0, 1, 2, 10), **change: Any) -> Path:
    """A file as robomimic's dataset_states_to_obs.py leaves it: Lift, two cameras, masks, more keys than anyone needs.

    Args:
        change: `env_args`, or `drop` (paths below every demonstration).
    """
    env_args = {
        "env_name": "Lift",
        "type": 1,
        "env_kwargs": {"control_freq": 30, "controller_configs": {"type": "OSC_POSE"}},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs["about"] = "a test"
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(change.get("env_args", env_args))
        data.attrs["total"] = 0
        for number in numbers:
            rng, length = np.random.default_rng(number), 22 + number
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = length
            demo["states"] = rng.normal(size=(length, 32))
            demo["actions"] = rng.uniform(-1, 1, (length, 7))
            demo["rewards"], demo["dones"] = np.zeros(length), np.zeros(length, np.int64)
            for group in ("obs", "next_obs"):
                sizes = {"object": 10, "robot0_eef_pos": 3, "robot0_gripper_qpos": 2, "robot0_joint_pos": 7}
                for key, size in {**sizes, "robot0_joint_vel": 7}.items():
                    demo[f"{group}/{key}"] = rng.normal(size=(length, size))
                for camera in ("agentview", "robot0_eye_in_hand"):
                    demo[f"{group}/{camera}_image"] = rng.integers(0, 256, (length, 12, 12, 3), dtype=np.uint8)
            for each in change.get("drop", ()):
                del demo[each]
        names = [f"demo_{number}".encode() for number in numbers]
        file["mask/train"], file["mask/valid"] = np.array(names[1:][::-1]), np.array(names[:1])
    return path


def save_mp4(path: Path, frames: np.ndarray, fps: int, **options: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"g": "2", **options})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def lerobot_data_set(folder: Path, version: str = "v2.1", fps: int = 20, size: tuple[int, int] = (48, 64)) -> Path:
    """Four episodes with two cameras as lerobot lays them out, without lerobot: v3.0 has two episodes in each file."""
    episodes, tasks = can_episodes(), ["put the can away", "take it back"]
    per_file = 2 if version == "v3.0" else 1
    cameras = {"observation.images.main": 0, "observation.images.wrist": 1}
    vectors = {
        "observation.state": {"motors": [f"q{number}" for number in range(16)]},
        "observation.environment_state": None,
        "action": [[f"a{number}" for number in range(7)]],
    }
    features: dict[str, Any] = {key: {"dtype": "video", "shape": [*size, 3]} for key in cameras}
    widths = {"observation.state": 16, "observation.environment_state": 23, "action": 7}
    features |= {key: {"dtype": "float32", "shape": [widths[key]], "names": names} for key, names in vectors.items()}
    features |= {key: {"dtype": "int64", "shape": [1], "names": None} for key in ("workspace_id", "task_index")}
    features["next.success"] = {"dtype": "bool", "shape": [1], "names": None}
    places = {
        "v2.1": ("data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
                 "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"),
        "v3.0": ("data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
                 "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"),
    }[version]  # fmt: skip
    info = {
        "codebase_version": version,
        "fps": fps,
        "total_episodes": len(episodes),
        "chunks_size": 2,
        "data_path": places[0],
        "video_path": places[1],
        "features": features,
    }
    (folder / "meta").mkdir(parents=True)
    (folder / "meta/info.json").write_text(json.dumps(info))
    rows: list[dict[str, Any]] = []
    for first in range(0, len(episodes), per_file):
        members = range(first, first + per_file)
        where = {"chunk_index": 0, "file_index": first // 2, "episode_chunk": first // 2, "episode_index": first}
        table = pa.concat_tables([_rows(number, episodes[number], fps) for number in members])
        file = folder / places[0].format(**where)
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, file)
        for camera, seed in cameras.items():
            pictures = np.concatenate([lerobot_frames(number, size, seed) for number in members])
            save_mp4(folder / places[1].format(video_key=camera, **where), pictures, fps)
        start = 0.0
        for number in members:
            row: dict[str, Any] = {"episode_index": number, "tasks": [tasks[number % 2]], "length": LENGTHS[number]}
            row |= {"data/chunk_index": 0, "data/file_index": first // 2}
            end = start + LENGTHS[number] / fps
            for camera in cameras:
                row |= {f"videos/{camera}/chunk_index": 0, f"videos/{camera}/file_index": first // 2}
                row |= {f"videos/{camera}/from_timestamp": start, f"videos/{camera}/to_timestamp": end}
            rows.append(row)
            start = end
    if version == "v3.0":
        (folder / "meta/episodes/chunk-000").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / "meta/episodes/chunk-000/file-000.parquet")
        table = pa.table({"task_index": [0, 1], "__index_level_0__": tasks})
        pq.write_table(table, folder / "meta/tasks.parquet")
    else:
        heads = [{key: row[key] for key in ("episode_index", "tasks", "length")} for row in rows]
        words = [{"task_index": number, "task": task} for number, task in enumerate(tasks)]
        for name, lines in (("episodes", heads), ("tasks", words)):
            (folder / f"meta/{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def lerobot_frames(number: int, size: tuple[int, int], camera: int = 0) -> np.ndarray:
    """What a camera of an episode recorded, before the codec."""
    rng = np.random.default_rng([number, camera])
    blocks = rng.integers(0, 256, (LENGTHS[number], 4, 4, 3), dtype=np.uint8)
    return blocks.repeat(size[0] // 4, axis=1).repeat(size[1] // 4, axis=2)


def _rows(number: int, episode: RecordedEpisode, fps: int) -> pa.Table:
    length = len(episode.states)
    vectors = {
        "observation.state": episode.proprio,
        "observation.environment_state": episode.states,
        "action": episode.actions,
    }
    columns: dict[str, Any] = {
        key: pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
        for key, values in vectors.items()
    }
    columns["timestamp"] = (np.arange(length) / fps).astype(np.float32)
    columns |= {"frame_index": np.arange(length), "episode_index": np.full(length, number)}
    columns |= {"task_index": np.full(length, number % 2), "workspace_id": np.full(length, 7)}
    columns["next.success"] = np.asarray(episode.met)
    return pa.table(columns)


@cache
def lerobot_folder(version: str) -> Path:
    """Nobody may write there."""
    return lerobot_data_set(_scratch() / version, version)


def lerobot_source(version: str, **config: Any) -> LerobotSource:
    return LerobotSource(LerobotSourceConfig(path="arm", **config), "arm", lerobot_folder(version))
