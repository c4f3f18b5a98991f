"""Episodes recorded on parallel actors, each staged when it is done.

An actor that dies takes at most the episode it was on. That episode is begun again, once from the same numbers; then, as when
its world fails or hangs, from others: draw number episode + k * episodes of the seed, so that the data set does not depend on
how many actors there are.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayActorError, RayTaskError, WorkerCrashedError

from wm.build import build_policy, build_world
from wm.config.catalogue import policy_kinds, world_kinds
from wm.config.errors import UserError
from wm.contracts import Policy, World
from wm.data.writers.deformable import DeformableWriter
from wm.data.writers.lerobot import LerobotWriter
from wm.data.writers.point_maze import PointMazeWriter
from wm.data.writers.pusht_noise import PushTWriter
from wm.data.writers.robosuite_hdf5 import RobosuiteWriter
from wm.data.writers.staged import StagedEpisodes
from wm.data.writers.wall_single import WallWriter
from wm.data.writers.writer import DatasetFacts, Writer
from wm.envs.demonstrations import record_episode

WRITERS: dict[str, Callable[[Path, DatasetFacts], Writer]] = {
    "wall_single": WallWriter,
    "pusht_noise": PushTWriter,
    "point_maze": PointMazeWriter,
    "deformable": DeformableWriter,
    "robosuite": RobosuiteWriter,
    "lerobot": LerobotWriter,
}
EPISODE_TIMEOUT_S = 1800.0
_DEATHS = 2  # of an actor on the same draw
MOST_DRAWS = 10  # for one episode


class RecordJob(NamedTuple):
    """All that decides a data set; JSON all the way down.

    Args:
        world, policy: configs.
        out: the data set's folder.
    """

    world: Mapping[str, Any]
    policy: Mapping[str, Any]
    format: str
    steps: int
    seed: int
    facts: DatasetFacts
    out: str

    @property
    def writer(self) -> Writer:
        """A new one."""
        return WRITERS[self.format](Path(self.out), self.facts)

    def staged(self) -> StagedEpisodes:
        """What is recorded so far."""
        return StagedEpisodes(Path(self.out), self.facts.episodes, self.writer.keeps_frames)

    def world_config(self) -> Any:
        """The config that `world` is."""
        return world_kinds()[self.world["kind"]].model_validate_json(json.dumps(dict(self.world)))

    def policy_config(self) -> Any:
        """The config that `policy` is."""
        return policy_kinds()[self.policy["kind"]].model_validate_json(json.dumps(dict(self.policy)))


class Failure(NamedTuple):
    """A draw that did not become an episode."""

    draw: int
    reason: str


class Recorder:
    """What an actor does; also usable in this process."""

    def __init__(self) -> None:
        self._job: RecordJob | None = None
        self._built: tuple[World, Policy, Writer] | None = None

    def record(self, job: RecordJob, index: int, failures: tuple[Failure, ...]) -> None:
        """Record one episode and stage it. Whatever the world raises comes out, and the next episode gets a new world."""
        world, policy, writer = self._parts(job)
        draw = draw_of(job, index, len(failures))
        try:
            episode = record_episode(world, policy, job.steps, job.seed, draw, all_cameras=writer.keeps_frames)
        except Exception:
            self._built = None
            raise
        record = {
            "episode": index,
            "draw": draw,
            "success": episode.success,
            "final_success": episode.final_success,
            "goal": None if episode.goal is None else episode.goal.tolist(),
            "layout": dict(episode.layout),
        }
        if failures:
            record["failures"] = [failure._asdict() for failure in failures]
        writer.write_frames(index, episode)
        job.staged().save(index, episode, record)

    def _parts(self, job: RecordJob) -> tuple[World, Policy, Writer]:
        if self._built is None or self._job != job:
            import torch

            torch.set_num_threads(1)
            config = job.world_config()
            self._built = build_world(config), build_policy(job.policy_config(), config), job.writer
            self._job = job
        return self._built


def draw_of(job: RecordJob, index: int, num_failures: int) -> int:
    """Which draw of the seed an episode is, when some failed before it."""
    return index + num_failures * job.facts.episodes


def record_here(job: RecordJob, waiting: list[int], done: Callable[[int], None], limit_s: float = float("inf")) -> None:
    """Record episodes in this process, until so much time has gone; a world that fails costs a draw, one that dies the job."""
    recorder, began = Recorder(), time.monotonic()
    for index in waiting:
        failures: tuple[Failure, ...] = ()
        while True:
            try:
                recorder.record(job, index, failures)
                break
            except (UserError, OSError):
                raise
            except Exception as error:  # a simulator may fail in any way
                failures = _one_more(job, index, failures, _line(error))
        done(index)
        if time.monotonic() - began > limit_s:
            return


def record_on_actors(
    job: RecordJob,
    waiting: list[int],
    num_actors: int,
    done: Callable[[int], None],
    timeout_s: float = EPISODE_TIMEOUT_S,
) -> None:
    """Record episodes on actors of one CPU each; `done` hears of each as it is staged."""
    make: Callable[[], Any] = ray.remote(Recorder).options(num_cpus=1, scheduling_strategy="DEFAULT").remote
    queue: deque[tuple[int, tuple[Failure, ...], int]] = deque((index, (), 1) for index in waiting)
    actors = [make() for _ in range(min(num_actors, len(waiting)))]
    busy: dict[Any, tuple[int, tuple[int, tuple[Failure, ...], int], float]] = {}
    try:
        while queue or busy:
            working = {number for number, *_ in busy.values()}
            for number, actor in enumerate(actors):
                if number not in working and queue:
                    work = queue.popleft()
                    busy[actor.record.remote(job, *work[:2])] = (number, work, time.monotonic())
            ready, _ = ray.wait(list(busy), timeout=1.0)
            for reference in ready:
                number, (index, failures, life), _ = busy.pop(reference)
                try:
                    ray.get(reference)
                    done(index)
                except (RayActorError, WorkerCrashedError) as error:
                    actors[number] = make()
                    if life < _DEATHS:
                        queue.appendleft((index, failures, life + 1))
                    else:
                        reason = f"its process died {_DEATHS} times: {_line(error)}"
                        queue.appendleft((index, _one_more(job, index, failures, reason), 1))
                except RayTaskError as error:
                    if isinstance(error.cause, UserError | OSError):  # no other draw would mend these
                        raise error.cause from None
                    failed = _one_more(job, index, failures, _line(error.cause or error))
                    queue.appendleft((index, failed, 1))
            for reference, (number, (index, failures, _), began) in list(busy.items()):
                if time.monotonic() - began > timeout_s:
                    del busy[reference]
                    ray.kill(actors[number])
                    actors[number] = make()
                    queue.append((index, _one_more(job, index, failures, f"took more than {timeout_s:g} s"), 1))
    finally:
        for actor in actors:
            ray.kill(actor)


def _one_more(job: RecordJob, index: int, failures: tuple[Failure, ...], reason: str) -> tuple[Failure, ...]:
    found = (*failures, Failure(draw_of(job, index, len(failures)), reason))
    if len(found) >= MOST_DRAWS:
        raise UserError(f"episode {index}: failed {len(found)} times, at last: {reason}")
    return found


def _line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[-1].strip()[:200]}" if text else type(error).__name__
