"""Whole runs of shortcut models: trained on clips with and without actions, resumed, read back, planned with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import wm
from tests.wm.data.samples import SIZE, same, user_error, wall_folder
from tests.wm.shortcut.small_runs import inputs
from wm import build
from wm.config import hashing, shortcut
from wm.config.data import DinoWmSourceConfig
from wm.config.shortcut import NETWORK
from wm.contracts import Reporter
from wm.data.dataset import open_source
from wm.interop.exporting import export_checkpoint
from wm.planning.anytime import at_iteration
from wm.shortcut.model import BackboneModel
from wm.training.checkpoint import find_checkpoint, load_checkpoint
from wm.training.reporter import ListReporter, NullReporter
from wm.training_run import RunInputs

VARIANTS = ("shortcut", "teacher_forced")


class Stop(Exception):
    """The process dies."""


class DiesAt(NullReporter):
    def __init__(self, step: int) -> None:
        self._step = step

    def report(self, step: int, *given: Any, **named: Any) -> None:
        if step >= self._step:
            raise Stop


def train(run: RunInputs, reporter: Reporter | None = None) -> list[dict[str, Any]]:
    return run.training(reporter or ListReporter(), run.local_batches).run()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_resumed_run_is_the_uninterrupted_one(variant: str, tmp_path: Path) -> None:
    """Weights, running scales, noise and labels: bit for bit."""
    whole, cut = inputs(tmp_path / "a", variant), inputs(tmp_path / "b", variant)
    history = train(whole)
    with pytest.raises(Stop):
        train(cut, DiesAt(3))
    assert same(train(cut), history)
    states = [load_checkpoint(find_checkpoint(run.folder.path)).model for run in (whole, cut)]
    assert same(dict(states[0]), dict(states[1]))
    assert {"token_mean", "token_std"} <= states[0].keys()
    metrics = history[-1]["metrics"]
    for name in ("val/labelled/copy_ratio_h1", "val/unlabelled/copy_ratio_h1", "train/forcing_loss"):
        assert np.isfinite(metrics[name]), name
    assert ("train/forcing_bootstrap" in metrics) == (variant == "shortcut")


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_checkpoint_plans(variant: str, tmp_path: Path) -> None:
    run = inputs(tmp_path, variant)
    train(run)
    model = wm.load(run.folder.path)
    network = model.model
    assert isinstance(network, BackboneModel)
    assert network.token_std.ne(1).all()
    frames = open_source(DinoWmSourceConfig(path="wall"), "wall", wall_folder()).episode(0).frames([0, 10])
    plan = wm.plan(model, frames[0], frames[1])
    assert plan.actions.shape == (2 * model.frameskip, 2)
    assert np.array_equal(plan.actions, wm.plan(wm.load(run.folder.path), frames[0], frames[1]).actions)
    z = model.rollout(model.observe(frames[0], None), torch.zeros(1, 3, network.action_dim))
    assert z.shape == (1, 3, network.tokens_per_frame, network.token_dim)


@pytest.mark.parametrize("trained", [NETWORK - 1, NETWORK + 1])
def test_weights_of_another_network_are_not_run_as_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: int
) -> None:
    """Not loaded, not started from, and trained again: the same config has another name."""
    with monkeypatch.context() as then:
        for module in (build, hashing, shortcut):
            then.setattr(module, "NETWORK", trained)
        old = inputs(tmp_path, "shortcut")
        old.folder.finish({"history": train(old)})
    new = inputs(tmp_path, "shortcut")
    assert new.hash != old.hash
    words = f"trained with network {trained}, and this version of wm computes network {NETWORK}"
    assert words in user_error(lambda: wm.load(old.folder.path))
    assert words in user_error(inputs(tmp_path, "shortcut", train__start=old.hash).check_start)


def test_the_reference_has_no_such_model(tmp_path: Path) -> None:
    run = inputs(tmp_path / "home", "shortcut")
    train(run)
    line = user_error(lambda: export_checkpoint(run.folder.path, tmp_path / "out"))
    assert "model.kind is shortcut; DINO-WM's own program knows dino_wm alone" in line
    assert not (tmp_path / "out").exists()


def test_sampling_steps_are_the_planners(tmp_path: Path) -> None:
    run = inputs(tmp_path, "shortcut")
    train(run)
    model = wm.load(run.folder.path)
    obs, actions = torch.zeros(1, 1, SIZE, SIZE, 3, dtype=torch.uint8), torch.ones(1, 2, model.model.action_dim)
    latent = model.dynamics.encode(wm.Observation(obs))
    found = {
        steps: model.planned_by(model.config.plan.model_copy(update={"sampling_steps": steps})).dynamics.rollout(
            latent, actions
        )
        for steps in (None, 1, 4, (1, 4))
    }
    assert torch.equal(found[None], found[4])
    assert not torch.allclose(found[1], found[4])
    assert torch.equal(found[1, 4], found[4])  # outside a search the last counts
    search = model.planned_by(model.config.plan.model_copy(update={"sampling_steps": (1, 4)})).dynamics
    for iteration, steps in enumerate((1, 4, 4)):
        assert torch.equal(at_iteration(search, iteration).rollout(latent, actions), found[steps])
    for wrong in (3, (1, 3, 4)):
        plan = model.config.plan.model_copy(update={"sampling_steps": wrong})
        assert "plan.sampling_steps: 3, expected a divisor of this model's k_max, 8" in user_error(
            lambda plan=plan: model.planned_by(plan)
        )


def test_a_model_of_one_pass_has_no_sampling_steps(tmp_path: Path) -> None:
    run = inputs(tmp_path, "teacher_forced")
    train(run)
    model = wm.load(run.folder.path)
    wrong = model.config.plan.model_copy(update={"sampling_steps": 2})
    assert "predicts a frame in one pass" in user_error(lambda: model.planned_by(wrong))


def test_clips_grow(tmp_path: Path) -> None:
    """Each stage has the beginnings of the clips that are due; no span of the stream holds two lengths; a resume finds its stage."""
    stages = [{"frames": 2, "until": 0.3}, {"frames": 3, "until": 0.6}]
    run, whole = inputs(tmp_path / "a", "shortcut", model__lengths=stages), inputs(tmp_path / "b", "shortcut")
    assert [run.clips.frames_at(step) for step in range(6)] == [2, 2, 3, 3, 4, 4]
    assert run.clips.stretches(1) == [(1, 2), (2, 4), (4, 6)]
    for step, frames in ((0, 2), (3, 3), (5, 4)):
        short, long = run.clips.read(step), whole.clips.read(step)
        assert np.array_equal(short["visual"], long["visual"][:, :frames])
        assert np.array_equal(short["seeds"], long["seeds"])
    assert run.clips.step_bytes(0) < run.clips.step_bytes(5)
    with pytest.raises(Stop):
        train(run, DiesAt(3))
    assert same(train(run), train(inputs(tmp_path / "c", "shortcut", model__lengths=stages)))


def test_every_clip_has_a_seed_of_its_own(tmp_path: Path) -> None:
    """The same for any number of workers, another at every step."""
    run = inputs(tmp_path, "shortcut")
    whole = run.clips.read(1)["seeds"]
    assert np.array_equal(whole[0::2], run.clips.read(1, 0, 2)["seeds"])
    assert np.array_equal(whole[1::2], run.clips.read(1, 1, 2)["seeds"])
    assert len({*whole.tolist(), *run.clips.read(2)["seeds"].tolist()}) == 8
