"""`wm bench worlds`: every world that can be made by name, numbers that are rates, one line for a mistake."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from ray_jobs.bench_worlds import MEASURABLE, Measured, show
from tests.wm.data.samples import user_error
from wm.config.catalogue import world_kinds
from wm.config.worlds import LinearWorldConfig


def test_every_world_is_measured() -> None:
    assert {*MEASURABLE, "custom"} == set(world_kinds())


def test_rates_are_counts_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that ticks a tenth of a second a look."""
    import ray_jobs.bench_worlds as bench

    measured, ticks = Measured(LinearWorldConfig(frame_size=8), "expert"), iter(range(10**6))
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(ticks) / 10)
    for rate in (measured.steps_a_second(2.0), measured.frames_a_second(2.0), measured.episodes_a_second(2.0, 0)):
        assert rate == pytest.approx(10, rel=0.15)


def test_mistakes_get_one_line() -> None:
    console = Console(quiet=True)
    assert "Did you mean 'wall'?" in user_error(lambda: show(["wal"], 1.0, console))
    assert "--seconds" in user_error(lambda: show([], 0.0, console))
    assert "--seconds" in user_error(lambda: show([], float("nan"), console))


@pytest.mark.ray
@pytest.mark.slow
def test_the_table(ray_cluster: Any) -> None:
    page = io.StringIO()
    show(["linear"], 0.2, Console(file=page, width=120))
    (row,) = [line for line in page.getvalue().splitlines() if line.startswith("linear")]
    numbers = [float(cell.replace(",", "")) for cell in row.split()[1:4]]
    assert min(numbers) > 0
    assert numbers[0] > numbers[1]
