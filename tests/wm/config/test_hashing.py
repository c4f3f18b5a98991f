"""What names a run, and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from wm.config.experiment import ExperimentConfig
from wm.config.hashing import eval_hash, problem_hash, train_hash
from wm.config.resolve import Layer, resolve

BASE = {"model.variant": "align", "data.sources.w.path": "x"}


def config_with(changes: dict[str, Any]) -> ExperimentConfig:
    return resolve([Layer.from_tree("base", BASE), Layer.from_tree("changes", changes)])


def trained(changes: dict[str, Any]) -> str:
    return train_hash(config_with(changes), "data", "encoder")


def planned(changes: dict[str, Any]) -> str:
    return eval_hash(config_with(changes), "trained")


def problems(changes: dict[str, Any]) -> str:
    return problem_hash(config_with(changes), "data", 5)


@pytest.mark.parametrize(
    "changes",
    [
        {"model.variant": "align_recon"},
        {"model.history_len": 2},
        {"model.alignment.weight.start": 0.5},
        {"model.predictor.dropout": 0.0},
        {"train.epochs": 3},
        {"train.optimizer.head_lr": 1e-3},
        {"train.ema_decay": 0.9},
        {"train.num_threads": 2},
        {"train.start": "0123456789ab"},
        {"seed": 1},
        {"data.clip.frameskip": 1},
        {"data.tokens": "online"},
        {"data.token_format": "int8"},
        {"resources.num_workers": 2},
        {"evaluate.horizons": [1]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_run_is_another_one(changes):
    assert trained(changes) != trained({})


def test_data_and_weights_count_by_their_fingerprints():
    config = config_with({})
    names = {train_hash(config, data, encoder) for data in ("a", "b") for encoder in ("a", "b")}
    assert len(names) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"plan.planner.kind": "mppi"},
        {"plan.episodes": 3},
        {"plan.world.kind": "linear"},
        {"evaluate.grid.goal_horizons": [3]},
        {"storage.root": "/elsewhere"},
        {"tracking.uri": "http://there"},
        {"data.sources.w.path": "/somewhere/else"},  # its fingerprint stands for it
        {"encoder.weights": "/a/folder"},
        {"resources": {"cpus_per_worker": 2.0, "runs_at_once": 3, "planning_actors": 7, "max_failures": 0}},
        {"train.checkpoint_every_steps": 7, "train.keep_checkpoints": 1},
        {"train.device": "cpu"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_run_is_the_same_one(changes):
    assert trained(changes) == trained({})


def test_every_resource_but_the_workers_changes_nothing():
    resources = type(config_with({}).resources)
    for name, info in resources.model_fields.items():
        if name == "autoscaling":
            assert trained({"resources.autoscaling": True, "resources.runs_at_once": 4}) == trained({})
        elif name != "num_workers":
            default = info.default
            value = 2 if default is None else 1 if 0 < default < 1 else default + 1  # a share is at most 1
            assert trained({f"resources.{name}": value}) == trained({}), name


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"plan.planner.kind": "mppi"}, False),
        ({"plan.planner.horizon": 6}, False),
        ({"plan.objective.base": 3.0}, False),
        ({"plan.max_iterations": 3}, False),
        ({"plan.seed": 3}, False),
        ({"plan.episodes": 3}, True),  # more problems extend an evaluation
        ({"storage.root": "/elsewhere"}, True),
        ({"train.epochs": 3}, True),  # that is what `trained` is for
    ],
)
def test_evaluations(changes, same):
    assert (planned(changes) == planned({})) is same
    assert eval_hash(config_with({}), "other") != planned({})


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"model.variant": "baseline"}, True),
        ({"plan.planner.kind": "mppi"}, True),
        ({"seed": 4}, True),
        ({"plan.seed": 4}, False),
        ({"plan.episodes": 4}, False),
        ({"plan.world.layout": "random"}, False),
        ({"plan.problems": "random"}, False),
        ({"data.clip.frameskip": 1}, False),
    ],
)
def test_problems_are_shared_by_variants_and_planners(changes, same):
    assert (problems(changes) == problems({})) is same
    assert problem_hash(config_with({}), "other", 5) != problems({})
    assert problem_hash(config_with({}), "data", 6) != problems({})


def test_hashes_are_short_and_stable_between_processes():
    assert len(trained({})) == len(planned({})) == 12
    assert int(trained({}), 16) >= 0
    assert train_hash(ExperimentConfig(), "data", "encoder") == train_hash(ExperimentConfig(), "data", "encoder")


def test_a_run_that_starts_anew_has_the_name_that_it_had_before_others_could_start_from_it():
    assert train_hash(ExperimentConfig(), "data", "encoder") == "25b084239a0d"
