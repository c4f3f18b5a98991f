"""The debug pass: every variant trains, validates and plans before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.spec import load_spec
from ray_jobs.runtime.debug import debug_pass
from ray_jobs.runtime.problems import ensure_problems
from ray_jobs.runtime.runs import open_runs
from tests.ray_jobs.conftest import GOALS
from wm.config.resolve import variant_names

SMALL = (
    *GOALS,
    "seeds=[0]",
    "compare=[]",
    "plan.episodes=1",
    "train.batch_size=4",
    "plan.world.frame_size=28",
    "data.tokens=online",
)


@pytest.mark.parametrize("more", [(), ("model.concat=token",), ("model.masking=tube", "train.rollout_horizon=1")])
def test_every_variant_passes(small_home: Path, more: tuple[str, ...]) -> None:
    spec, overrides = load_spec("variants", [*SMALL, *more, f"storage.root={small_home}"])
    runs = open_runs(spec, overrides)
    assert sorted(run.config.model.variant for run in runs) == variant_names("dino_wm")
    for run in runs:
        ensure_problems(run)
        assert debug_pass(run) == []


def test_shortcut_models_pass(small_home: Path) -> None:
    spec, overrides = load_spec("shortcut", [*SMALL, "data.sources.video.path=wall", f"storage.root={small_home}"])
    runs = open_runs(spec, overrides)
    assert sorted(run.config.model.variant for run in runs) == ["baseline", *variant_names("shortcut")]
    for run in runs:
        ensure_problems(run)
        assert debug_pass(run) == []


def test_a_likely_mistake_is_said(small_home: Path) -> None:
    spec, overrides = load_spec("variants", [*SMALL, f"storage.root={small_home}"])
    changed = spec.model_copy(update={"runs": {"align": {**spec.runs["align"], "model.alignment.kind": "infonce"}}})
    (run,) = open_runs(changed, overrides)
    ensure_problems(run)
    assert any("neg_l2 keeps it" in text for text in debug_pass(run))
