"""What a dry run says, from timings that are known."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from ray_jobs import dry_run
from ray_jobs.dry_run import CLUSTER_IMPORTS, TRIAL_IMPORTS, estimate_sweep
from ray_jobs.runtime.placement import Node, place
from ray_jobs.runtime.probe import Timings, measure
from ray_jobs.runtime.searched import Searched
from tests.ray_jobs.conftest import open_small
from wm.config.errors import UserError

TIMINGS = Timings(
    import_s=4.0, setup_s=1.0, step_s=0.1, validate_s=2.0, problem_s=3.0, encode_frame_s=0.0, checkpoint_bytes=1e6
)
LENGTHS = ("train.epochs=4", "train.steps_per_epoch=50", "sweep.num_trials=8")


@pytest.fixture
def opened(small_home: Path) -> Callable[..., Searched]:
    return lambda *arguments: open_small(small_home, *LENGTHS, *arguments)


def test_the_estimate_is_the_sum_of_its_parts(opened: Callable[..., Searched]) -> None:
    searched = opened("sweep.pruning.kind=none", "sweep.fresh_seeds=0", "sweep.num_seeds=2")
    placement = place(searched.base.config.resources, [Node(2)], 8)
    estimate = estimate_sweep(searched, placement, TIMINGS, 8, 2.0)
    train = 1.0 + 200 * 0.1 + 4 * 2.0
    trial = TRIAL_IMPORTS * 4.0 * 2 + 2 * train + 4.0 + 2 * 3 * 3.0
    assert estimate.trial_s == pytest.approx(trial)
    frames = 12 * 41  # none is encoded yet; here that costs one process's start
    assert estimate.seconds == estimate.longest_s == pytest.approx(4.0 * (2 + CLUSTER_IMPORTS) + 8 * trial / 2)
    grid, dim = searched.base.inputs.encoder.grid, searched.base.inputs.encoder.dim
    checkpoints = 8 * 2 * searched.base.config.train.keep_checkpoints * 1e6
    per_frame = grid[0] * grid[1] * dim * 2
    assert (estimate.disk_bytes - checkpoints) / per_frame == pytest.approx(frames, abs=12)


def test_pruning_and_confirmation_enter_the_estimate(opened: Callable[..., Searched]) -> None:
    placement = place(opened().base.config.resources, [Node(2)], 8)
    pruned = estimate_sweep(opened("sweep.fresh_seeds=0"), placement, TIMINGS, 8, 2.0)
    assert pruned.seconds < pruned.longest_s
    confirmed = estimate_sweep(opened("sweep.fresh_seeds=2"), placement, TIMINGS, 8, 2.0)
    assert confirmed.seconds - pruned.seconds == pytest.approx(confirmed.confirmation_s)
    # One trial has nobody to be worse than.
    alone = estimate_sweep(opened("sweep.fresh_seeds=0"), placement, TIMINGS, 1, 2.0)
    assert alone.seconds == alone.longest_s


def shown(searched: Searched, monkeypatch: pytest.MonkeyPatch, timings: Timings = TIMINGS) -> str:
    monkeypatch.setattr(dry_run, "probe", lambda config, problems, at_once: timings)
    out = io.StringIO()
    dry_run.dry_run(searched, Console(file=out, width=200))
    return out.getvalue()


def test_it_says_what_would_happen_and_leaves_no_study(
    opened: Callable[..., Searched], small_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = opened("sweep.num_startup_trials=3", "sweep.num_seeds=2")
    text = shown(searched, monkeypatch)
    assert not (small_home / "optuna.db").is_file()
    for words in (
        "8, 0 finished, 8 to run; 2 training seeds",
        "0.96 CPUs",
        "at once",
        "if none is stopped early",
        "MB more",
    ):
        assert words in text
    proposals = [line for line in text.splitlines() if line.strip()[:2] in ("0:", "1:", "2:", "3:", "4:")]
    assert len(proposals) == 5
    assert ["results will move it" in line for line in proposals] == [False, False, False, True, True]
    told = json.loads((searched.folder / "estimate.json").read_text())
    assert told["trials"] == 8
    assert told["seconds"] > 0
    # The first proposals are those that the sweep will make.
    study = searched.study()
    for line in proposals[:3]:
        params = study.propose().params
        assert f"model.alignment.dim={params['model.alignment.dim']}" in line


def test_a_disk_that_is_too_small_is_said_before_the_work(
    opened: Callable[..., Searched], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"GB needed, .* free"):
        shown(opened("sweep.seed=5"), monkeypatch, TIMINGS._replace(checkpoint_bytes=1e15))


def test_the_parts_can_be_measured(opened: Callable[..., Searched]) -> None:
    import time

    from ray_jobs.runtime.problems import ensure_problems, problems_file

    searched = opened("sweep.seed=6")
    ensure_problems(searched.base)
    found = measure(searched.base.config.model_dump_json(), str(problems_file(searched.base, 5)), time.time())
    timings = Timings(**found)
    assert timings.encode_frame_s > 0  # nothing is encoded yet
    assert min(timings.step_s, timings.validate_s, timings.problem_s, timings.setup_s) > 0
    assert timings.checkpoint_bytes > 1e4
