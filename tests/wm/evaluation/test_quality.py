"""The rollout table where the answer is known, and the state read off latents entry by entry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.wm.data.samples import trained
from tests.wm.evaluation.test_latent import Toy, clips, copy, move
from wm.build import load
from wm.evaluation import quality
from wm.evaluation.metric_names import METRICS
from wm.evaluation.quality import by_labels, rollout_quality, take
from wm.evaluation.readout import health_quality, probe_quality
from wm.types import Batch, ClipRef, Observation


class Exact(Toy):
    """A toy with a proprio channel: the last one, which is never predicted right."""

    def proprio(self, content: Tensor) -> Tensor:
        return content[..., 3:]


def toy(step: Any = move, **given: Any) -> Any:
    return Exact(step, **given)


def with_proprio(batch: Batch) -> Batch:
    return replace(batch, obs=replace(batch.obs, proprio=torch.zeros(batch.num_clips, batch.num_frames, 1)))


def test_a_perfect_model_errs_only_under_others_actions() -> None:
    found = rollout_quality(toy(), with_proprio(clips(20)), (1, 3), seed=0)
    for h in (1, 3):
        assert found[f"z_visual_err_rollout_h{h}"] == pytest.approx(0, abs=1e-10)
        assert found[f"z_visual_err_rollout_1framestart_h{h}"] == pytest.approx(0, abs=1e-10)
        assert found[f"copy_ratio_h{h}"] == pytest.approx(0, abs=1e-6)
        assert found[f"z_proprio_err_rollout_h{h}"] == h**2  # it grows by one a step, the truth stays 0
        assert found[f"action_sensitivity_h{h}"] > 1e6


def test_copying_ignores_actions() -> None:
    batch = clips(20)
    found = rollout_quality(toy(copy), batch, (1, 2, 4), seed=0)
    for h in (1, 2, 4):
        moved = batch.actions[:, 1 : 1 + h].sum(dim=1)
        assert found[f"z_visual_err_copy_h{h}"] == pytest.approx(float(moved.square().mean()), rel=1e-5)
        assert found[f"copy_ratio_h{h}"] == 1
        assert found[f"action_sensitivity_h{h}"] == 1
    assert not any(name.startswith(("z_proprio", "null_action", "shuffled")) for name in found)


def test_sensitivity_by_hand() -> None:
    """A model that is off by .1 a step: the error under others' actions over .01."""
    batch = clips(8)

    def biased(content: Tensor, action: Tensor) -> Tensor:
        return move(content, action) + 0.1

    found = rollout_quality(toy(biased), batch, (1,), seed=3)
    shuffled = quality._with_others_actions(batch, history=2, seed=3)
    assert torch.equal(shuffled.actions[:, 0], batch.actions[:, 0])  # what led into the context stays
    assert sorted(shuffled.actions[:, 1, 0].tolist()) == sorted(batch.actions[:, 1, 0].tolist())
    assert not (shuffled.actions[:, 1] == batch.actions[:, 1]).any()  # nobody keeps its own
    expected = (shuffled.actions[:, 1] - batch.actions[:, 1] + 0.1).square().mean() / 0.01
    assert found["action_sensitivity_h1"] == pytest.approx(float(expected), rel=1e-3)


def test_pieces_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, seen = clips(11), []
    whole = rollout_quality(toy(copy), batch, (1, 3), seed=0)
    monkeypatch.setattr(quality, "CLIPS_AT_ONCE", 4)
    pieces = rollout_quality(toy(copy), batch, (1, 3), seed=0, progress=seen.append)
    assert seen == [4, 8, 11]
    assert whole == pytest.approx(pieces)


