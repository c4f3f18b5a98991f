"""LeRobot's data set format v3.0, through lerobot's own writer, as a lab would record its own arm.

Importing lerobot imports torchvision: where torch has no CUDA, `wm.encoders.torchvision_shim.install()` comes first.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any

import numpy as np

from wm.config.errors import UserError
from wm.data.sources.lerobot_layout import LAYOUT_PREFIX
from wm.data.writers.writer import FolderWriter, need_even_sides
from wm.types import RecordedEpisode

MAIN_CAMERA = "main"
VIDEO_CODEC = "h264"  # read by every decoder; hevc is not
TAGS_WITH_FEATURES = ("workspace_id", "task")
_PATTERN_CHARACTERS = "'[]*?"
NEW_FILE_MB = 1e-9  # so small that the next episode begins a file
LEAST_SIDE = 64  # pixels; encoders refuse much smaller pictures


class LerobotWriter(FolderWriter):
    """Videos of synchronous cameras, proprio as observation.state, the world's state as observation.environment_state, raw
    actions, whether the task is done (next.success), a workspace number and the numbers of the layout (layout.NAME) in every
    frame, and the task in words; each only where there is such.
    """

    marker = "meta/info.json"
    lacks = "lerobot has no place for: goal, exact frames (its videos are lossy)"
    keeps_frames = True
    bytes_per_value = 2  # in the staged episodes, and as pictures while a video is made of them

    def check(self) -> None:
        """Raises UserError for a frame that a video cannot hold, and a folder whose name lerobot takes for a pattern."""
        need_even_sides(self.facts, LEAST_SIDE)
        bad = sorted(set(_PATTERN_CHARACTERS) & set(str(self.folder)))
        if bad:
            raise UserError(
                f"{self.folder}: lerobot cannot write to a path with {' '.join(bad)} in it; give another folder"
            )

    def write_frames(self, index: int, episode: RecordedEpisode) -> None:
        """Nothing yet: lerobot writes episodes in order."""

    def finish(self, episodes: Sequence[RecordedEpisode]) -> None:
        """The whole data set, beside its place first, then moved, meta last."""
        with _quiet():
            self._finish(episodes)

    def _finish(self, episodes: Sequence[RecordedEpisode]) -> None:
        from lerobot.datasets.lerobot_dataset import LeRobotDataset

        partial = self.folder / ".lerobot"
        shutil.rmtree(partial, ignore_errors=True)
        first = episodes[0]
        dataset = LeRobotDataset.create(
            repo_id=f"wm/{self.facts.world}",
            fps=self.facts.fps,
            features=self._features(first),
            root=partial,
            robot_type=self.facts.world,
            use_videos=True,
            vcodec=VIDEO_CODEC,
        )
        was_one = False
        for index in range(len(episodes)):
            episode = episodes[index]
            is_one = len(episode.states) == 1
            # ffmpeg joins no longer video to one of a single frame: decoding the longer one begins before its first frame
            self._add(dataset, episode, begins_file=was_one and not is_one)
            was_one = is_one
        dataset.finalize()
        stats = partial / "meta" / "stats.json"  # lerobot goes through a set: another order of keys every time
        stats.write_text(
            json.dumps(json.loads(stats.read_text(encoding="utf-8")), indent=4, sort_keys=True), encoding="utf-8"
        )
        for name in ("data", "videos", "meta"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (partial / name).replace(self.folder / name)
        shutil.rmtree(partial)

    def _features(self, first: RecordedEpisode) -> dict[str, dict[str, Any]]:
        video = {"dtype": "video", "names": ["height", "width", "channels"]}
        cameras = {self.facts.camera or MAIN_CAMERA: first.frames, **first.views}
        features = {f"observation.images.{name}": {**video, "shape": seen.shape[1:]} for name, seen in cameras.items()}
        features |= {
            name: {"dtype": "float32", "shape": (len(names),), "names": list(names)}
            for name, names in self._names().items()
        }
        if self._workspace(first) is not None:
            features["workspace_id"] = {"dtype": "int64", "shape": (1,), "names": None}
        if first.met is not None:
            features["next.success"] = {"dtype": "bool", "shape": (1,), "names": None}
        features |= {feature: {"dtype": "float64", "shape": (1,), "names": None} for feature in self._layout(first)}
        return features

    def _layout(self, episode: RecordedEpisode) -> dict[str, np.ndarray]:
        """Feature -> (1,): what is the same in every frame and has no feature of lerobot's own."""
        own = {*TAGS_WITH_FEATURES, *(() if episode.met is None else ("success",))}
        names = [name for name in self.facts.layout_names if name not in own]
        return {f"{LAYOUT_PREFIX}{name}": np.array([episode.layout[name]], np.float64) for name in names}

    def _names(self) -> dict[str, tuple[str, ...]]:
        """Of the columns of each vector that there is."""
        vectors = {
            "observation.state": self.facts.proprio_names,
            "observation.environment_state": self.facts.state_names,
            "action": self.facts.action_names,
        }
        return {feature: names for feature, names in vectors.items() if names}

    def _workspace(self, episode: RecordedEpisode) -> int | None:
        told = episode.layout.get("workspace_id", self.facts.workspace)
        return None if told is None else int(told)

    def _add(self, dataset: Any, episode: RecordedEpisode, begins_file: bool) -> None:
        length, workspace, layout = len(episode.states), self._workspace(episode), self._layout(episode)
        cameras = {self.facts.camera or MAIN_CAMERA: episode.frames, **episode.views}
        vectors = {
            "observation.state": episode.proprio,
            "observation.environment_state": episode.states,
            "action": episode.actions,
        }
        for step in range(length):
            frame: dict[str, Any] = {f"observation.images.{name}": seen[step] for name, seen in cameras.items()}
            frame |= {feature: vectors[feature][step] for feature in self._names()}
            frame["task"] = episode.task or self.facts.task
            frame |= layout
            if workspace is not None:
                frame["workspace_id"] = np.array([workspace], np.int64)
            if episode.met is not None:
                frame["next.success"] = np.array([episode.met[min(step + 1, length - 1)]])
            dataset.add_frame(frame)
        usual = dataset.meta.video_files_size_in_mb
        if begins_file:
            dataset.meta.update_chunk_settings(video_files_size_in_mb=NEW_FILE_MB)
        dataset.save_episode()
        if begins_file:
            dataset.meta.update_chunk_settings(video_files_size_in_mb=usual)


@contextmanager
def _quiet() -> Iterator[None]:
    """Progress bars of every episode and the encoder's own log go nowhere; errors are raised all the same."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        with open(os.devnull, "w") as sink, redirect_stderr(sink), warnings.catch_warnings():  # noqa: PTH123
            warnings.simplefilter("ignore")
            os.dup2(nowhere, 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
