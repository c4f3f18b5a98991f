"""Spread over futures where the truth is known: a model that draws them, one that is always sure."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor, nn

from wm.evaluation.futures import futures_quality, imagined_futures, spread_map
from wm.models.latent_model import LatentModel
from wm.types import Batch, Observation

_STD = 0.5


class Drawn(nn.Module):
    """Each future adds normal noise of `std` to a frame that stays; content is the tokens."""

    history_len = 1

    def __init__(self, std: float, sampling_steps: int | None = 4) -> None:
        super().__init__()
        self.std, self.sampling_steps, self.future = nn.Parameter(torch.tensor(std)), sampling_steps, 0
        self.asked: list[int] = []

    in_future = LatentModel.in_future

    def encode_content(self, obs: Observation) -> Tensor:
        return obs.visual

    def visual(self, content: Tensor) -> Tensor:
        return content

    def rollout(self, context: Tensor, actions: Tensor, has_actions: Tensor | None = None) -> Tensor:
        self.asked.append(self.future)
        shape = (len(context), actions.shape[1], *context.shape[2:])
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(self.future))
        return context[:, -1:] + self.std * noise


def clips(num_clips: int = 24) -> Batch:
    """Two frames after the first: the nearer as far off as Drawn(0.5) draws, the further twice as far."""
    generator = torch.Generator().manual_seed(99)
    start = torch.randn(num_clips, 1, 4, 32, generator=generator)
    moved = torch.randn(num_clips, 2, 4, 32, generator=generator) * torch.tensor([_STD, 2 * _STD]).view(2, 1, 1)
    visual = torch.cat([start, start + moved], dim=1)
    known = torch.ones(num_clips, dtype=torch.bool)
    return Batch(Observation(visual), torch.zeros(num_clips, 3, 2), known, None, ~known, torch.ones(num_clips))


def as_model(toy: Drawn) -> LatentModel:
    return cast(LatentModel, toy)


def test_a_sampler_that_is_right_has_the_spread_of_its_error() -> None:
    """Errors of the mean: s^2 (1 + 1/S) where the truth is one more draw, s^2 / S + (2 s)^2 where it is twice as far."""
    found = futures_quality(as_model(Drawn(_STD)), clips(), (1, 2), num_futures=8)
    assert found["copy_ratio_mean_h1"] == pytest.approx(1 + 1 / 8, rel=0.1)
    assert found["spread_ratio_h1"] == pytest.approx(1, rel=0.1)
    assert found["spread_skill_h1"] == pytest.approx(1, rel=0.05)
    assert found["spread_ratio_h2"] == pytest.approx(1 / 4, rel=0.1)
    assert found["spread_skill_h2"] == pytest.approx(((1 + 1 / 8) / (4 + 1 / 8)) ** 0.5, rel=0.05)


def test_a_sure_model_has_no_spread() -> None:
    found = futures_quality(as_model(Drawn(0.0)), clips(), (1,), num_futures=3)
    assert found == pytest.approx({"copy_ratio_mean_h1": 1.0, "spread_ratio_h1": 0.0, "spread_skill_h1": 0.0})


def test_futures_differ_by_their_number_alone() -> None:
    toy, batch, told = Drawn(_STD), clips(20), []
    toy.future = 7
    _, futures = imagined_futures(as_model(toy), batch, 2, num_futures=3)
    assert futures.shape == (3, 20, 2, 4, 32)
    assert toy.asked == [0, 1, 2]
    assert toy.future == 7
    assert torch.equal(futures, imagined_futures(as_model(toy), batch, 2, num_futures=3)[1])
    futures_quality(as_model(toy), batch, (1,), 2, told.append)
    assert told == [16, 20]


def test_a_model_of_one_pass_has_one_future() -> None:
    with pytest.raises(ValueError, match="one future"):
        imagined_futures(as_model(Drawn(_STD, sampling_steps=None)), clips(), 1, 2)


def test_the_map_is_white_where_futures_differ() -> None:
    futures = torch.zeros(2, 1, 4, 3)
    futures[1, 0, 1] = 2 * 0.5 * 2**0.5  # of two values, std = difference / sqrt(2)
    futures[1, 0, 3] = 20.0
    grey = spread_map(futures, most=2.0)
    assert grey.shape == (1, 2, 2, 3)
    assert grey[0, :, :, 0].flatten().tolist() == pytest.approx([0, 0.5, 0, 1])
    with pytest.raises(ValueError, match="no square"):
        spread_map(torch.zeros(2, 1, 5, 3), 1.0)
