"""Converting a data set: what decides the new one, and what one actor does with one episode."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ray_jobs.runtime.episodes import WRITERS, Failure
from wm.build import build_world
from wm.config.catalogue import config_of, source_kinds, world_kinds
from wm.config.errors import UserError
from wm.data.dataset import open_source
from wm.data.recorded import Recorded, SourceEpisodes
from wm.data.sources.file_source import FileSource
from wm.data.sources.robosuite_states import DemoStates
from wm.data.writers.robomimic import RobomimicWriter
from wm.data.writers.robomimic_hdf5 import RobomimicHdf5Writer
from wm.data.writers.staged import StagedEpisodes
from wm.data.writers.writer import DatasetFacts, Writer
from wm.envs.replay import Replayable, replay_episode
from wm.types import RecordedEpisode

LAYOUTS: dict[str, Callable[[Path, DatasetFacts], Writer]] = {
    **{name: WRITERS[name] for name in ("wall_single", "point_maze", "pusht_noise", "deformable", "lerobot")},
    "robomimic": RobomimicWriter,
    "robomimic_hdf5": RobomimicHdf5Writer,
}


class ConvertJob(NamedTuple):
    """All that decides the new data set; JSON all the way down.

    Args:
        path: of the old one.
        source: config of the old one.
        cameras: the first is the main one; none where a source has only one.
        size: shorter side of the frames in pixels; None keeps them.
        task: in words, instead of what the source says.
        keeps_states: whether the simulator's states and models go along.
        world: config of the world that draws what holds only simulator states; None elsewhere.
        layout: of LAYOUTS.
        out: the new one's folder.
    """

    path: str
    source: Mapping[str, Any]
    cameras: tuple[str, ...]
    size: int | None
    task: str | None
    keeps_states: bool
    world: Mapping[str, Any] | None
    layout: str
    facts: DatasetFacts
    out: str

    @property
    def most_draws(self) -> int:
        """An episode that cannot be read ends the job: there is no other to take its place."""
        return 1

    @property
    def worker(self) -> Callable[[], Converter]:
        """What converts."""
        return Converter

    @property
    def writer(self) -> Writer:
        """A new one."""
        return LAYOUTS[self.layout](Path(self.out), self.facts)

    def staged(self) -> StagedEpisodes:
        """What is converted so far."""
        return StagedEpisodes(Path(self.out), self.facts.episodes, self.writer.keeps_frames)


class Converter:
    """What an actor does; also usable in this process."""

    def __init__(self) -> None:
        self._job: ConvertJob | None = None
        self._opened: tuple[Recorded, Writer] | None = None

    def record(self, job: ConvertJob, index: int, failures: tuple[Failure, ...]) -> None:
        """Read or draw one episode and stage it. Raises UserError where the source is damaged."""
        del failures
        source, writer = self._parts(job)
        episode = source.recorded(index)
        shape = episode.frames.shape[1:3]
        if shape != job.facts.frame_shape:
            expected = " x ".join(map(str, job.facts.frame_shape))
            raise UserError(f"{source.id(index)}: frames are {shape[0]} x {shape[1]}, those before it {expected}")
        writer.write_frames(index, episode)
        record = {"episode": index, "id": source.id(index), "length": len(episode.frames), "tags": dict(episode.layout)}
        job.staged().save(index, episode, record)

    def _parts(self, job: ConvertJob) -> tuple[Recorded, Writer]:
        if self._opened is None or self._job != job:
            import torch

            torch.set_num_threads(1)
            self._opened, self._job = (open_recorded(job), job.writer), job
        return self._opened


class DrawnEpisodes:
    """Demonstrations of simulator states, drawn by the world they are of."""

    def __init__(self, demos: DemoStates, world: Mapping[str, Any], cameras: tuple[str, ...]) -> None:
        self.demos = demos
        self.cameras = cameras
        self._world_settings = world

    def id(self, index: int) -> str:
        """Of the demonstration."""
        return f"{self.demos.name}/{self.demos.demos[index]}"

    @cached_property
    def world(self) -> Replayable:
        """Built when it is first needed."""
        settings = dict(self._world_settings)
        config = config_of(world_kinds(), settings.pop("kind"), settings, "world", "env_args: unknown world")
        world = build_world(config)
        assert isinstance(world, Replayable)
        return world

    def recorded(self, index: int) -> RecordedEpisode:
        """Raises UserError for states that are not of the world, and for a camera that its model lacks."""
        demos = self.demos
        given = demos.states(index), demos.actions(index), demos.model_file(index)
        try:
            return replay_episode(self.world, *given, self.cameras, demos.tags[index])
        except ValueError as error:
            raise UserError(f"{demos.path}: {demos.demos[index]}: {error}") from error


def open_sources(path: Path, source: Mapping[str, Any], cameras: Sequence[str]) -> list[FileSource]:
    """The data set, opened for each camera. Raises UserError when it cannot be."""
    return [open_source(config, path.stem, path) for config in _configs(source, cameras)]


def open_recorded(job: ConvertJob) -> Recorded:
    """What the job reads from, or draws. Raises UserError when it cannot be opened."""
    path = Path(job.path)
    if job.world is not None:
        return DrawnEpisodes(open_demos(path, job.source), job.world, job.cameras)
    states = open_demos(path, job.source) if job.keeps_states else None
    return SourceEpisodes(open_sources(path, job.source, job.cameras), job.cameras, job.size, job.task, states)


def open_demos(path: Path, source: Mapping[str, Any]) -> DemoStates:
    """A file's simulator states. Raises UserError when it has none."""
    return DemoStates(_configs(source, ())[0], path.stem, path)


def _configs(source: Mapping[str, Any], cameras: Sequence[str]) -> list[Any]:
    given = [{"camera": camera} for camera in cameras] or [{}]
    kind, rest = source["kind"], {key: value for key, value in source.items() if key != "kind"}
    return [config_of(source_kinds(), kind, {**rest, **each}, "source", "kind: unknown source") for each in given]
