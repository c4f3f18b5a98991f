"""A world with two possible futures: what few steps can do without bootstrapping, and what it adds.

A point on the unit circle turns by +60 or -60 degrees, as the action says; without an action, by either with probability 1/2. The
latent is a fixed random linear map of the point. Shape legend: B clips, T = 2 frames, P = 1, C channels.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from wm.config.forcing import ForcingConfig
from wm.shortcut.forcing import Denoiser, ShortcutForcing
from wm.shortcut.labels import draw_labels
from wm.shortcut.sampler import after_context, corrupt_context, sample

C, TURN, K_MAX = 4, math.pi / 3, 8
NONE = 2  # actions are 0 (turn by -60 degrees), 1 (by 60) and this one


class Network(nn.Module):
    """The second frame's prediction sees both frames, their labels and the action; the first one's itself alone."""

    def __init__(self) -> None:
        super().__init__()
        self.levels, self.steps = nn.Embedding(K_MAX + 1, 16), nn.Embedding(4, 16)
        self.actions = nn.Embedding(3, 16)
        self.frames = nn.ModuleList(
            nn.Sequential(
                nn.Linear(inputs, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, C)
            )
            for inputs in (C + 32, 2 * (C + 32) + 16)
        )  # fmt: skip

    def forward(self, latents: Tensor, levels: Tensor, steps: Tensor, actions: Tensor) -> Tensor:
        sizes = steps.double().log2().round().long()
        tokens = torch.cat([latents.squeeze(2), self.levels(levels), self.steps(sizes)], dim=-1)
        both = torch.cat([tokens.flatten(1), self.actions(actions)], dim=-1)
        return torch.stack([self.frames[0](tokens[:, 0]), self.frames[1](both)], dim=1)[:, :, None]


def conditioned(network: Network, actions: Tensor) -> Denoiser:
    return lambda latents, levels, steps: network(latents, levels, steps, actions)


def points(angles: Tensor) -> Tensor:
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def linear_map() -> Tensor:
    """(2, C): latents of unit mean square."""
    columns = torch.randn(2, C, generator=torch.Generator().manual_seed(5))
    return columns * (2 / columns.square().sum() * C) ** 0.5


def clips(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(clean latents (B, 2, 1, C), actions); half of the clips have none."""
    angles = torch.rand(count, generator=generator) * 2 * math.pi
    turns = torch.randint(2, (count,), generator=generator)
    is_told = torch.rand(count, generator=generator) < 0.5
    both = torch.stack([angles, angles + TURN * (2 * turns - 1)], dim=1)
    return (points(both) @ linear_map())[:, :, None], torch.where(is_told, turns, NONE)


def trained(config: ForcingConfig, num_steps: int) -> tuple[Network, ShortcutForcing]:
    torch.manual_seed(0)
    network, forcing, generator = Network(), ShortcutForcing(config, C), torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, betas=(0.9, 0.95))
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    for step in range(num_steps):
        clean, actions = clips(256, generator)
        labels = draw_labels(config, [generator] * 256, 2, step / num_steps)
        noise = torch.randn(clean.shape, generator=generator)
        teacher = conditioned(network, actions[labels.bootstrap_rows])
        loss = forcing(conditioned(network, actions), teacher, clean, noise, labels, torch.ones(256))
        optimizer.zero_grad()
        loss.total.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        rate.step()
        forcing.update(loss.parts)
    return network, forcing


@torch.no_grad()
def futures(network: Network, forcing: ShortcutForcing, action: int, num_steps: int, finest: bool) -> Tensor:
    """Sampled next points, turned so that the context lies at angle 0: (N, 2).

    Args:
        finest: label every step with d_min, the only size that a network without bootstrapping has seen.
    """
    generator = torch.Generator().manual_seed(2)
    count, to_latent = 2000, linear_map()
    angles = torch.rand(count, generator=generator) * 2 * math.pi
    context, noise = (points(angles) @ to_latent)[:, None, None], torch.randn(2, count, 1, 1, C, generator=generator)
    denoiser = conditioned(network, torch.full((count,), action))
    shown = corrupt_context(context, noise[0], forcing.signal)
    later = after_context(denoiser, shown, forcing.signal)
    chosen: Denoiser = (lambda z, levels, steps: later(z, levels, torch.ones_like(steps))) if finest else later
    found = sample(chosen, noise[1], num_steps, forcing.signal).flatten(1) @ torch.linalg.pinv(to_latent)
    turned = torch.stack([points(-angles), points(math.pi / 2 - angles)], dim=1)  # rows: images of the axes
    return torch.einsum("nk,nkj->nj", found, turned)


def energy_distance(found: Tensor, true: Tensor) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'|, 0 only for equal distributions."""
    across, within, between = (
        torch.cdist(*pair).mean().item() for pair in ((found, true), (found, found), (true, true))
    )
    return 2 * across - within - between


def judged(network: Network, forcing: ShortcutForcing, num_steps: int, finest: bool) -> dict[str, float]:
    """Without an action: energy distance to both futures, mean distance to the nearer, share nearer to the upper. With one: mean
    distance to the future that it decides."""
    true = points(torch.tensor([-TURN, TURN]))
    either = futures(network, forcing, NONE, num_steps, finest)
    told = futures(network, forcing, 1, num_steps, finest)
    distances = torch.cdist(either, true)
    return {
        "energy": energy_distance(either, true),
        "nearest": distances.amin(dim=1).mean().item(),
        "upper": (distances.argmin(dim=1) == 1).double().mean().item(),
        "told": (told - true[1]).norm(dim=1).mean().item(),
    }


@pytest.mark.slow
def test_bootstrapping_closes_the_gap_of_few_steps():
    """Mean of both futures in one step; near them in four; and with bootstrapping near them in one."""
    flow = trained(ForcingConfig(k_max=K_MAX, bootstrap_fraction=0.0), 3000)
    shortcut = trained(ForcingConfig(k_max=K_MAX, bootstrap_warmup=0.1), 3000)
    found = {
        (name, steps): judged(*model, steps, finest=name == "flow")
        for name, model in (("flow", flow), ("shortcut", shortcut))
        for steps in (1, 4, K_MAX)
    }
    for (name, steps), numbers in found.items():
        print(f"{name}, K = {steps}:", ", ".join(f"{key} {value:.3f}" for key, value in numbers.items()))
    energy, nearest = ({key: numbers[what] for key, numbers in found.items()} for what in ("energy", "nearest"))
    assert energy["flow", 4] < 0.3 * energy["flow", 1]
    gap = energy["flow", 1] - energy["flow", 4]
    assert energy["shortcut", 1] < energy["flow", 1] - 0.6 * gap
    assert energy["shortcut", 4] < 1.3 * energy["flow", 4]  # and at no cost where steps are many
    assert energy["shortcut", K_MAX] < 1.3 * energy["flow", K_MAX]
    assert nearest["flow", 1] > 0.7  # between the futures, each sqrt(3) / 2 away
    assert nearest["shortcut", 1] < 0.7 * nearest["flow", 1]
    assert all(0.4 < found["shortcut", steps]["upper"] < 0.6 for steps in (1, 4, K_MAX))
    assert all(found["shortcut", steps]["told"] < 0.25 for steps in (1, 4, K_MAX))
