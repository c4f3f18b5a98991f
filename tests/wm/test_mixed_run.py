"""Runs on mixed data: labelled beside unlabelled clips in exact shares, and robots with other actions, each with its adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.wm.data.samples import inputs, same, train, user_error, wall_folder
from tests.wm.test_precomputed_run import config as small
from wm.build import build_dataset, build_model, load, model_facts
from wm.config.data import DataConfig, DinoWmSourceConfig
from wm.config.experiment import ExperimentConfig
from wm.data.dataset import Dataset
from wm.data.normalization import DataStatistics
from wm.interop.exporting import export_checkpoint
from wm.interop.importing import import_checkpoint
from wm.models.embedding import VectorEmbedding
from wm.training.checkpoint import find_checkpoint, load_checkpoint
from wm.training.reporter import ListReporter
from wm.training_run import RunInputs
from wm.types import ClipRef

FRAMESKIP = 2
SOURCES = {
    "arm": {"kind": "precomputed", "path": "arm", "action_names": ["a", "b", "c"], "state_names": ["u", "v", "w"]},
    "maze": {"kind": "precomputed", "path": "maze", "state_names": ["x", "y"]},
    "video": {"kind": "precomputed", "path": "video", "labels": "none"},
}
EVEN = {"arm": {"start": 1}, "maze": {"start": 1}, "video": {"start": 2}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Points that move by 0.3 M a, seen through one rotation: the maze and the video with M = 1, the arm with a (2, 3) M."""
    root = tmp_path_factory.mktemp("root")
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(2, 6))
    for name, moves in {
        "maze": np.eye(2),
        "video": np.eye(2),
        "arm": np.array([[0.0, 1.0, 0.5], [-1.0, 0.0, 0.5]]),
    }.items():
        actions = rng.normal(size=(12, 40, moves.shape[1])).astype(np.float32)
        steps = 0.3 * actions @ moves.T
        points = np.cumsum(steps, axis=1) - steps
        states = points if name != "arm" else np.concatenate([points, points[..., :1]], axis=-1)
        (root / "data" / name).mkdir(parents=True)
        np.savez(
            root / "data" / name / "features.npz",
            features=(points @ seen).astype(np.float16),
            states=states.astype(np.float32),
            actions=3 * actions + 1,  # raw units of its own: normalised apart
        )
    return root


def config(**values: Any) -> ExperimentConfig:
    sources = {f"data__sources__{name}": source for name, source in SOURCES.items()}
    return small("baseline", **{**sources, "data__primary": "maze", "data__mixture__weights": EVEN, **values})


@pytest.fixture(scope="module")
def trained(root: Path) -> RunInputs:
    run = RunInputs(config(), root)
    run.training(ListReporter(), run.local_batches).run()
    return run


def test_every_robot_is_learnt_through_its_adapter(trained: RunInputs) -> None:
    """With actions the next frame is known; without them it is a guess, no better than the last frame."""
    metrics = trained.folder.history()[-1]["metrics"]
    assert metrics["val/labelled/copy_ratio_h1"] < 0.2
    assert metrics["val/unlabelled/copy_ratio_h1"] > 0.8
    model = load(trained.folder.path).model
    for name in ("arm", "maze"):
        held_out = [index for source, index in trained.dataset.held_out_episodes() if source == name]
        batch = trained.batch([ClipRef(name, index, start, FRAMESKIP, 2) for index in held_out for start in range(30)])
        content = model.encode_content(batch.obs)
        predicted = model.rollout(content[:, :1], batch.actions[:, :1], batch.has_actions)[:, 0]
        error, copied = ((frame - content[:, 1]).square().mean() for frame in (predicted, content[:, 0]))
        assert error < 0.2 * copied, name


