"""Bounds against scipy's truncated normal, and at their edges."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from wm.planning import ActionBounds

ENDS = st.one_of(st.floats(-3, 3, width=32), st.sampled_from([-math.inf, math.inf]))


def bounds(low: float, high: float) -> ActionBounds:
    return ActionBounds(torch.tensor([low]), torch.tensor([high]))


def draw(low: float, high: float, mean: float, std: float, noise: list[float]) -> torch.Tensor:
    """(n,) from one entry."""
    rows = torch.tensor(noise)[:, None]
    return bounds(low, high).truncated(torch.tensor([[mean]]), torch.tensor([[std]]), rows)[:, 0]


@settings(max_examples=200, deadline=None)
@given(
    ends=st.tuples(ENDS, ENDS).filter(lambda ends: ends[1] - ends[0] > 1e-2),
    share=st.floats(0, 1),
    std=st.floats(0.0625, 3, width=32),
    noise=st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=9),
)
def test_quantiles_are_scipy_s(ends, share, std, noise):
    low, high = ends
    inner_low, inner_high = max(low, -4.0), min(high, 4.0)
    mean = float(torch.tensor(inner_low + share * (inner_high - inner_low)).clamp(low, high))
    truncated = stats.truncnorm((low - mean) / std, (high - mean) / std, loc=mean, scale=std)
    expected = torch.from_numpy(truncated.ppf(stats.norm.cdf(noise))).float()
    torch.testing.assert_close(draw(low, high, mean, std, noise), expected, rtol=1e-5, atol=1e-5)


def test_infinite_bounds_are_none():
    generator = torch.Generator().manual_seed(0)
    mean, std = torch.randn(2, 1, 3, 4, generator=generator), torch.rand(2, 1, 3, 4, generator=generator)
    noise = torch.randn(2, 500, 3, 4, generator=generator)
    free = ActionBounds(torch.full((4,), -math.inf), torch.full((4,), math.inf))
    torch.testing.assert_close(free.truncated(mean, std, noise), mean + std * noise, rtol=1e-6, atol=1e-6)


def test_a_mean_outside_counts_as_the_nearest_within():
    noise = [-3.0, -0.5, 0.0, 0.5, 3.0]
    for mean, nearest in ((9.0, 1.0), (-7.0, -2.0)):
        assert torch.equal(draw(-2, 1, mean, 0.5, noise), draw(-2, 1, nearest, 0.5, noise))
    assert (draw(-2, 1, 1.0, 0.5, noise)[1:-1] < 1).all()  # a normal cut in half, not all of it at the edge


def test_without_spread_all_is_the_mean():
    noise = [-3.0, 0.0, 3.0]
    for mean, expected in ((0.25, 0.25), (1.0, 1.0), (9.0, 1.0), (-9.0, -2.0)):
        assert draw(-2, 1, mean, 0.0, noise).tolist() == [expected] * 3
    assert draw(-math.inf, math.inf, 0.25, 0.0, noise).tolist() == [0.25] * 3


def test_noise_far_out_stays_within():
    values = draw(-2, 1, 0.0, 1.0, [-40.0, -9.0, 9.0, 40.0])
    torch.testing.assert_close(values, torch.tensor([-2.0, -2.0, 1.0, 1.0]))
    assert draw(-math.inf, 1, 0.0, 1.0, [9.0]).tolist() == [1.0]
    narrow = draw(-2, 1, 0.0, 0.01, [-40.0, 40.0])  # no double tells its share from 0 and 1
    assert (narrow >= -2).all()
    assert (narrow <= 1).all()


def test_every_entry_has_its_own_bounds():
    own = ActionBounds(torch.tensor([-1.0, -math.inf]), torch.tensor([1.0, 0.0]))
    assert own.clamp(torch.tensor([[-3.0, -3.0], [3.0, 3.0]])).tolist() == [[-1.0, -3.0], [1.0, 0.0]]
    values = own.truncated(torch.zeros(1, 2), torch.full((1, 2), 5.0), torch.randn(1000, 2))
    assert values.amin(dim=0)[0] >= -1
    assert values.amin(dim=0)[1] < -5
    assert values.amax(dim=0)[0] <= 1
    assert values.amax(dim=0)[1] <= 0


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (0.0, math.nan)])
def test_bounds_without_room_are_refused(low, high):
    with pytest.raises(ValueError, match=r"bounds: \[.*\] must lie below \[.*\]"):
        bounds(low, high)
    with pytest.raises(ValueError, match="must lie below"):  # one entry is enough
        ActionBounds(torch.tensor([0.0, low]), torch.tensor([1.0, high]))
