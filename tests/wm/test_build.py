"""What is loaded is what was trained, with nothing drawn anew."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from tests.wm.data.samples import SIZE, config, inputs, refusal, same, trained, user_error, wall_folder, wall_source
from wm.build import build_dataset, build_encoder, build_model, build_world, load, plan
from wm.build_planning import build_planner
from wm.config.catalogue import world_kinds
from wm.config.encoder import TinyEncoderConfig
from wm.config.plan import PlannerConfig
from wm.contracts import Encoder, Planner, World
from wm.training.checkpoint import find_checkpoint, load_checkpoint
from wm.training.reporter import NullReporter

PLAN = """
import sys
import numpy as np, torch
torch.manual_seed(1234)  # another process has drawn other numbers
import wm
folder, frames, out = sys.argv[1:]
torch.set_num_threads(1)
start, goal = np.load(frames)
np.save(out, wm.plan(wm.load(folder), start, goal, proprio=np.zeros(2), goal_proprio=np.ones(2), seed=3).actions)
"""


@pytest.mark.parametrize("kind", get_args(get_args(PlannerConfig)[0]))
def test_every_planner_config_has_its_planner(kind: type) -> None:
    planner = build_planner(kind(horizon=3), load(trained("baseline").folder.path))
    assert isinstance(planner, Planner)
    assert planner.horizon == 3


@pytest.mark.parametrize("kind", [kind for kind in world_kinds() if kind != "custom"])
def test_every_world_config_has_its_world(kind: str) -> None:
    world = build_world(world_kinds()[kind](frame_size=28))  # type: ignore[arg-type,call-arg]
    assert isinstance(world, World)
    assert world.name == kind
    world.close()


def test_the_tiny_encoder_is_an_encoder_with_a_fingerprint_of_its_own() -> None:
    small = {"image_size": 28, "hidden_size": 16, "depth": 1, "heads": 2}
    first, again = (build_encoder(TinyEncoderConfig(**small)) for _ in range(2))
    assert isinstance(first, Encoder)
    assert first.fingerprint == again.fingerprint
    for change in ({"seed": 1}, {"depth": 2}, {"image_size": 42}):
        assert build_encoder(TinyEncoderConfig(**{**small, **change})).fingerprint != first.fingerprint


def test_only_an_encoder_that_looks_back_has_a_store_per_frameskip(tmp_path: Path) -> None:
    """Else frameskips would share tokens of other windows, or every encoder be stored once for each."""

    def folder(mode: str, frameskip: int) -> Path:
        path = {"data__sources__wall__path": str(wall_folder()), "data__clip__frameskip": frameskip}
        given = config(**path, encoder={"kind": "vjepa2", "mode": mode}, data__tokens="store")
        return build_dataset(given, tmp_path, "f").stores["wall"].folder

    assert folder("frame", 1) == folder("frame", 5)
    assert folder("video", 1) != folder("video", 5)


def test_a_plan_is_the_same_in_a_fresh_process(tmp_path: Path) -> None:
    """Same checkpoint, same frames, same seed: the same actions, bit for bit."""
    folder = trained("align_recon").folder.path
    frames = wall_source().episode(0).frames([0, 10])
    np.save(tmp_path / "frames.npy", frames)
    here = plan(load(folder), *frames, proprio=np.zeros(2), goal_proprio=np.ones(2), seed=3)
    arguments = [sys.executable, "-c", PLAN, str(folder), str(tmp_path / "frames.npy"), str(tmp_path / "out.npy")]
    subprocess.run(arguments, check=True, timeout=100)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), here.actions)
    assert here.actions.shape == (10, 2)
    again = plan(load(folder), *frames, proprio=np.zeros(2), goal_proprio=np.ones(2), seed=4)
    assert not np.array_equal(again.actions, here.actions)


def test_align_recon_keeps_and_loads_every_learned_part() -> None:
    """The public implementation drew its projection and heads anew, or never trained them."""
    run = trained("align_recon")
    checkpoint = load_checkpoint(find_checkpoint(run.folder.path))
    fresh = build_model(run.config, checkpoint.facts).state_dict()
    for part in ("projection", "alignment_head", "reconstruction_head", "predictor", "action_embedding"):
        names = [name for name in checkpoint.model if name.startswith(f"{part}.") and not name.endswith(".null")]
        assert names, part
        assert not any(torch.equal(checkpoint.model[name], fresh[name]) for name in names), part  # all were trained
    torch.manual_seed(99)
    loaded = load(run.folder.path)
    assert same(dict(loaded.model.state_dict()), checkpoint.model)
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert loaded.config == run.config
    assert loaded.statistics.to_json() == run.dataset.statistics.to_json()


def test_the_average_is_loaded_when_there_is_one(tmp_path: Path) -> None:
    run = inputs(tmp_path, "align", train__ema_decay=0.5)
    run.training(NullReporter(), run.local_batches).run()
    checkpoint = load_checkpoint(find_checkpoint(run.folder.path))
    loaded = dict(load(run.folder.path).model.state_dict())
    assert same(loaded, checkpoint.ema)
    assert not same(loaded, checkpoint.model)


def test_loading_needs_no_data(tmp_path: Path) -> None:
    shutil.copytree(trained("align").folder.path, tmp_path / "moved")
    moved, original = load(tmp_path / "moved"), load(str(trained("align").folder.path))
    assert same(dict(moved.model.state_dict()), dict(original.model.state_dict()))


def test_another_encoder_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(find_checkpoint(trained("align").folder.path), tmp_path / "step_00000006"))
    manifest = json.loads((folder / "checkpoint.json").read_text())
    manifest.pop("digest")
    manifest["facts"]["encoder_fingerprint"] = "0" * 16
    (folder / "checkpoint.json").write_text(json.dumps(manifest))
    message = user_error(lambda: load(folder))
    for part in (str(folder), "0" * 16, "tiny"):
        assert part in message


def test_a_damaged_or_missing_run_is_refused(tmp_path: Path) -> None:
    assert str(tmp_path) in user_error(lambda: load(tmp_path))
    folder = Path(shutil.copytree(find_checkpoint(trained("align").folder.path), tmp_path / "step_00000006"))
    (folder / "model.safetensors").write_bytes(b"")
    assert "model.safetensors" in user_error(lambda: load(folder))


def test_the_seed_decides_the_weights() -> None:
    facts = load_checkpoint(find_checkpoint(trained("align").folder.path)).facts
    torch.manual_seed(5)
    first = build_model(config("align"), facts).state_dict()
    after = torch.rand(3)
    second = build_model(config("align"), facts).state_dict()
    assert same(dict(first), dict(second))
    assert torch.equal(torch.rand(3), after)
    assert not same(dict(first), dict(build_model(config("align", seed=1), facts).state_dict()))


def test_a_data_set_without_actions_is_refused() -> None:
    facts = load_checkpoint(find_checkpoint(trained("align").folder.path)).facts
    assert "no source has actions" in user_error(lambda: build_model(config("align"), {**facts, "action_dim": 0}))


def test_a_plan_without_the_proprioception_it_depends_on_is_refused() -> None:
    """Left out, it would be another latent, and the plan a worse one that nobody explains."""
    model = load(trained("baseline").folder.path)
    frame, proprio = np.zeros((SIZE, SIZE, 3), np.uint8), np.zeros(2)
    message = user_error(lambda: plan(model, frame, frame, goal_proprio=proprio))
    assert message == "proprio: must be given; raw: x, y"
    counts = model.config.plan.objective.alpha > 0
    assert (refusal(lambda: plan(model, frame, frame, proprio=proprio)) is not None) == counts
