"""Recording demonstrations of a world: what decides them, and what one actor does."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ray_jobs.runtime.episodes import WRITERS, Failure, draw_of
from wm.build import build_policy, build_world
from wm.config.catalogue import policy_kinds, world_kinds
from wm.contracts import Policy, World
from wm.data.writers.staged import StagedEpisodes
from wm.data.writers.writer import DatasetFacts, Writer
from wm.envs.demonstrations import record_episode

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
    def most_draws(self) -> int:
        """Of an episode whose world fails."""
        return MOST_DRAWS

    @property
    def worker(self) -> Callable[[], Recorder]:
        """What records."""
        return Recorder

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
