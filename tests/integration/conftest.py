"""A small experiment: twelve Wall episodes, a few thousand parameters, every room real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

REPOSITORY = Path(__file__).parents[2]

SPEC = """
question: Does it run?
reference: baseline
runs:
  baseline: {model.variant: baseline}
  align_recon: {model.variant: align_recon, model.projection.dim: 16, model.alignment.dim: 4}
cases:
  wall:
    data.sources: {wall: {kind: dino_wm, path: wall}}
    data.clip.frameskip: 2
    plan.world: {kind: wall, frame_size: 28}
    model.history_len: 1
    model.proprio: none
seeds: [0]
config:
  encoder: {kind: tiny, image_size: 28, hidden_size: 16, depth: 1, heads: 2}
  model:
    action.dim: 4
    predictor: {depth: 1, heads: 2, head_dim: 8, mlp_dim: 32, dropout: 0.1}
  train: {batch_size: 8, epochs: 2, steps_per_epoch: 10, checkpoint_every_steps: 5}
  data.val_fraction: 0.25
  plan:
    planner: {kind: cem, horizon: 3, num_samples: 8, num_elites: 4, num_iterations: 2}
    max_iterations: 2
    episodes: 3
  evaluate: {horizons: [1, 3], clips: 16, probe_clips: 32, grid: {goal_horizons: [3]}}
compare: [align_recon - baseline]
metric: plan/success_rate_gh3
"""


def make_data(root: Path) -> None:
    """The data set of SPEC under a storage root."""
    from ray_jobs.make_data import make_wall

    make_wall(root / "data" / "wall", episodes=12, steps=40, frame_size=28)


@pytest.fixture
def small_spec(tmp_path: Path) -> Path:
    """SPEC as a file."""
    path = tmp_path / "small.yaml"
    path.write_text(SPEC, encoding="utf-8")
    return path


@pytest.fixture
def wm_command() -> Callable[..., subprocess.Popen[str]]:
    """Start `wm ...` with its own storage root, as a person does."""

    def start(root: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "ray_jobs.cli", *arguments],
            cwd=REPOSITORY,
            env={**os.environ, "WM_HOME": str(root), "COLUMNS": "200", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def finish(process: subprocess.Popen[str], timeout_s: float = 600) -> str:
    """Wait for a command; its output. Fails the test when it takes too long."""
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        pytest.fail(f"the command took more than {timeout_s} s:\n{output[-3000:]}")
    return output


def wait_until(condition: Callable[[], bool], timeout_s: float = 400) -> None:
    """Poll, or fail the test."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("what the test waits for did not come")
        time.sleep(0.05)


def children_named(process: subprocess.Popen[str], name: str) -> list[psutil.Process]:
    """Processes below `process` whose command line begins with `name`."""
    found: list[psutil.Process] = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if " ".join(child.cmdline()).startswith(name):
                found.append(child)
        except psutil.Error:  # it ended meanwhile
            continue
    return found
