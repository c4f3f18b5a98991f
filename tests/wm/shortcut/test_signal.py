"""The warp's ends, order and parts, each against what it is defined by."""

from __future__ import annotations

import math
from typing import Any

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from wm.config.forcing import ForcingConfig, LogitNormalTau, UniformTau, signal_levels
from wm.config.schedule import LinearSchedule
from wm.shortcut.signal import SignalGrid, dimension_shift

distributions = st.one_of(
    st.just(UniformTau()), st.builds(LogitNormalTau, mean=st.floats(-2, 2), std=st.floats(0.3, 2))
)
configs = st.builds(
    ForcingConfig,
    k_max=st.sampled_from([8, 16, 32, 64, 128]),
    tau_min=st.floats(0, 0.2),
    tau_max=st.floats(0.7, 1),
    tau_power=st.floats(0.5, 2),
    tau_distribution=distributions,
    dimension_shift=st.one_of(st.just("none"), st.just("auto"), st.floats(1, 7)),
)


@settings(deadline=None, max_examples=200)
@given(configs)
def test_the_signal_rises_from_0_to_1_and_keeps_its_bounds(config):
    tau = SignalGrid(config, 196 * 384).tau
    assert tau[0] == 0
    assert tau[-1] == 1
    assert (tau.float().diff() > 0).all()
    assert tau[1] > config.tau_min
    assert tau[-2] < config.tau_max


def test_unwarped_it_is_the_grid():
    assert SignalGrid(ForcingConfig(), 1).tau.tolist() == [i / 64 for i in range(65)]


def test_the_parts_are_applied_in_their_order():
    config = ForcingConfig(
        tau_power=1.7, tau_distribution=LogitNormalTau(mean=-0.4, std=1.3), dimension_shift=3.0, tau_min=0.02, tau_max=0.95
    )  # fmt: skip
    u = torch.arange(1, 64, dtype=torch.float64) / 64
    normal = torch.as_tensor(scipy.stats.norm(-0.4, 1.3).ppf(u**1.7))
    noise = 1 - torch.sigmoid(normal)
    shifted_noise = 3 * noise / (1 + 2 * noise)  # RAE writes the shift of the noise level
    expected = 0.02 + 0.93 * (1 - shifted_noise)
    torch.testing.assert_close(SignalGrid(config, 1).tau[1:-1], expected, rtol=0, atol=1e-12)


def test_the_logit_normal_s_share_below_each_level_is_u():
    config = ForcingConfig(tau_distribution=LogitNormalTau(mean=0.3, std=0.8))
    samples = torch.sigmoid(0.3 + 0.8 * torch.randn(200_000, dtype=torch.float64))
    for level in (8, 32, 56):
        below = (samples < SignalGrid(config, 1).tau[level]).double().mean()
        assert below.item() == pytest.approx(level / 64, abs=0.005)


@pytest.mark.parametrize("size, alpha", [(196 * 384, 4.287), (196 * 768, 6.062), (16 * 256, 1.0), (8, 1.0)])
def test_the_automatic_shift(size, alpha):
    assert dimension_shift(ForcingConfig(dimension_shift="auto"), size) == pytest.approx(alpha, abs=1e-3)


def test_context_is_the_nearest_point_below_1():
    assert SignalGrid(ForcingConfig(), 1).context_level == 58
    assert SignalGrid(ForcingConfig(context_signal=1.0), 1).context_level == 63  # 64 is never beside a larger step
    warped = SignalGrid(ForcingConfig(tau_power=2.0), 1)
    assert warped.context_level == round(64 * math.sqrt(0.9))
    assert (warped.tau - 0.9).abs().argmin() == warped.context_level


def test_advances_leave_noise_that_multiplies():
    grid = SignalGrid(ForcingConfig(tau_power=1.5), 1)
    level = torch.tensor([0, 10, 40])
    first, second = grid.advance(level, level + 4), grid.advance(level + 4, level + 8)
    torch.testing.assert_close((1 - first) * (1 - second), 1 - grid.advance(level, level + 8), rtol=1e-14, atol=0)
    assert grid.advance(level, level).tolist() == [0, 0, 0]
    assert grid.advance(level, torch.full_like(level, 64)).tolist() == [1, 1, 1]


@pytest.mark.parametrize("num_steps", [0, 3, 128])
def test_other_numbers_of_steps_are_refused(num_steps):
    with pytest.raises(ValueError, match=rf"num_steps \({num_steps}\) must divide k_max \(64\)"):
        SignalGrid(ForcingConfig(), 1).shortcut_step(num_steps)


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no power": ({"k_max": 48}, r"k_max \(48\) must be a power of two"),
    "crossed": ({"tau_min": 0.5, "tau_max": 0.4}, r"tau_min \(0.5\) must be below tau_max \(0.4\)"),
    "flat": ({"tau_min": 0.02, "tau_power": 12.0}, r"levels 1 and 2 of 64 are 0.02 and 0.02"),
    "lost": ({"tau_power": 400.0}, r"levels 0 and 1 of 64 are 0 and 0"),
    "coarse": ({"grid": LinearSchedule(start=0.1, end=0.5)}, "grid must end at 1"),
    "dilated": ({"dimension_shift": 0.5}, "greater than or equal to 1"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_could_not_be_trained_is_refused(name):
    values, message = FAULTS[name]
    with pytest.raises(ValidationError, match=message):
        ForcingConfig(**values)


def test_an_automatic_shift_is_checked_when_the_size_is_known():
    config = ForcingConfig(dimension_shift="auto", tau_min=0.5, tau_max=0.51)
    assert signal_levels(config, 1.0)
    with pytest.raises(ValueError, match="must rise at every step"):
        SignalGrid(config, 10**9)
