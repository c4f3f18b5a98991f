"""What a client is told to send follows from the checkpoint and from how it plans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ray_jobs.serve import plan_config
from tests.wm.data.samples import SIZE, inputs, train, trained, user_error, wall_dataset, wall_folder
from tests.wm.serving.client import opened
from wm.build import load
from wm.config.data import DinoWmSourceConfig
from wm.config.encoder import PrecomputedEncoderConfig
from wm.config.errors import UserError
from wm.data.sources.wall_single import WallSingleSource
from wm.encoders.precomputed import PrecomputedEncoder
from wm.loaded import LoadedModel
from wm.serving.interface import Interface, interface_of
from wm.serving.schema import interface_schema
from wm.serving.service import PlanService
from wm.training.checkpoint import find_checkpoint


def interface(*overrides: str, model: LoadedModel | None = None, variant: str = "baseline") -> Interface:
    checkpoint = find_checkpoint(trained(variant).folder.path)
    return interface_of(model or load(checkpoint), plan_config(checkpoint, overrides), 2, 2)


def test_the_frame_size_is_the_datas() -> None:
    model = load(trained("baseline").folder.path)
    assert model.facts["frame_size"] == [SIZE, SIZE]
    assert interface("plan.world.frame_size=96", model=model).frame_size == (SIZE, SIZE)


def test_an_older_checkpoint_has_its_worlds() -> None:
    model = load(trained("baseline").folder.path)
    older = replace(model, facts={key: value for key, value in model.facts.items() if key != "frame_size"})
    assert interface(model=older).frame_size == (SIZE, SIZE)
    assert interface("plan.world.frame_size=96", model=older).frame_size == (96, 96)
    config = plan_config(find_checkpoint(trained("baseline").folder.path), ())
    grid = config.evaluate.grid.model_copy(update={"goal_horizons": ()})
    unplanned = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"grid": grid})})
    silent = interface_of(older, unplanned, 2, 2)
    assert silent.frame_size is None
    schema = interface_schema(silent)
    assert schema["frame"]["height"] is None
    assert "at most 4096 a side" in schema["request"]["properties"]["start"]["description"]


def test_the_goals_proprio_is_needed_where_it_counts() -> None:
    assert not interface().needs_goal_proprio
    weighed = interface("plan.objective.alpha=0.5")
    assert weighed.needs_goal_proprio
    assert interface_schema(weighed)["request"]["required"] == ["start", "goal", "proprio", "goal_proprio"]


def test_a_joint_projection_and_no_proprio(tmp_path: Path) -> None:
    joint = inputs(tmp_path, "align", model__projection__of="joint", train__epochs=1)
    train(joint)
    assert opened(path=joint.folder.path).service.interface.needs_goal_proprio
    blind = inputs(tmp_path, "baseline", model__proprio="none", train__epochs=1)
    train(blind)
    found = opened(path=blind.folder.path).service.interface
    assert (found.proprio_names, found.needs_goal_proprio) == ((), False)


def test_how_much_is_executed() -> None:
    assert opened().service.interface.execute_steps == 2
    assert opened("plan.execute_steps=1").service.interface.num_executed == 5
    gradient = opened("plan.planner={kind: gradient, num_iterations: 2}").service.interface
    assert (gradient.planner, gradient.horizon, gradient.execute_steps) == ("gradient", 2, 1)


def test_a_model_without_actions_is_refused() -> None:
    model = load(trained("baseline").folder.path)
    unlabelled = replace(model, statistics=replace(model.statistics, action=None))
    assert "cannot plan" in user_error(lambda: interface(model=unlabelled))


def test_an_encoder_that_sees_no_frames_is_refused() -> None:
    service = opened().service
    encoder = PrecomputedEncoder(PrecomputedEncoderConfig(provenance="theirs", dim=16))
    blind = PlanService(replace(service.model, encoder=encoder), service.planner, service.objective, service.interface)
    assert "no new frame can be encoded" in user_error(blind.check)
    service.check()


def test_frames_of_two_sizes_or_gone_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wall_dataset().frame_size == (SIZE, SIZE)
    sizes = iter([(1, SIZE, SIZE, 3), (1, SIZE, 40, 3)])
    monkeypatch.setattr(WallSingleSource, "frames", lambda *given: np.zeros(next(sizes), np.uint8))
    here = DinoWmSourceConfig(path=str(wall_folder()))
    there = here.model_copy(update={"tags": {"wall_x": (0.0, 64.0)}})
    assert wall_dataset(sources={"here": here, "there": there}).frame_size is None

    def gone(*given: object) -> None:
        raise UserError("no such file")

    monkeypatch.setattr(WallSingleSource, "frames", gone)
    assert wall_dataset().frame_size is None
