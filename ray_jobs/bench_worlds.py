"""How fast the worlds are on this machine: `wm bench worlds`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import ray
from rich.console import Console

from ray_jobs.runtime.cluster import cluster
from wm.build import EXPERTS, build_policy, build_world
from wm.config.catalogue import config_of, world_kinds
from wm.config.errors import UserError, nearest
from wm.config.worlds import WorldConfig
from wm.contracts import World
from wm.envs.demonstrations import record_episode

FRAME_SIZE = 224
EPISODE_STEPS = 50
PROCESSES = 2
MEASURABLE = tuple(kind for kind in world_kinds() if kind != "custom")  # which would need a class


class Speed(NamedTuple):
    """One world's figures.

    Args:
        steps_s: env steps a second with random actions, one process, nothing drawn.
        frames_s: frames of 224 x 224 a second, one process, a step between two.
        episodes_min: recorded episodes of 50 steps at 224 x 224 a minute, `processes` processes.
    """

    world: str
    steps_s: float
    frames_s: float
    episodes_min: float
    policy: str


def show(names: list[str], seconds: float, console: Console) -> None:
    """Measure the named worlds, or all, and print a line of each. Raises UserError for an unknown one."""
    for name in names:
        if name not in MEASURABLE:
            raise UserError(f"WORLDS: unknown world '{name}'.{nearest(name, MEASURABLE)}")
    if not (seconds > 0 and math.isfinite(seconds)):
        raise UserError(f"--seconds: {seconds:g} is not above 0")
    console.print(
        f"frames at {FRAME_SIZE}, episodes of {EPISODE_STEPS} steps with {PROCESSES} processes", highlight=False
    )
    _say(console, "world", ["steps/s", "frames/s", "episodes/min"], "policy of the episodes")
    with cluster(cpus=PROCESSES, gpus=0):
        for name in names or MEASURABLE:
            speed = measure(name, seconds)
            numbers = [f"{value:,.1f}" for value in (speed.steps_s, speed.frames_s, speed.episodes_min)]
            _say(console, name, numbers, speed.policy)  # one by one: a slow world must not hide the others


def _say(console: Console, world: str, numbers: list[str], policy: str) -> None:
    columns = "".join(f"{number:>14}" for number in numbers)
    console.print(f"{world:12}{columns}  {policy}", highlight=False)


def measure(name: str, seconds: float) -> Speed:
    """One world; a Ray cluster must be there. Processes of its own do the work, and end with it."""
    config, policy = _parts(name)
    with _processes(config, policy, PROCESSES) as actors:
        ray.get([actor.ready.remote() for actor in actors])
        steps_s: Any = ray.get(actors[0].steps_a_second.remote(seconds))
        frames_s: Any = ray.get(actors[0].frames_a_second.remote(seconds))
        return Speed(name, steps_s, frames_s, 60 * _pace(actors, seconds), policy)


def pace(name: str, seconds: float, processes: int) -> float:
    """Recorded episodes a second of some processes together; a Ray cluster must be there."""
    with _processes(*_parts(name), processes) as actors:
        ray.get([actor.ready.remote() for actor in actors])
        return _pace(actors, seconds)


def _pace(actors: list[Any], seconds: float) -> float:
    return sum(ray.get([actor.episodes_a_second.remote(seconds, seed) for seed, actor in enumerate(actors)]))


def _parts(name: str) -> tuple[WorldConfig, str]:
    config = config_of(world_kinds(), name, {"frame_size": FRAME_SIZE}, "world", "WORLDS: unknown world")
    return config, "expert" if name in EXPERTS else "random"


@contextmanager
def _processes(config: WorldConfig, policy: str, count: int) -> Iterator[list[Any]]:
    make: Any = ray.remote(Measured).options(num_cpus=1, scheduling_strategy="DEFAULT").remote
    actors = [make(config, policy) for _ in range(count)]
    try:
        yield actors
    finally:
        for actor in actors:
            ray.kill(actor)


class Measured:
    """A world in a process of its own."""

    def __init__(self, config: WorldConfig, policy: str) -> None:
        import torch

        torch.set_num_threads(1)
        self.world: World = build_world(config)
        self.policy = build_policy(policy, config)
        self.rng = np.random.default_rng(0)
        self.world.render()

    def ready(self) -> None:
        """Answers when the world is made."""

    def steps_a_second(self, seconds: float) -> float:
        """Random actions, from a problem's start."""
        return self._rate(seconds, draw=False)

    def frames_a_second(self, seconds: float) -> float:
        """A frame after every step; the time of the steps is in it."""
        return self._rate(seconds, draw=True)

    def episodes_a_second(self, seconds: float, seed: int) -> float:
        """Recorded as `wm data make` records them, not written; at least one."""
        began, done = time.perf_counter(), 0
        while done == 0 or time.perf_counter() - began < seconds:
            record_episode(self.world, self.policy, EPISODE_STEPS, seed, done)
            done += 1
        return done / (time.perf_counter() - began)

    def _rate(self, seconds: float, draw: bool) -> float:
        world = self.world
        world.reset_to(world.sample_problem(self.rng)[0])
        began, done = time.perf_counter(), 0
        while done == 0 or time.perf_counter() - began < seconds:
            world.step(self.rng.uniform(world.action_low, world.action_high))
            if draw:
                world.render()
            done += 1
        return done / (time.perf_counter() - began)
