"""A run that starts from another one's weights: what it takes over, what it must not change, what it refuses."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ray_jobs.make_data import make_wall
from tests.wm.data import samples
from tests.wm.data.samples import SIZE, encoder, same, user_error, wall_folder
from tests.wm.shortcut import test_runs as shortcut_runs
from tests.wm.test_precomputed_run import config as feature_config
from tests.wm.training.test_loop import assert_same_run, train_until
from wm.build import build_encoder, load
from wm.config.resolve import with_overrides
from wm.data.kept import unit_notes
from wm.data.normalization import DataStatistics, vector_statistics
from wm.training.checkpoint import find_checkpoint, load_checkpoint
from wm.training.reporter import NullReporter
from wm.training.start import open_start
from wm.training_run import RunClips, RunInputs

VARIANTS = {
    "align": {},
    "align_recon": {"train__ema_decay": 0.9},
    "shortcut": {"train__ema_decay": 0.9},
    "teacher_forced": {},
}


def old_run(root: Path, variant: str, **values: Any) -> RunInputs:
    """A finished run under `root`."""
    make = shortcut_runs.inputs if variant in shortcut_runs.VARIANTS else samples.inputs
    run = make(root, variant, **values)
    run.folder.finish({"history": samples.train(run), "time_s": 0.0})
    return run


@cache
def new_folder() -> Path:
    """Other episodes of the Wall world, in small rooms of their own: other statistics."""
    folder = wall_folder().parent / "new"
    make_wall(folder, episodes=8, steps=30, frame_size=SIZE, layout="random", policy="random", seed=7)
    return folder


def onward(old: RunInputs, **values: Any) -> RunInputs:
    """A run on the new episodes that starts from `old`."""
    data = old.config.data.model_dump(mode="json", exclude={"sources", "mixture", "primary"})
    source = {"kind": "dino_wm", "path": str(new_folder())}
    config = old.config.model_copy(
        update={"data": type(old.config.data).model_validate({**data, "sources": {"new": source}})}
    )
    given = {path.replace("__", "."): value for path, value in {"train__start": old.hash, **values}.items()}
    return RunInputs(with_overrides(config, given), old.root, encoder())


@cache
def finished() -> RunInputs:
    """Nobody may write there."""
    return old_run(samples._scratch() / "started", "align", train__ema_decay=0.9)


def copied(root: Path) -> RunInputs:
    """The same under a storage.root to write in."""
    old = finished()
    shutil.copytree(old.folder.path, root / "runs" / old.hash)
    return RunInputs(old.config, root, encoder())


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_begins_with_the_weights_that_planning_uses(variant: str, tmp_path: Path) -> None:
    """Averaged ones where there are some; with the old token statistics, a fresh optimiser and step 0, and so to the end."""
    old = old_run(tmp_path, variant, **VARIANTS[variant])
    new = onward(old)
    training = new.training(NullReporter(), new.local_batches)
    saved = load_checkpoint(find_checkpoint(old.folder.path))
    expected = saved.model if saved.ema is None else saved.ema
    assert (saved.ema is not None) == ("train__ema_decay" in VARIANTS[variant])
    assert same(dict(training.model.state_dict()), dict(expected))
    frozen = [name for name in expected if name.startswith("token_")]
    assert frozen
    own, kept = new.token_statistics()[0], expected[next(n for n in frozen if "mean" in n)]
    assert not torch.allclose(own, kept, rtol=1e-4)  # what it must not take instead
    history = training.run()
    assert [row["step"] for row in history][-1] == new.total_steps
    after = load_checkpoint(find_checkpoint(new.folder.path))
    assert all(same(after.weights[name], expected[name]) for name in frozen)
    assert any(not torch.equal(after.weights[name], expected[name]) for name in expected)
    assert after.facts["started_from"]["run"] == old.hash
    assert {state["step"].item() for state in after.optimizer["state"].values()} == {new.total_steps}


def test_new_episodes_are_read_in_the_old_units(tmp_path: Path) -> None:
    """In training, in the processes that read for Ray, and by what is loaded afterwards."""
    old = copied(tmp_path)
    new = onward(old)
    kept = old.dataset.statistics
    fresh = onward(old, train__start=None).dataset.statistics
    assert same(new.dataset.statistics.to_json(), kept.to_json())
    assert kept.action is not None
    assert fresh.action is not None
    assert not np.allclose(fresh.action.std, kept.action.std, rtol=0.02)
    elsewhere = RunClips(new.config, tmp_path, new.fingerprints)
    for clips in (new.clips, elsewhere):
        read = clips.read(2)
        for row, ref in zip(read["actions"], clips.schedule.shard(2, 0, 1), strict=True):
            raw = new.dataset.sources["new"].episode(ref.episode).actions
            assert raw is not None
            window = raw[ref.start : ref.start + ref.frameskip * ref.num_frames]
            expected = (window - kept.action.mean) / kept.action.std
            np.testing.assert_allclose(row.reshape(-1, kept.action.size), expected, rtol=1e-4, atol=1e-5)
    samples.train(new)
    shutil.rmtree(old.folder.path)  # what is trained needs it no more
    model = load(new.folder.path)
    assert same(model.statistics.to_json(), kept.to_json())
    actions = np.ones((2 * model.frameskip, 2)) * kept.action.mean
    assert torch.allclose(model.model_actions(actions), torch.zeros(2, model.model.action_dim), atol=1e-5)


def test_a_run_is_named_after_what_it_starts_from(tmp_path: Path) -> None:
    old = copied(tmp_path)
    names = [onward(old, train__start=start).hash for start in (None, old.hash, "0123456789ab")]
    assert len({*names, old.hash}) == 4


def test_interrupted_and_taken_up_it_is_the_same_run(tmp_path: Path) -> None:
    whole, cut = (onward(copied(tmp_path / name)) for name in "ab")
    samples.train(whole)
    for stop in (2, 5):
        train_until(cut, stop)
        torch.rand(stop)  # what another process would have drawn
    samples.train(cut)
    assert_same_run(whole, cut)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"model__history_len": 1}, ("model.history_len: 1, but run ", "has 2")),
        ({"model__predictor__depth": 2}, ("model.predictor.depth: 2", "has 1")),
        ({"model__proprio": "none"}, ("model.proprio.dim: no such setting", "has 32")),
        ({"data__clip__frameskip": 2}, ("data.clip.frameskip: 2", "has 5")),
        ({"train__start": "0123456789ab"}, ("train.start=0123456789ab: no such run under", "Valid: ")),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_model_is_refused(tmp_path: Path, change: dict[str, Any], parts: tuple[str, ...]) -> None:
    old = copied(tmp_path)
    run = onward(old, **change)
    for call in (run.check_start, lambda: run.training(NullReporter(), run.local_batches)):
        line = user_error(call)
        assert all(part in line for part in parts), line


def test_a_start_must_be_finished_and_have_this_encoder(tmp_path: Path) -> None:
    old = copied(tmp_path)
    new = onward(old)
    other = RunInputs(with_overrides(new.config, {"encoder.seed": 5}), tmp_path)
    assert other.encoder.fingerprint != encoder().fingerprint
    assert "encoder: 'tiny' here is" in user_error(other.check_start)
    (old.folder.path / "result.json").unlink()
    assert "not finished" in user_error(onward(old).check_start)
    assert "expected a run's 12 hex digits" in user_error(lambda: onward(old, train__start="wm_home/runs/abc"))


def test_the_averaged_weights_are_named_in_the_checkpoint() -> None:
    old = finished()
    manifest = json.loads((find_checkpoint(old.folder.path) / "checkpoint.json").read_text())
    facts = open_start(old.root, old.hash).facts
    assert facts == {"run": old.hash, "step": old.total_steps, "sha256": manifest["sha256"]["ema.safetensors"]}


@pytest.fixture(scope="module")
def robots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of three robots: `maze` and `later` have two action columns, `arm` has three; `later` knows no state."""
    root = tmp_path_factory.mktemp("robots")
    rng = np.random.default_rng(0)
    for name, size in {"maze": 2, "later": 2, "arm": 3}.items():
        arrays = {"actions": rng.normal(size=(8, 40, size)), "states": rng.normal(size=(8, 40, 2))}
        features = rng.normal(size=(8, 40, 6)).astype(np.float16)
        (root / "data" / name).mkdir(parents=True)
        np.savez(
            root / "data" / name / "features.npz",
            features=features,
            **{key: values.astype(np.float32) for key, values in arrays.items() if (name, key) != ("later", "states")},
        )
    return root