def test_a_row_fills_the_columns_of_its_own_adapter(trained: RunInputs) -> None:
    refs = [ClipRef(name, 0, 4, FRAMESKIP, 2) for name in ("maze", "arm", "video")]
    batch = trained.batch(refs)
    assert batch.has_actions.tolist() == [True, True, False]
    assert batch.has_state.tolist() == [True, False, False]  # the arm's is another vector
    assert batch.actions.shape == (3, 2, 2 * FRAMESKIP + 1 + 3 * FRAMESKIP)
    maze, arm, video = batch.actions
    assert maze[:, :4].all()
    assert not maze[:, 4:].any()
    assert not arm[:, :4].any()
    assert (arm[:, 4] == 1).all()
    assert arm[:, 5:].all()
    assert not video.any()
    dataset = trained.dataset
    for name, found in (("maze", maze[:, :4]), ("arm", arm[:, 5:])):
        train = [dataset.sources[name].episode(i).actions for i in dataset.split[name][0]]
        rows = np.concatenate([values for values in train if values is not None]).astype(np.float64)
        raw = dataset.sources[name].episode(0).actions
        assert raw is not None
        normal = (raw[4:8] - rows.mean(axis=0)) / rows.std(axis=0, ddof=1)
        np.testing.assert_allclose(found.reshape(4, -1), normal, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_rebuilds_its_adapters_and_plans_with_the_primary(trained: RunInputs) -> None:
    model = load(trained.folder.path)
    assert model.facts["action_dim"] == model.dynamics.action_dim == 2 * FRAMESKIP
    assert model.facts["action_adapters"] == {"arm": 3 * FRAMESKIP}
    assert [*model.statistics.adapters["arm"].names] == ["a", "b", "c"]
    assert model.statistics.action_names == ("action_0", "action_1")
    assert DataStatistics.from_json(model.statistics.to_json()).to_json() == model.statistics.to_json()
    batch = trained.batch([ClipRef("maze", 0, 4, FRAMESKIP, 3)])
    raw = trained.dataset.sources["maze"].episode(0).actions
    assert raw is not None
    planned = model.model_actions(raw[4:8])[None]
    assert planned.shape == (1, 2, 4)
    content = model.dynamics.encode(batch.obs.slice(slice(1)))
    torch.testing.assert_close(
        model.dynamics.rollout(content, planned), model.model.rollout(content, batch.actions[:, :2])
    )


def test_an_export_holds_the_adapters(trained: RunInputs, tmp_path: Path) -> None:
    export_checkpoint(trained.folder.path, tmp_path / "out")
    back = load_checkpoint(import_checkpoint(tmp_path / "out", tmp_path / "back").path)
    assert same(back.weights, load_checkpoint(find_checkpoint(trained.folder.path)).weights)


def test_without_another_robot_the_model_is_the_same_one(root: Path, trained: RunInputs) -> None:
    """The same names and first weights; an adapter adds its own and changes no other."""
    alone = RunInputs(small("baseline", data__sources__maze=SOURCES["maze"]), root)
    facts = model_facts(alone.config, alone.dataset, alone.encoder)
    assert "action_adapters" not in facts
    assert "adapters" not in facts["statistics"]
    before = dict(build_model(alone.config, facts).state_dict())
    with_arm = build_model(config(), model_facts(trained.config, trained.dataset, trained.encoder)).state_dict()
    added = with_arm.keys() - before.keys()
    assert added == {"action_embedding.adapters.of_arm.weight"}
    assert same(before, {name: with_arm[name] for name in before})


def test_adapters_are_linear_maps_of_their_own() -> None:
    embedding = VectorEmbedding(2, 3, adapters={"b": 1, "a": 2, "keys": 1})
    values = torch.zeros(4, 1, 2 + 3 + 2 + 2)
    values[0, 0, :2] = torch.tensor([1.0, 2.0])
    values[1, 0, 2:5] = torch.tensor([1.0, 3.0, 4.0])  # a
    values[2, 0, 5:7] = torch.tensor([1.0, 5.0])  # b
    found = embedding(values, torch.tensor([True, True, True, False]))[:, 0]
    own, bias = embedding.linear, embedding.linear.bias
    weight_a, weight_b = (embedding.adapters[f"of_{name}"].weight for name in "ab")
    torch.testing.assert_close(found[0], own(values[0, 0, :2]))
    torch.testing.assert_close(found[1], bias + weight_a[:, 0] + weight_a[:, 1:] @ torch.tensor([3.0, 4.0]))
    torch.testing.assert_close(found[2], bias + weight_b[:, 0] + weight_b[:, 1] * 5)
    torch.testing.assert_close(found[3], embedding.null)
    with pytest.raises(RuntimeError, match="split_with_sizes"):
        embedding(values[..., :-1])


def test_the_primary_is_the_first_with_actions_unless_it_is_named(root: Path) -> None:
    def opened(**values: Any) -> Dataset:
        given = config(**values)
        return build_dataset(given, root, "")

    named, first = opened(), opened(data__primary=None)
    assert (named.labels.actions, named.labels.state) == (("maze",), ("maze",))
    assert (first.labels.actions, first.labels.state) == (("arm",), ("arm",))
    assert first.action_dim == 3 * FRAMESKIP
    assert first.action_adapters == {"maze": 2 * FRAMESKIP}
    assert {name for name, _ in named.planned_episodes()} == {"maze"}
    adapted, unused = named.labels.notes
    for part in ("data.sources.arm", "action (a, b, c)", "maze (action_0, action_1)", "adapter of its own"):
        assert part in adapted
    for part in ("data.sources.arm", "state (u, v, w)", "maze (x, y)", "not used"):
        assert part in unused
    assert "data.primary: 'video' has no actions" in user_error(lambda: opened(data__primary="video").statistics)
    assert "primary: no source is named 'mase'. Did you mean 'maze'?" in user_error(
        lambda: opened(data__primary="mase")
    )
    assert RunInputs(config(data__primary=None), root).hash != RunInputs(config(), root).hash


def test_groups_are_what_their_names_say(root: Path) -> None:
    def run(labelled: list[str], unlabelled: list[str]) -> RunInputs:
        groups = {"labelled": labelled, "unlabelled": unlabelled}
        sources = {f"data__sources__{name}": source for name, source in SOURCES.items()}
        return RunInputs(small("baseline", **sources, data__mixture__groups=groups), root)

    run(["maze", "arm"], ["video"])
    message = user_error(lambda: run(["maze"], ["arm", "video"]))
    assert "data.mixture.groups.unlabelled: 'arm' has actions; data.sources.arm.labels=none hides them" in message


def test_frames_of_several_sizes_need_a_store(tmp_path: Path) -> None:
    from ray_jobs.make_data import make_wall

    make_wall(tmp_path / "data" / "small", episodes=4, steps=40, frame_size=14)
    sources = {
        "small": DinoWmSourceConfig(path="small", labels="none"),
        "wall": DinoWmSourceConfig(path=str(wall_folder())),
    }
    reader = Dataset(DataConfig(sources=sources), tmp_path, None).reader
    refs = [ClipRef(name, 0, 0, 5, 2) for name in sources]
    message = user_error(lambda: reader.read(refs))
    for part in ("small 14 x 14 x 3", "wall 28 x 28 x 3", "data.tokens=store"):
        assert part in message


# -- nineteen unlabelled clips to one ----

NINETEEN = {"groups": {"labelled": ["wall"], "unlabelled": ["video"]}}


def test_one_clip_of_twenty_has_labels_in_every_batch(tmp_path: Path) -> None:
    video = {"data__sources__video": {"path": str(wall_folder()), "labels": "none"}}
    steps = {"train__batch_size": 20, "train__steps_per_epoch": 4, "train__epochs": 1}
    run = inputs(tmp_path, "align", **video, **steps, data__mixture=NINETEEN, evaluate__clips=3)
    for step, batch in enumerate(run.local_batches(0)):
        assert batch.has_actions.tolist().count(True) == batch.has_state.tolist().count(True) == 1
        ranks = [run.clips.read(step, rank, 2)["has_actions"].sum() for rank in range(2)]
        assert ranks == ([1, 0] if step % 2 == 0 else [0, 1])
    reporter = ListReporter()
    train(run, reporter)
    metrics = run.folder.history()[-1]["metrics"]
    for kind in ("", "labelled/", "unlabelled/"):
        for horizon in (1, 3):
            assert np.isfinite(metrics[f"val/{kind}z_visual_err_rollout_h{horizon}"])
    labelled, unlabelled, both = (
        metrics[f"val/{kind}z_visual_err_rollout_h1"] for kind in ("labelled/", "unlabelled/", "")
    )
    assert labelled != unlabelled
    assert both == pytest.approx((labelled + unlabelled) / 2)  # as many clips of each kind
    assert np.isfinite(metrics["val/state_probe_r2"])
    validator = run.validator()
    assert validator.held_out.has_actions.tolist() == [True] * 3 + [False] * 3
    assert validator.probe.has_state.all()


def test_a_mixed_run_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    video = {"data__sources__video": {"path": str(wall_folder()), "labels": "none"}}
    weights = {"wall": {"kind": "linear", "start": 1, "end": 5}, "video": {"start": 3}}
    values = {**video, "data__mixture__weights": weights, "train__checkpoint_every_steps": 2}
    whole, stopped = (inputs(tmp_path / name, **values) for name in ("whole", "stopped"))
    train(whole)

    def until(start: int) -> Any:
        for step, batch in enumerate(stopped.local_batches(start), start=start):
            if step == 5:
                raise KeyboardInterrupt
            yield batch

    with pytest.raises(KeyboardInterrupt):
        stopped.training(ListReporter(), until).run()
    train(stopped)
    first, second = (load(run.folder.path).model.state_dict() for run in (whole, stopped))
    assert same(dict(first), dict(second))
