"""What a run's record says of its data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.spec import load_spec
from experiments.tracking import Tracker
from ray_jobs.runtime.recording import FAULTY, Recorder
from ray_jobs.runtime.runs import Run, open_runs
from tests.ray_jobs.conftest import GOALS
from tests.wm.data.damage import cut
from tests.wm.data.samples import user_error


def opened(root: Path, *arguments: str) -> tuple[Any, list[Run]]:
    spec, overrides = load_spec(root / "small.yaml", [*GOALS, *arguments, f"storage.root={root}"])
    return spec, open_runs(spec, overrides)


@pytest.mark.slow
def test_episodes_that_are_left_out_are_listed_in_every_run(small_home: Path) -> None:
    (folder,) = (path.parent for path in small_home.glob("data/*/states.pth"))
    cut("obses/episode_004.pth", 0.5)(folder)
    spec, runs = opened(small_home, "data.max_faulty=0.1")
    tracker = Tracker(runs[0].config.tracking, small_home, "faults")
    recorder = Recorder(tracker, spec, runs)
    found = tracker.client.get_run(recorder.child(runs[0]).run_id)
    assert found.data.tags["wm.faulty_episodes"] == "1"
    file = tracker.client.download_artifacts(found.info.run_id, FAULTY, str(small_home))
    (listed,) = json.loads(Path(file).read_text())
    assert (listed["episode"], "episode_004.pth" in listed["reason"]) == (4, True)
    assert "data.max_faulty, now 0.05" in user_error(lambda: opened(small_home, "data.max_faulty=0.05"))
