"""`wm export-rollout`: a checkpoint's step as a file that another process opens, or one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch._inductor import config as inductor_config
from typer.testing import CliRunner

import wm
from ray_jobs.cli import app
from tests.wm.data import samples
from tests.wm.shortcut.test_runs import inputs, train
from wm.config.errors import UserError
from wm.shortcut.exported import ExportedRollout
from wm.types import ClipRef


def refused(*arguments: str) -> str:
    """The one line that the command ends with."""
    result = CliRunner().invoke(app, ["export-rollout", *arguments])
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


def test_an_exported_checkpoint_imagines_what_it_does(tmp_path: Path) -> None:
    """From raw actions on, and with the checkpoint's own statistics."""
    run, out = inputs(tmp_path, "teacher_forced"), tmp_path / "out" / "step.pt2"
    train(run)
    result = CliRunner().invoke(app, ["export-rollout", str(run.folder.path), "--out", str(out), "--batch", "2"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("program for cpu in fp32: 2 x 4 tokens of 16, actions of 10, K = 1, window 4\n")
    assert [*out.parent.iterdir()] == [out]
    model, rollout = wm.load(run.folder.path), ExportedRollout(out)
    about, statistics = rollout.about, model.statistics.action
    assert statistics is not None
    assert about["action"]["names"] == list(model.statistics.action_names)
    assert (about["frameskip"], about["commit"]) == (model.frameskip, model.facts["commit"])
    assert about["encoder"]["fingerprint"] == model.encoder.fingerprint
    assert about["frame_size"] == [samples.SIZE, samples.SIZE]
    batch = run.batch([ClipRef("wall", 0, 0, 5, 4), ClipRef("wall", 1, 3, 5, 4)])
    raw = torch.from_numpy(model.env_actions(batch.actions[:, :3].flatten(0, 1))).float().unflatten(0, (2, -1))
    torch.testing.assert_close(rollout.model_actions(raw), batch.actions[:, :3], rtol=0, atol=1e-4)
    seen = batch.obs.slice(slice(0, 2))
    expected = model.rollout(seen, batch.actions[:, :3])
    found = rollout.rollout(seen.visual, rollout.model_actions(raw))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_options_are_the_program_s(tmp_path: Path) -> None:
    run, out = inputs(tmp_path, "shortcut"), tmp_path / "step.pt2"
    train(run)
    line = refused(str(run.folder.path), "--out", str(out), "--steps", "3")
    assert line == "plan.sampling_steps: 3, expected a divisor of this model's k_max, 8"
    options = ["--out", str(out), "--steps", "1", "--precision", "bf16"]
    result = CliRunner().invoke(app, ["export-rollout", str(run.folder.path), *options])
    assert result.exit_code == 0, result.output
    rollout, model = ExportedRollout(out), wm.load(run.folder.path)
    assert (rollout.facts.sampling_steps, rollout.facts.ring_dtype, rollout.facts.noise_seed) == (1, "bfloat16", 0)
    batch = run.batch([ClipRef("wall", 0, 0, 5, 4)])
    with model.model.sampled_in(1):
        expected = model.rollout(batch.obs.slice(slice(0, 2)), batch.actions[:, :3])
    found = rollout.rollout(batch.obs.visual[:, :2], batch.actions[:, :3])
    assert ((found - expected).square().mean().sqrt() / expected.std()) < 0.03


def test_what_cannot_be_exported_gets_a_line(tmp_path: Path) -> None:
    out = str(tmp_path / "step.pt2")
    other = str(samples.trained("baseline").folder.path)
    line = refused(other, "--out", out)
    assert line == "model.kind is dino_wm, expected shortcut: it alone has a rollout step to export"
    run = inputs(tmp_path / "home", "teacher_forced")
    train(run)
    ours = str(run.folder.path)
    assert (
        refused(ours, "--out", str(tmp_path / "a.pt")) == f"--out: {tmp_path}/a.pt, expected a name that ends in .pt2"
    )
    assert refused(ours, "--out", out, "--batch", "0") == "--batch: 0 is too few; expected at least 1"
    assert "predicts a frame in one pass" in refused(ours, "--out", out, "--steps", "2")
    with inductor_config.patch({"cpp.cxx": ("no-such-compiler",)}):
        assert refused(ours, "--out", out, "--compile").startswith("--compile: no C++ compiler here")
    assert not Path(out).exists()
