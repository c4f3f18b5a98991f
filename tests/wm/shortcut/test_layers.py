"""The layers against their formulas, and whom they let speak to whom."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F

from tests.wm.shortcut.toy_backbone import SHAPE, W
from wm.config.backbone import BackboneConfig
from wm.shortcut import attention
from wm.shortcut.layers import HeadProjection, RmsNorm, SpaceLayer, SwiGlu, TimeLayer
from wm.shortcut.rotary import rotation

CONFIG = BackboneConfig(**SHAPE)
B, T, N = 2, 4, 3


def tokens() -> torch.Tensor:
    return torch.randn(B, T, N, W, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def turns(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return rotation(0, T, CONFIG.head_dim, CONFIG.rope_base, x)


def test_rms_norm_is_the_formula():
    norm, x = RmsNorm(W).double(), tokens()
    torch.nn.init.normal_(norm.scale)
    expected = norm.scale * x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(norm(x), expected, rtol=0, atol=1e-12)


def test_queries_and_keys_are_normalised_by_head():
    project, x = HeadProjection(CONFIG).double(), tokens()
    for norm in (project.q_norm, project.k_norm):
        torch.nn.init.normal_(norm.scale)
    q, k, v = project(x)
    assert (q.shape, k.shape, v.shape) == ((B, T, 4, N, 8), (B, T, 2, N, 8), (B, T, 2, N, 8))
    for head in range(4):
        raw = x @ project.to_q.weight[8 * head : 8 * head + 8].T
        expected = project.q_norm.scale * raw / (raw.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()
        torch.testing.assert_close(q[:, :, head], expected, rtol=0, atol=1e-12)
    for head in range(2):
        raw = x @ project.to_kv.weight[8 * head : 8 * head + 8].T
        expected = project.k_norm.scale * raw / (raw.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()
        torch.testing.assert_close(k[:, :, head], expected, rtol=0, atol=1e-12)
        raw = x @ project.to_kv.weight[16 + 8 * head : 24 + 8 * head].T
        torch.testing.assert_close(v[:, :, head], raw, rtol=0, atol=1e-12)


def test_swiglu_is_the_formula():
    feed_forward, x = SwiGlu(CONFIG).double(), tokens()
    gate, value = (feed_forward.norm(x) @ half.T for half in feed_forward.to_hidden.weight.chunk(2))
    expected = (gate * torch.sigmoid(gate) * value) @ feed_forward.to_out.weight.T
    torch.testing.assert_close(feed_forward(x), expected, rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["space", "time"])
def test_a_token_reaches_its_frame_or_its_later_selves(kind):
    """Each layer lets exactly those tokens change that it should, frames by tokens."""
    x, changed = tokens(), tokens()
    changed[:, 1, 2] += torch.randn(W, dtype=torch.float64)
    if kind == "space":
        layer = SpaceLayer(CONFIG).double()
        outputs, expected = [layer(of) for of in (x, changed)], [[0, 0, 0], [1, 1, 1], [0, 0, 0], [0, 0, 0]]
    else:
        layer = TimeLayer(CONFIG, 0).double()
        outputs = [layer(of, turns(x)) for of in (x, changed)]
        expected = [[0, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]]
    difference = (outputs[1] - outputs[0]).abs().amax(dim=(0, 3))
    assert (difference > 1e-6).int().tolist() == expected
    assert not difference[~torch.tensor(expected).bool()].any()


@torch.no_grad()
def test_space_is_blind_to_order_and_time_is_not():
    x, order = tokens(), torch.tensor([2, 0, 1])
    space, time = SpaceLayer(CONFIG).double(), TimeLayer(CONFIG, 0).double()
    torch.testing.assert_close(space(x[:, :, order]), space(x)[:, :, order], rtol=0, atol=1e-12)
    swapped = time(x[:, [1, 0, 2, 3]], turns(x))
    assert (swapped[:, 3] - time(x, turns(x))[:, 3]).abs().max() > 1e-4


def test_under_autocast_the_kernel_gets_bfloat16_and_nothing_warns(monkeypatch):
    seen: list[torch.dtype] = []
    kernel = F.scaled_dot_product_attention

    def spied(*heads: torch.Tensor | None, **how: bool) -> torch.Tensor:
        seen.extend(x.dtype for x in heads[:3] if x is not None)
        return kernel(*heads, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", spied)
    x = tokens().float()
    with torch.autocast("cpu", torch.bfloat16), warnings.catch_warnings():
        warnings.simplefilter("error")
        SpaceLayer(CONFIG)(x)
        TimeLayer(CONFIG, 0)(x, turns(x))
    assert seen == [torch.bfloat16] * 6
