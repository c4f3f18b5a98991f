"""Episodes worked on in this process or on parallel actors, each staged when it is done.

An actor that dies takes at most the episode it was on. That episode is begun again, once from the same numbers; then, as when
its world fails or hangs, from others, where a job has others: draw number episode + k * episodes of the seed, so that the data set
does not depend on how many actors there are.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import ray
from ray.exceptions import RayActorError, RayTaskError, WorkerCrashedError

from wm.config.errors import UserError
from wm.data.writers.deformable import DeformableWriter
from wm.data.writers.lerobot import LerobotWriter
from wm.data.writers.point_maze import PointMazeWriter
from wm.data.writers.pusht_noise import PushTWriter
from wm.data.writers.robosuite_hdf5 import RobosuiteWriter
from wm.data.writers.staged import StagedEpisodes
from wm.data.writers.wall_single import WallWriter
from wm.data.writers.writer import DatasetFacts, Writer

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


class Failure(NamedTuple):
    """A draw that did not become an episode."""

    draw: int
    reason: str


class Worker(Protocol):
    """What an actor does."""

    def record(self, job: Any, index: int, failures: tuple[Failure, ...]) -> None:
        """Write an episode's frames and stage it."""
        ...


class EpisodeJob(Protocol):
    """All that decides a data set; it travels to the actors."""

    @property
    def facts(self) -> DatasetFacts: ...

    @property
    def out(self) -> str:
        """The data set's folder."""
        ...

    @property
    def most_draws(self) -> int:
        """For one episode; with 1, the first failure ends the job."""
        ...

    @property
    def worker(self) -> Callable[[], Worker]:
        """A class; one instance works on many episodes."""
        ...

    @property
    def writer(self) -> Writer:
        """A new one."""
        ...

    def staged(self) -> StagedEpisodes:
        """What is there so far."""
        ...


def draw_of(job: EpisodeJob, index: int, num_failures: int) -> int:
    """Which draw of the seed an episode is, when some failed before it."""
    return index + num_failures * job.facts.episodes


def record_here(
    job: EpisodeJob, waiting: list[int], done: Callable[[int], None], limit_s: float = float("inf")
) -> None:
    """Record episodes in this process, until so much time has gone; a world that fails costs a draw, one that dies the job."""
    worker, began = job.worker(), time.monotonic()
    for index in waiting:
        failures: tuple[Failure, ...] = ()
        while True:
            try:
                worker.record(job, index, failures)
                break
            except (UserError, OSError):
                raise
            except Exception as error:  # a simulator may fail in any way
                failures = _one_more(job, index, failures, _line(error))
        done(index)
        if time.monotonic() - began > limit_s:
            return


def record_on_actors(
    job: EpisodeJob,
    waiting: list[int],
    num_actors: int,
    done: Callable[[int], None],
    timeout_s: float = EPISODE_TIMEOUT_S,
) -> None:
    """Record episodes on actors of one CPU each; `done` hears of each as it is staged."""
    make: Callable[[], Any] = ray.remote(job.worker).options(num_cpus=1, scheduling_strategy="DEFAULT").remote
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


def _one_more(job: EpisodeJob, index: int, failures: tuple[Failure, ...], reason: str) -> tuple[Failure, ...]:
    found = (*failures, Failure(draw_of(job, index, len(failures)), reason))
    if len(found) >= job.most_draws:
        often = "failed" if job.most_draws == 1 else f"failed {len(found)} times, at last"
        raise UserError(f"episode {index}: {often}: {reason}")
    return found


def _line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[-1].strip()[:200]}" if text else type(error).__name__
