"""A thousand resets and ten thousand steps of every fast world: no memory is lost, and every picture is what it was at first."""

from __future__ import annotations

import gc
import os

import numpy as np
import psutil
import pytest

from wm.build import build_world
from wm.config.catalogue import config_of, world_kinds

FAST = ("wall", "linear", "pusht", "point_maze")
RESETS, STEPS_EACH = 1000, 10
WARM_UP = 200  # resets after which the memory is taken: caches and pools are full
CHECK_EVERY = 50  # resets between two looks at the reference pictures
MEASURE_EVERY = (
    200  # resets: a leak grows in each of these parts, what an earlier test of this process left behind in one
)
MOST_GROWTH = 2**20  # bytes in the part that grew least


def resident() -> int:
    gc.collect()
    return psutil.Process(os.getpid()).memory_info().rss


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in FAST if kind in world_kinds()])
def test_soak(kind: str, record_property: pytest.RecordProperty) -> None:
    world = build_world(config_of(world_kinds(), kind, {"frame_size": 64}, "world", "world"))
    rng = np.random.default_rng(0)
    layout = world.layout
    places = [world.sample_problem(rng)[0] for _ in range(4)]

    def pictures() -> list[np.ndarray]:
        world.set_layout(layout)
        seen = []
        for place in places:
            world.reset_to(place)
            seen.append(world.render())
        return seen

    first, sizes = pictures(), list[int]()
    assert all(frame.std() > 1 for frame in first)
    for reset in range(RESETS):
        if reset >= WARM_UP and reset % MEASURE_EVERY == 0:
            sizes.append(resident())
        world.set_layout(world.sample_layout(rng))
        world.reset_to(world.sample_problem(rng)[0])
        for _ in range(STEPS_EACH):
            assert np.isfinite(world.step(rng.uniform(world.action_low, world.action_high))).all()
        assert world.render().std() > 1
        if reset % CHECK_EVERY == 0:
            gc.collect()
            for frame, expected in zip(pictures(), first, strict=True):
                np.testing.assert_array_equal(frame, expected)
    sizes.append(resident())
    world.close()
    grown = np.diff(sizes)
    record_property("memory_growth_bytes", int(grown.sum()))
    parts = ", ".join(f"{part / 2**20:+.1f}" for part in grown)
    print(f"{kind}: {RESETS} resets, {RESETS * STEPS_EACH} steps, memory {parts} MiB in {MEASURE_EVERY} resets each")
    assert grown.min() < MOST_GROWTH
