"""The world model against the reference's own numbers."""

from __future__ import annotations

import pytest
import torch

from tests.golden.case import GOLDEN, Golden, load_case
from tests.golden.models import (
    build_predictor,
    check_embed,
    check_encode,
    check_loss_with,
    check_predictor_with,
    check_rollout,
)
from wm.config.model import PredictorConfig
from wm.models.predictor import CausalPredictor


def case(name: str) -> Golden:
    return load_case(GOLDEN / "dino_wm" / f"{name}.npz")


@pytest.mark.parametrize("attention", ["plain", "fused"])
@pytest.mark.parametrize("name", ["predictor_hist1", "predictor_hist3"])
def test_predictor(name, attention):
    check_predictor_with(case(name), attention)


def test_embeddings():
    check_embed(case("embed"))


def test_latents():
    check_encode(case("encode_concat1"))


@pytest.mark.parametrize("attention", ["plain", "fused"])
def test_losses_and_gradients(attention):
    check_loss_with(case("loss_concat1"), attention)


@pytest.mark.parametrize("name", ["rollout_concat1", "rollout_concat1_hist1"])
def test_rollouts(name):
    check_rollout(case(name))


def test_a_check_fails_when_a_weight_is_wrong():
    golden = case("predictor_hist3")
    golden.arrays["w/transformer.layers.1.0.to_out.0.bias"][0] += 1e-3
    with pytest.raises(AssertionError, match="off by"):
        check_predictor_with(golden, "plain")


def test_fused_is_plain():
    golden = case("predictor_hist3")
    x = golden["in/x"].unflatten(1, (3, -1))
    with torch.no_grad():
        plain, fused = (build_predictor(golden, attention)(x) for attention in ("plain", "fused"))
    assert float((plain - fused).abs().max()) <= 2e-6 * float(plain.abs().max())


@pytest.mark.parametrize(
    ("history_len", "dim", "tokens", "parameters"),
    [
        (3, 404, 196, 20_122_600),
        (1, 404, 196, 19_964_232),
        (3, 384, 198, 19_129_344),  # two more tokens a frame, as with `token` concatenation
    ],
)
def test_size_as_published(history_len, dim, tokens, parameters):
    with torch.device("meta"):
        predictor = CausalPredictor(dim, tokens, history_len, PredictorConfig())
    assert sum(p.numel() for p in predictor.parameters()) == parameters
