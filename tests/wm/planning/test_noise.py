"""Coloured noise: its spectrum, its variance, and along what it runs."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toys import generators
from wm.planning.noise import coloured, draw_noise, standard_normal


def test_beta_0_is_white_as_it_was():
    white = torch.randn(3, 4, 6)
    assert torch.equal(coloured(white, 0.0, 2), white)


@settings(max_examples=40, deadline=None)
@given(horizon=st.integers(1, 13), frameskip=st.integers(1, 5), beta=st.floats(0, 4))
def test_every_step_has_variance_1(horizon, frameskip, beta):
    """Colouring is linear, so a step's variance is the sum of squares of what it takes from each white number."""
    length = horizon * frameskip
    unit = rearrange(torch.eye(length), "n (h f) -> n h f", f=frameskip)
    variance = coloured(unit, beta, frameskip).square().sum(dim=0)
    torch.testing.assert_close(variance, torch.ones(horizon, frameskip), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [25, 64])
@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0, 3.0])
def test_power_falls_with_frequency(beta, length):
    white = torch.randn(4000, length, 1, generator=torch.Generator().manual_seed(0))
    power = torch.fft.rfft(coloured(white, beta, 1)[..., 0]).abs().square().mean(dim=0).log()
    frequency = torch.fft.rfftfreq(length)[1:].log()
    deviation = frequency - frequency.mean()
    slope = float((deviation * power[1:]).sum() / deviation.square().sum())
    assert slope == pytest.approx(-beta, abs=0.05)
    assert float(power[0] - power[1]) == pytest.approx(0, abs=0.1)  # the mean counts as the lowest frequency


@pytest.mark.parametrize("length", [1, 2, 3])
def test_three_steps_or_fewer_have_one_frequency_so_they_stay_white(length):
    white = torch.randn(5, length, 2)
    torch.testing.assert_close(coloured(white, 2.0, 1), white, rtol=0, atol=1e-6)


def test_colour_runs_along_env_steps_of_each_action_number():
    """F env actions of A numbers make one model action: grouped as `n (f a)`, so 12 env steps lie in 4 model steps."""
    frameskip, beta = 3, 2.0
    white = torch.randn(7, 4, frameskip * 2)
    steps = rearrange(white, "n h (f a) -> n (h f) a", f=frameskip)
    each = torch.cat([coloured(steps[..., a : a + 1], beta, 1) for a in range(2)], dim=-1)
    torch.testing.assert_close(coloured(white, beta, frameskip), rearrange(each, "n (h f) a -> n h (f a)", f=frameskip))


def test_neighbouring_env_steps_go_together():
    white = torch.randn(4000, 5, 10, generator=torch.Generator().manual_seed(0))
    steps = rearrange(coloured(white, 2.0, 5), "n h (f a) -> n (h f) a", f=5)
    assert (steps[:, 1:] * steps[:, :-1]).mean() > 0.8
    assert (steps[..., 0] * steps[..., 1]).mean().abs() < 0.05  # two numbers of one action do not


def test_each_problem_draws_from_its_own_generator():
    drawn = draw_noise(standard_normal, (4, 2), generators([5, 6, 5]), torch.device("cpu"))
    expected = [torch.randn(4, 2, generator=generator) for generator in generators([5, 6, 5])]
    assert torch.equal(drawn, torch.stack(expected))