def robot_run(root: Path, *names: str, **values: Any) -> RunInputs:
    state = {"maze": ["x", "y"], "arm": ["x", "y"]}
    sources = {
        f"data__sources__{name}": {"kind": "precomputed", "path": name, "state_names": state.get(name, [])}
        for name in names
    }
    config = feature_config("baseline", **sources, **values)
    dropped = config.data.model_copy(update={"sources": {name: config.data.sources[name] for name in names}})
    config = config.model_copy(update={"data": dropped})
    return RunInputs(config, root, build_encoder(config.encoder))


def test_other_action_vectors_are_refused_by_name(robots: Path) -> None:
    old = robot_run(robots, "maze", "arm", data__primary="maze")
    old.folder.finish({"history": samples.train(old)})
    start = {"train__start": old.hash}
    line = user_error(robot_run(robots, "arm", **start).check_start)
    for part in ("data.sources.arm: its action (action_0, action_1, action_2)", "train.start", "(action_0, action_1)"):
        assert part in line, line
    assert "data.sources.arm: its action" in user_error(robot_run(robots, "arm", "later", **start).check_start)
    both = robot_run(
        robots, "maze", "arm", "later", data__primary="maze", **start
    )  # the arm has its own adapter already
    both.check_start()
    assert both.dataset.action_adapters == old.dataset.action_adapters
    alone = robot_run(robots, "later", **start)  # the adapter stays, unused
    alone.check_start()
    samples.train(alone)
    assert load(alone.folder.path).facts["action_adapters"] == old.dataset.action_adapters


def test_what_looks_like_other_units_is_said() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 2)).astype(np.float32)

    def statistics(values: np.ndarray) -> DataStatistics:
        return DataStatistics(vector_statistics([values]), None, None, action_names=("dx", "dy"))

    kept = statistics(rows)
    assert unit_notes(kept, statistics(rows * 3 + 1)) == []
    assert unit_notes(kept, statistics(rows * np.float32([1, 0]))) == []  # a joint that did not move
    for changed in (rows * np.float32([1, 57.3]), rows * np.float32([1, 0.05]), rows + np.float32([0, 9])):
        (line,) = unit_notes(kept, statistics(changed))
        assert "action (dy)" in line