def test_one_frame_of_context_is_the_last_one() -> None:
    """A model that needs the frame before: it is wrong from one frame, and the frames it is judged on are the same."""

    class Inertia(Exact):
        def rollout(self, context: Tensor, actions: Tensor, has_actions: Tensor | None = None) -> Tensor:
            speed = context[:, -1] - context[:, -2] if context.shape[1] > 1 else torch.zeros_like(context[:, -1])
            steps = actions.shape[1] - context.shape[1] + 1
            return torch.stack([context[:, -1] + (k + 1) * speed for k in range(steps)], dim=1)

    start, speed = torch.randn(4, 1, 2, 4), torch.randn(4, 1, 2, 4)
    tokens = start + torch.arange(6.0)[None, :, None, None] * speed
    batch = replace(clips(4), obs=Observation(tokens))
    found = rollout_quality(Inertia(copy), batch, (1, 3), seed=0)  # type: ignore[arg-type]
    for h in (1, 3):
        assert found[f"copy_ratio_h{h}"] == pytest.approx(0, abs=1e-6)
        assert found[f"copy_ratio_1framestart_h{h}"] == pytest.approx(1, rel=1e-5)


def test_clips_without_actions_are_apart() -> None:
    batch = replace(clips(6), has_actions=torch.tensor([True, False, True, True, False, True]))
    groups = by_labels([ClipRef("wall", i, 0, 5, 6) for i in range(6)], batch)
    assert [ref.episode for ref in groups["unlabelled"].refs] == [1, 4]
    assert torch.equal(groups["labelled"].batch.actions, batch.actions[[0, 2, 3, 5]])
    found = rollout_quality(toy(copy), groups["unlabelled"].batch, (1,), seed=0)
    assert found["null_action_err_h1"] == found["z_visual_err_rollout_h1"]
    assert "action_sensitivity_h1" not in found
    assert list(by_labels([], take(batch, torch.zeros(6, dtype=torch.bool)))) == []


def test_state_by_entry() -> None:
    """x is in the latents, noise is not; a model that copies loses x with the horizon."""
    fit, held_out = clips(40, seed=1), clips(40, seed=2)
    model = toy()
    model.is_aligned = True
    noisy = [replace(b, state=torch.stack([b.state[..., 0], torch.randn(40, 6)], dim=-1)) for b in (fit, held_out)]  # type: ignore[index]
    found = probe_quality(model, *noisy, names=("x", "noise"), horizons=(1, 3))
    assert found["state_probe_r2/x"] > 0.99
    assert found["state_probe_r2/noise"] < 0.2
    assert found["aligned_probe_r2/x"] < found["state_probe_r2/x"]  # the third channel is not aligned
    assert found["state_probe_rollout_r2_h3/x"] > 0.99
    copied = probe_quality(toy(copy), *noisy, names=("x", "noise"), horizons=(1, 3))
    assert copied["state_probe_rollout_r2_h3/x"] < copied["state_probe_rollout_r2_h1/x"] < 0.99
    assert "aligned_probe_r2/x" not in copied
    stateless = replace(held_out, has_state=torch.zeros(40, dtype=torch.bool))
    assert probe_quality(model, fit, stateless, ("x",), (1,)) == {}


def test_clips_without_a_state_are_left_out() -> None:
    fit, held_out = clips(40, seed=1), clips(10, seed=2)
    half = torch.arange(10) < 5
    spoilt = replace(held_out, has_state=half, state=torch.where(half[:, None, None], held_out.state, 1e6))  # type: ignore[arg-type]
    found = probe_quality(toy(), fit, spoilt, ("a", "b"), (1,))
    assert found == probe_quality(toy(), fit, take(held_out, half), ("a", "b"), (1,))


@pytest.mark.parametrize("variant", ["baseline", "align"])
def test_numbers_are_those_of_validation(variant: str) -> None:
    run = trained(variant)
    model, validator = load(run.folder.path).model, run.validator()
    expected = {name.removeprefix("val/"): value for name, value in validator.metrics(model).items()}
    horizons = run.config.evaluate.horizons
    found = rollout_quality(model, validator.held_out, horizons, seed=0)
    found |= health_quality(model, validator.held_out)
    by_entry = probe_quality(model, validator.probe, validator.held_out, ("x", "y"), horizons)
    for name in {entry.split("/")[0] for entry in by_entry}:
        found[name] = float(np.mean([value for entry, value in by_entry.items() if entry.split("/")[0] == name]))
    for name in expected.keys() & found.keys():
        assert found[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6), name
    assert {
        "copy_ratio_h1",
        "effective_rank",
        "state_probe_r2",
        "state_probe_rollout_r2_h3",
    } <= expected.keys() & found.keys()
    assert "z_proprio_err_rollout_h1" in found


def test_every_name_once() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
