"""Rotary positions as complex numbers, and what they are for."""

from __future__ import annotations

import torch

from wm.shortcut.rotary import rotate, rotation

D, BASE = 8, 100.0


def vectors(frames: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(3, frames, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def turned(x: torch.Tensor, start: int) -> torch.Tensor:
    return rotate(x, rotation(start, x.shape[-2], D, BASE, x))


def test_pairs_are_complex_numbers_turned_by_time():
    x = vectors(5)
    angles = torch.tensor([[(7 + t) * BASE ** (-2 * i / D) for i in range(D // 2)] for t in range(5)]).double()
    expected = torch.complex(x[..., : D // 2], x[..., D // 2 :]) * torch.polar(torch.ones_like(angles), angles)
    found = turned(x, 7)
    torch.testing.assert_close(found[..., : D // 2], expected.real, rtol=0, atol=1e-5)
    torch.testing.assert_close(found[..., D // 2 :], expected.imag, rtol=0, atol=1e-5)


def test_inner_products_depend_on_differences_of_time_only():
    q, k = vectors(6), vectors(6).flip(0)
    at_zero = turned(q, 0) @ turned(k, 0).mT
    for start in (1, 37, 10**6):
        torch.testing.assert_close(turned(q, start) @ turned(k, start).mT, at_zero, rtol=0, atol=1e-8)
    assert (at_zero - turned(q, 1) @ turned(k, 0).mT).abs().max() > 0.1  # but on those they do


def test_a_late_clock_costs_no_precision_in_float32():
    q, k = vectors(6, torch.float32), vectors(6, torch.float32).flip(0)
    at_zero = turned(q, 0) @ turned(k, 0).mT
    late = turned(q, 10**7 + 1) @ turned(k, 10**7 + 1).mT
    torch.testing.assert_close(late, at_zero, rtol=0, atol=1e-5)


def test_nothing_turns_at_time_zero_and_lengths_stay():
    x = vectors(4)
    torch.testing.assert_close(turned(x, 0)[:, 0], x[:, 0], rtol=0, atol=0)
    torch.testing.assert_close(turned(x, 9).norm(dim=-1), x.norm(dim=-1), rtol=0, atol=1e-12)
