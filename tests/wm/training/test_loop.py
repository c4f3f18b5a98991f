"""The life of a run: interrupted or not, it is the same run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.wm.data.samples import inputs, same, train, user_error
from wm.config.train import OptimizerConfig
from wm.models.world_model import WorldModel
from wm.training.checkpoint import Checkpoint, find_checkpoint, list_checkpoints, load_checkpoint
from wm.training.ema import WeightAverage
from wm.training.loop import Training
from wm.training.optimizer import RATE_OF_PART, build_optimizer
from wm.training.reporter import ListReporter, NullReporter
from wm.training_run import RunInputs
from wm.types import Batch

# Dropout, an average and a rollout loss: each has state or randomness that a resume could lose.
HARD = {"train__ema_decay": 0.9, "train__rollout_horizon": 2, "train__checkpoint_every_steps": 2}
TOTAL = 6


class Interrupted(Exception):
    pass


def hard_run(root: Path, **values: Any) -> RunInputs:
    return inputs(root, "align_recon", **{**HARD, **values})


def newest(run: RunInputs) -> Checkpoint:
    return load_checkpoint(list_checkpoints(run.folder.checkpoints)[-1])


def train_until(run: RunInputs, step: int) -> None:
    """Die while the batch after `step` is fetched."""

    def batches(start: int) -> Iterator[Batch]:
        for number, batch in enumerate(run.local_batches(start), start):
            if number == step:
                raise Interrupted
            yield batch

    with pytest.raises(Interrupted):
        run.training(NullReporter(), batches).run()


def assert_same_run(first: RunInputs, second: RunInputs) -> None:
    a, b = newest(first), newest(second)
    for name in ("step", "model", "ema", "rng", "history", "facts"):
        assert same(getattr(a, name), getattr(b, name)), name
    assert same(a.optimizer["state"], b.optimizer["state"])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> RunInputs:
    run = hard_run(tmp_path_factory.mktemp("uninterrupted"))
    assert run.total_steps == TOTAL
    train(run)
    return run


@pytest.mark.parametrize("every", [1, 2, 3, 5])
def test_an_interrupted_run_is_the_uninterrupted_one(uninterrupted: RunInputs, tmp_path: Path, every: int) -> None:
    """Stopped after every k steps, wherever the last checkpoint lies, and taken up by new objects each time."""
    run = hard_run(tmp_path, train__checkpoint_every_steps=min(every, 2))
    for stop in range(every, TOTAL, every):
        train_until(hard_run(tmp_path, train__checkpoint_every_steps=min(every, 2)), stop)
        torch.manual_seed(stop)  # what another process would have drawn
        torch.rand(stop)
    assert run.training(NullReporter(), run.local_batches).run()
    a, b = newest(uninterrupted), newest(run)
    for name in ("step", "model", "ema", "rng"):
        assert same(getattr(a, name), getattr(b, name)), name
    assert same(a.optimizer["state"], b.optimizer["state"])
    if every > 1:  # a row falls on every checkpoint, so other checkpoints mean other rows
        assert same(a.history, b.history)


def test_training_changes_weights_and_uses_dropout(uninterrupted: RunInputs, tmp_path: Path) -> None:
    checkpoint = newest(uninterrupted)
    fresh = uninterrupted.training(NullReporter(), uninterrupted.local_batches, keep_checkpoints=False).model
    unmoved = [name for name, value in fresh.state_dict().items() if torch.equal(value, checkpoint.model[name])]
    # Every row has labels, so the null vectors never enter a loss; the mean token is a constant. All other parts must move.
    assert unmoved == ["token_center.mean", "proprio_embedding.null", "action_embedding.null"]
    dry = hard_run(tmp_path, model__predictor__dropout=0.0)
    train(dry)
    assert not same(newest(dry).model, checkpoint.model)


def test_a_complete_run_is_not_trained_again(uninterrupted: RunInputs) -> None:
    def none(start: int) -> Iterator[Batch]:
        raise AssertionError("no batch is needed")

    before = newest(uninterrupted)
    assert uninterrupted.training(NullReporter(), none).run() == before.history


def test_the_same_seed_is_the_same_run(uninterrupted: RunInputs, tmp_path: Path) -> None:
    again, other = hard_run(tmp_path / "again"), hard_run(tmp_path / "other", seed=1)
    train(again)
    train(other)
    assert_same_run(uninterrupted, again)
    assert other.hash != again.hash
    assert not same(newest(other).model, newest(again).model)


def test_rows_and_reports(uninterrupted: RunInputs) -> None:
    run, reporter = uninterrupted, ListReporter()
    history = newest(run).history
    assert [row["step"] for row in history] == [2, 3, 4, 6]
    assert [row["epoch"] for row in history] == [0, 1, 1, 2]
    validated = [row["step"] for row in history if "val/copy_ratio_h1" in row["metrics"]]
    assert validated == [3, 6]
    for row in history:
        for name in ("loss", "z_loss", "rollout_loss", "alignment_loss", "reconstruction_loss"):
            assert row["metrics"][f"train/{name}"] > 0
    run.training(reporter, run.local_batches, keep_checkpoints=False).run()
    assert [report[0] for report in reporter.reports] == [2, 3, 4, 6]
    assert all(checkpoint is None for *_, checkpoint in reporter.reports)
    assert reporter.reports[-1][1]["train/steps_per_s"] > 0


def test_a_row_is_the_mean_of_its_steps(tmp_path: Path) -> None:
    one, three = ListReporter(), ListReporter()
    for reporter, every in ((one, 1), (three, 3)):
        run = inputs(tmp_path / str(every), train__checkpoint_every_steps=every)
        run.training(reporter, run.local_batches).run()
    losses = [metrics["train/loss"] for _, metrics, _ in one.reports]
    assert len(losses) == TOTAL
    assert three.reports[0][1]["train/loss"] == pytest.approx(sum(losses[:3]) / 3, rel=1e-6)
    assert one.reports[2][2] is not None
    assert one.reports[2][2].name == "step_00000003"


def test_a_damaged_newest_checkpoint_falls_back(uninterrupted: RunInputs, tmp_path: Path) -> None:
    run = hard_run(tmp_path)
    train_until(run, 5)
    older, damaged = list_checkpoints(run.folder.checkpoints)
    assert (older.name, damaged.name) == ("step_00000003", "step_00000004")
    (damaged / "model.safetensors").write_bytes(b"damaged")
    train(run)
    assert_same_run(uninterrupted, run)


def test_nothing_whole_left_is_an_error_not_a_new_run(tmp_path: Path) -> None:
    run = hard_run(tmp_path)
    train_until(run, 5)
    for path in list_checkpoints(run.folder.checkpoints):
        (path / "model.safetensors").write_bytes(b"damaged")
    assert "model.safetensors" in user_error(lambda: train(run))


def test_checkpoints_of_another_run_are_refused(uninterrupted: RunInputs, tmp_path: Path) -> None:
    run = hard_run(tmp_path, seed=7)
    training = run.training(NullReporter(), run.local_batches)
    stranger = replace(training, folder=uninterrupted.folder.checkpoints)
    assert "another run" in user_error(stranger.run)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_the_step(tmp_path: Path, bad: float) -> None:
    run = inputs(tmp_path)

    def batches(start: int) -> Iterator[Batch]:
        for number, batch in enumerate(run.local_batches(start)):
            if number == 4:
                batch.obs.visual[0] = bad
            yield batch

    message = user_error(run.training(NullReporter(), batches).run)
    assert "step 6" in message  # the row that holds it
    assert [path.name for path in list_checkpoints(run.folder.checkpoints)] == ["step_00000003"]


def test_a_stream_that_ends_early_is_an_error(tmp_path: Path) -> None:
    run = inputs(tmp_path)
    with pytest.raises(RuntimeError, match="step 2 of 6"):
        run.training(NullReporter(), lambda start: iter(list(run.local_batches(start))[:2])).run()


def test_only_the_main_rank_writes(tmp_path: Path) -> None:
    run = inputs(tmp_path)
    reporter = ListReporter()
    history = run.training(reporter, run.local_batches, is_main=False).run()
    assert not run.folder.checkpoints.exists()
    assert all(checkpoint is None for *_, checkpoint in reporter.reports)
    assert not any(name.startswith("val/") for row in history for name in row["metrics"])


def test_the_average_is_what_is_validated_and_planned_with(tmp_path: Path) -> None:
    run = inputs(tmp_path, train__ema_decay=0.5)
    seen: list[dict[str, torch.Tensor]] = []

    def validate(model: WorldModel) -> dict[str, float]:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {}

    replace(run.training(NullReporter(), run.local_batches), validate=validate, best_metric=None).run()
    checkpoint = newest(run)
    assert checkpoint.ema is not None
    assert not same(checkpoint.ema, checkpoint.model)
    assert same(seen[-1], checkpoint.ema)
    assert same(checkpoint.weights, checkpoint.ema)


def test_gradients_are_clipped_to_the_norm(tmp_path: Path) -> None:
    free, clipped = (
        inputs(tmp_path / str(norm), train__optimizer__grad_clip_norm=norm, train__epochs=1, train__steps_per_epoch=1)
        for norm in (None, 1e-3)
    )
    moments = []
    for run in (free, clipped):
        train(run)
        entries = newest(run).optimizer["state"].values()
        moments.append(sum(float(entry["exp_avg"].square().sum()) for entry in entries) ** 0.5)
    assert moments[1] == pytest.approx(0.1 * 1e-3, rel=1e-3)  # (1 - beta_1) times the clipped gradient
    assert moments[0] > 10 * moments[1]


def test_batches_follow_the_schedule_from_the_resumed_step(tmp_path: Path) -> None:
    run, asked = hard_run(tmp_path), []
    train_until(run, 5)

    def batches(start: int) -> Iterator[Batch]:
        asked.append(start)
        return run.local_batches(start)

    run.training(NullReporter(), batches).run()
    assert asked == [4]


class Average(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0]))
        self.register_buffer("count", torch.tensor(0))


def test_average_has_its_closed_form() -> None:
    model = Average()
    average, decay, start = WeightAverage(model, 0.75), 0.75, 1.0
    for step in range(1, 5):
        with torch.no_grad():
            model.weight.fill_(float(step))
        model.count.fill_(step)  # type: ignore[operator]
        average.update(model)
    expected = decay**4 * start + (1 - decay) * sum(decay ** (4 - k) * k for k in range(1, 5))
    assert float(average.shadow["weight"]) == pytest.approx(expected, rel=1e-6)
    assert int(average.shadow["count"]) == 4  # what is not a float is taken over
    other = WeightAverage(Average(), 0.75)
    other.load(average.shadow)
    assert same(other.shadow, average.shadow)
    assert other.shadow["weight"] is not average.shadow["weight"]


def test_every_parameter_is_in_one_group_at_its_rate(tmp_path: Path) -> None:
    run = hard_run(tmp_path)
    model = run.training(NullReporter(), run.local_batches, keep_checkpoints=False).model
    config = OptimizerConfig(predictor_lr=1e-3, embedding_lr=2e-3, head_lr=3e-3, weight_decay=0.05)
    optimizer = build_optimizer(model, config)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(rates)
    expected = {"predictor": 1e-3, "action_embedding": 2e-3, "proprio_embedding": 2e-3}
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == expected.get(name.split(".")[0], 3e-3), name
    assert {group["name"] for group in optimizer.param_groups} == {
        name.split(".")[0] for name, _ in model.named_parameters()
    }
    assert {group["name"] for group in optimizer.param_groups} <= set(RATE_OF_PART)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.05}


def test_the_decoder_is_trained_by_adam() -> None:
    """Rate of its own and no weight decay: AdamW without decay is Adam."""
    model = nn.ModuleDict({"decoder": nn.Linear(2, 2), "predictor": nn.Linear(2, 2)})
    groups = {group["name"]: group for group in build_optimizer(model, OptimizerConfig(weight_decay=0.1)).param_groups}
    assert (groups["decoder"]["lr"], groups["decoder"]["weight_decay"]) == (3e-4, 0.0)
    assert (groups["predictor"]["lr"], groups["predictor"]["weight_decay"]) == (5e-4, 0.1)


def test_a_part_without_a_rate_is_an_error() -> None:
    with pytest.raises(ValueError, match="no optimiser group"):
        build_optimizer(nn.ModuleDict({"new_part": nn.Linear(2, 2)}), OptimizerConfig())


def test_training_without_a_folder_starts_anew(tmp_path: Path) -> None:
    run = inputs(tmp_path)
    train(run)
    training: Training = run.training(NullReporter(), run.local_batches, keep_checkpoints=False)
    assert [row["step"] for row in training.run()] == [3, 6]
    assert training.elapsed_s > 0


def test_rates_follow_their_schedule(tmp_path: Path) -> None:
    schedule = {"train__optimizer__schedule": {"kind": "linear", "start": 1.0, "end": 0.0}}
    run = inputs(tmp_path, **schedule, train__optimizer__predictor_lr=1e-3, train__optimizer__embedding_lr=2e-3)
    train_until(run, 5)  # the newest checkpoint is of step 3: its last step began at progress 2 / 6
    rates = {group["name"]: group["lr"] for group in newest(run).optimizer["param_groups"]}
    assert rates["predictor"] == pytest.approx(1e-3 * 4 / 6)
    assert rates["action_embedding"] == pytest.approx(2e-3 * 4 / 6)
    train(run)
    whole = inputs(tmp_path / "whole", **schedule, **{
        "train__optimizer__predictor_lr": 1e-3, "train__optimizer__embedding_lr": 2e-3
    })  # fmt: skip
    train(whole)
    assert_same_run(whole, run)


def test_the_best_validated_step_is_kept(tmp_path: Path) -> None:
    """Worst at the end: the best one outlives the newest two, also through an interruption."""
    values = iter([3.0, 1.0, 2.0, 4.0, 5.0])
    run = inputs(tmp_path, train__epochs=5, train__steps_per_epoch=1, train__best_metric="val/x")

    def training(batches: Any) -> Training:
        return replace(run.training(NullReporter(), batches), validate=lambda model: {"val/x": next(values)})

    with pytest.raises(RuntimeError, match="step 3 of 5"):
        training(lambda start: iter(list(run.local_batches(start))[:3])).run()
    training(run.local_batches).run()
    assert [path.name[-1] for path in list_checkpoints(run.folder.checkpoints)] == ["2", "4", "5"]
    best = find_checkpoint(run.folder.path, "best")
    assert best.name == "step_00000002"
    assert load_checkpoint(best).step == 2


def test_a_best_metric_that_validation_lacks_names_the_nearest(tmp_path: Path) -> None:
    run = inputs(tmp_path, train__best_metric="val/copy_ratio_h2")
    assert "val/copy_ratio_h" in user_error(lambda: train(run)).split("Did you mean")[1]


def test_validation_is_in_float32(tmp_path: Path) -> None:
    seen: list[torch.dtype] = []
    run = inputs(tmp_path, "align", train__precision="bf16", train__epochs=1)
    training = run.training(NullReporter(), run.local_batches)
    validate = training.validate
    assert validate is not None

    def watched(model: WorldModel) -> Any:
        with model.projection[0].register_forward_hook(lambda module, args, out: seen.append(out.dtype)):  # type: ignore[index]
            return validate(model)

    replace(training, validate=watched).run()
    assert set(seen) == {torch.float32}
