"""Half precision where it is cheap, float32 where it counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.wm.data.samples import inputs, same, train
from tests.wm.training.steps import CPU, OneStep
from tests.wm.training.test_loop import newest
from wm.losses.alignment import infonce_loss, state_mse_loss
from wm.losses.dynamics import mean_latent_loss
from wm.losses.image import image_loss
from wm.losses.prediction import latent_errors, prediction_loss
from wm.losses.reconstruction import reconstruction_loss
from wm.losses.variance import variance_loss
from wm.models.predictor import Attention
from wm.training.precision import Precision


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_networks_run_in_it_and_weights_stay_wide(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    step = OneStep(tmp_path, train__precision=name)
    seen: list[torch.dtype] = []
    for module in step.model.modules():
        if isinstance(module, Attention):
            module.to_qkv.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    parts, _ = step.take()
    assert set(seen) == {dtype}
    assert {p.dtype for p in step.model.parameters()} == {torch.float32}
    assert {value.dtype for value in step.gradients.values()} == {torch.float32}
    assert {value.dtype for value in parts.values()} == {torch.float32}


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_half_precision_gives_nearly_the_same_step(tmp_path: Path, name: str) -> None:
    wide, half = (OneStep(tmp_path, train__precision=precision) for precision in ("fp32", name))
    a, b = wide.take()[0], half.take()[0]
    for term, value in a.items():
        assert float(b[term]) == pytest.approx(float(value), rel=0.02), term
    for parameter, gradient in wide.gradients.items():
        cosine = nn.functional.cosine_similarity(gradient.flatten(), half.gradients[parameter].flatten(), dim=0)
        assert gradient.abs().max() == 0 or cosine > 0.99, parameter


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_computed_in_float32(dtype: torch.dtype) -> None:
    """The same number, to float32's accuracy, as in float32 from the same rounded latents; and no overflow at fp16's 65504."""
    torch.manual_seed(0)
    latents, targets = (torch.randn(4, 2, 3, 8).to(dtype) * 300 for _ in range(2))
    images = [values[..., None].expand(4, 2, 3, 8, 8) for values in (latents, targets)]
    readout, state, weights = latents.flatten(0, 2)[:, :4], targets.flatten(0, 2)[:, :4], torch.ones(24)
    cases = [
        (prediction_loss, (latents, targets, torch.ones(4))),
        (reconstruction_loss, (latents, targets, torch.ones(4))),
        (mean_latent_loss, (latents, targets, torch.ones(4))),
        (latent_errors, (latents, targets, "mse")),
        (variance_loss, (latents, 1000.0)),
        (image_loss, (*images, torch.ones(4))),
        (state_mse_loss, (readout, state, weights)),
        (infonce_loss, (readout, state, weights, 0.1, "cosine")),
        (infonce_loss, (readout, state, weights, 0.1, "neg_l2")),
    ]
    for loss, args in cases:
        expected = loss(*(value.float() if isinstance(value, torch.Tensor) else value for value in args))
        with torch.autocast("cpu", dtype):
            found = loss(*args)
        assert found.dtype == torch.float32
        assert torch.equal(found, expected), loss.__name__


def test_an_overflow_skips_the_step_and_halves_the_scale(tmp_path: Path) -> None:
    step = OneStep(tmp_path, train__precision="fp16")
    scaler = step.losses.precision.scaler
    before = {name: value.clone() for name, value in step.model.state_dict().items()}
    step.take()
    assert not same(before, step.model.state_dict())
    scale, before = scaler.get_scale(), {name: value.clone() for name, value in step.model.state_dict().items()}
    parameter = next(iter(step.model.parameters()))
    handle = parameter.register_hook(lambda gradient: gradient * float("inf"))
    step.take()
    handle.remove()
    assert same(before, step.model.state_dict())
    assert scaler.get_scale() == scale / 2


def test_the_loss_scale_is_resumed(tmp_path: Path) -> None:
    run = inputs(tmp_path, train__precision="fp16")
    train(run)
    state = newest(run).scaler
    assert state["_growth_tracker"] == 6
    other = Precision("fp16", CPU)
    other.load(state)
    assert other.state() == state
    assert Precision("bf16", CPU).state() == {}
