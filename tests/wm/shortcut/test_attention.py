"""Attention as written out against torch's own, and the merge of parts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wm.shortcut import attention
from wm.shortcut.attention import attend, band_mask, merged, space_attention, time_attention

H, G, D = 6, 2, 4


def heads(queries: int, keys: int, *leading: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(queries)
    shapes = ((H, queries), (G, keys), (G, keys))
    q, k, v = (torch.randn(*leading, *s, D, generator=generator, dtype=torch.float64) for s in shapes)
    return 2 * q, k, v


def by_hand(q: Tensor, k: Tensor, v: Tensor, before: int, after: int = 0, soft_cap: float = 1e9) -> Tensor:
    """Query by query and head by head; query t sees the keys t - before, ..., t + after."""
    out = torch.zeros_like(q)
    for h in range(H):
        for t in range(q.shape[-2]):
            seen = slice(max(0, t - before), t + after + 1)
            keys, values = k[..., h // (H // G), seen, :], v[..., h // (H // G), seen, :]
            logits = torch.einsum("bd,bsd->bs", q[:, h, t], keys) / D**0.5
            if soft_cap < 1e9:
                logits = soft_cap * (1 - 2 / (1 + torch.exp(2 * logits / soft_cap)))  # tanh
            out[:, h, t] = torch.einsum("bs,bsd->bd", logits.softmax(dim=-1), values)
    return out


def test_a_band_is_the_last_frames():
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    assert band_mask(4, 2, torch.device("cpu")).int().tolist() == expected
    assert band_mask(2, None, torch.device("cpu")).int().tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize("window", [2, 5, 7, None])
def test_time_attention_is_the_formula(window):
    q, k, v = heads(7, 7, 3)
    found = time_attention(q, k, v, window, None)
    torch.testing.assert_close(found, by_hand(q, k, v, (window or 7) - 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("soft_cap", [None, 1.5])
@pytest.mark.parametrize("window", [0, 3, 7])  # 0: space
def test_gradients_are_the_formulas(window, soft_cap):
    given = [x.requires_grad_() for x in heads(7, 7, 3)]
    reach = (window - 1, 0) if window else (7, 7)
    found = time_attention(*given, window, soft_cap) if window else space_attention(*given, soft_cap)
    expected = by_hand(*given, *reach, soft_cap or 1e9)
    for ours, theirs in zip(*(torch.autograd.grad(x.square().sum(), given) for x in (found, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_leading_axes_are_a_batch():
    q, k, v = heads(7, 7, 3, 2)
    for attention_of in (lambda *x: time_attention(*x, 3, None), lambda *x: space_attention(*x, None)):
        one_by_one = torch.stack([attention_of(*(x[i] for x in (q, k, v))) for i in range(3)])
        torch.testing.assert_close(attention_of(q, k, v), one_by_one, rtol=0, atol=1e-12)


def test_written_out_attention_is_torchs_and_its_log_sum_is_of_the_logits():
    q, k, v = heads(3, 5, 2)
    visible = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1]]).bool()
    found = attend(q, k, v, visible, None)
    repeated = [x.repeat_interleave(H // G, dim=1) for x in (k, v)]
    torch.testing.assert_close(found.out, F.scaled_dot_product_attention(q, *repeated, visible), rtol=0, atol=1e-12)
    logits = torch.einsum("bhqd,bhsd->bhqs", q, repeated[0]) / D**0.5
    log_sum = logits.exp().where(visible, 0).sum(dim=-1).log()
    torch.testing.assert_close(found.log_sum, log_sum, rtol=0, atol=1e-12)


def test_space_attention_is_the_formula_with_and_without_a_cap():
    q, k, v = heads(7, 7, 3)
    torch.testing.assert_close(space_attention(q, k, v, None), by_hand(q, k, v, 7, 7), rtol=0, atol=1e-12)
    capped = space_attention(q, k, v, 1.5)
    torch.testing.assert_close(capped, by_hand(q, k, v, 7, 7, 1.5), rtol=0, atol=1e-12)
    assert (capped - space_attention(q, k, v, None)).abs().max() > 0.1


@pytest.mark.parametrize("window", [2, 7, None])
def test_time_attention_with_a_cap_is_the_formula(window):
    q, k, v = heads(7, 7, 3)
    found = time_attention(q, k, v, window, 1.5)
    torch.testing.assert_close(found, by_hand(q, k, v, (window or 7) - 1, 0, 1.5), rtol=0, atol=1e-12)


@pytest.mark.parametrize("soft_cap", [None, 1.5])
@pytest.mark.parametrize("split", [1, 3, 6])
def test_parts_merge_to_the_whole(split, soft_cap):
    q, k, v = heads(4, 7, 2, 3)
    visible = torch.rand(4, 7, generator=torch.Generator().manual_seed(0)) < 0.6
    visible[0, :split], visible[1, split:], visible[:2, 0] = False, False, True  # a query may see nothing of one part
    visible[0, split:], visible[0, 0] = True, False
    parts = [attend(q, k[..., s, :], v[..., s, :], visible[:, s], soft_cap) for s in (slice(split), slice(split, None))]
    torch.testing.assert_close(merged(*parts), attend(q, k, v, visible, soft_cap).out, rtol=0, atol=1e-12)


def test_no_mask_reaches_the_kernel_within_a_window(monkeypatch):
    masks: list[Tensor | None] = []
    kernel = F.scaled_dot_product_attention

    def spied(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, **how: bool) -> Tensor:
        masks.append(mask)
        return kernel(q, k, v, mask, **how)

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", spied)
    q, k, v = heads(7, 7, 3)
    space_attention(q, k, v, None)
    time_attention(q, k, v, 7, None)
    time_attention(q, k, v, None, None)
    assert masks == [None] * 3
    time_attention(q, k, v, 6, None)
    assert masks[3] is band_mask(7, 6, q.device)  # made once


@pytest.mark.parametrize("soft_cap", [None, 1.5])
def test_a_mask_made_while_planning_serves_training(soft_cap):
    band_mask.cache_clear()
    q, k, v = heads(9, 9, 1)
    with torch.inference_mode():
        time_attention(q, k, v, 4, soft_cap)
    time_attention(q.requires_grad_(), k, v, 4, soft_cap).sum().backward()
    assert q.grad is not None


def test_half_precision_sums_in_float32():
    q, k, v = (x.bfloat16() for x in heads(4, 64, 2))
    found = attend(q, k, v, None, None)
    assert (found.out.dtype, found.log_sum.dtype, merged(found, found).dtype) == (q.dtype, torch.float32, q.dtype)
    exact = attend(*(x.double() for x in (q, k, v)), None, None)
    assert (found.out.double() - exact.out).abs().max() < 0.02
    assert (found.log_sum.double() - exact.log_sum).abs().max() < 2**-8 * exact.log_sum.max()  # a logit's own rounding
