"""What is drawn: its support, its shares, and that a clip's draw is its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import product

import pytest
import torch
from torch import Tensor

from wm.config.forcing import ForcingConfig
from wm.config.schedule import LinearSchedule
from wm.data.clip_seeds import clip_seeds
from wm.shortcut.labels import Labels, draw_labels, finest_step, row_generators
from wm.shortcut.sampler import context_labels, sample
from wm.shortcut.signal import SignalGrid

Label = tuple[int, int]


def generators(seed: int, step: int, places: Sequence[int]) -> list[torch.Generator]:
    return row_generators(clip_seeds(seed, step, places).tolist(), "labels")


def drawn(config: ForcingConfig, rows: int = 4000, frames: int = 3, progress: float = 1.0) -> Labels:
    return draw_labels(config, generators(7, 3, range(rows)), frames, progress)


def support(config: ForcingConfig) -> tuple[set[Label], set[Label], set[Label]]:
    """Labels of a flow clip's frames, of a bootstrap clip's frames at d_min, and of those with a larger d: frames independent of
    each other but for one rule, that a bootstrap clip has one of the last. Read from SCIENCE section 3, not from the code."""
    k = config.k_max
    finest = {(level, 1) for level in range(k)}
    larger = {(level, step) for step in (2**i for i in range(1, 8)) if step <= k for level in range(0, k, step)}
    return finest | {(k, 1)}, finest, larger


def has_positive_probability(config: ForcingConfig, frames: list[Label]) -> bool:
    flow, kept, larger = support(config)
    is_bootstrap = all(frame in kept | larger for frame in frames) and any(frame in larger for frame in frames)
    return is_bootstrap or all(frame in flow for frame in frames)


def asked(signal: SignalGrid, num_steps: int) -> list[Label]:
    """Labels of the current frame that the sampler asks the denoiser about."""
    found: list[Label] = []

    def denoiser(latents: Tensor, levels: Tensor, steps: Tensor) -> Tensor:
        found.append((int(levels[0, 0]), int(steps[0, 0])))
        return latents

    sample(denoiser, torch.zeros(1, 1, 1, 1), num_steps, signal)
    return found


@pytest.mark.parametrize("k_max", [8, 64, 128])
def test_every_label_of_inference_is_trained_beside_its_context(k_max):
    config = ForcingConfig(k_max=k_max)
    signal = SignalGrid(config, 1)
    levels, steps = context_labels(signal, 1, 3)
    context = list(zip(levels[0].tolist(), steps[0].tolist(), strict=True))
    for num_steps in (2**i for i in range(8)):
        if num_steps <= k_max:
            labels = asked(signal, num_steps)
            assert len(labels) == num_steps
            assert all(has_positive_probability(config, [*context, current]) for current in labels)
    assert not has_positive_probability(config, [(k_max, 1), (0, k_max)])  # clean context beside a larger step never is


def test_the_draw_s_support_is_the_specification_s():
    """Monte Carlo with k_max 8 and two frames: each of the joint labels that should occur does, and no other."""
    config = ForcingConfig(k_max=8, bootstrap_fraction=0.5, clean_probability=0.2)
    labels = drawn(config, rows=40_000, frames=2)
    found = Counter(
        tuple(zip(levels, steps, strict=True))
        for levels, steps in zip(labels.levels.tolist(), labels.steps.tolist(), strict=True)
    )
    flow, kept, larger = support(config)
    every = flow | kept | larger
    expected = {pair for pair in product(every, every) if has_positive_probability(config, list(pair))}
    assert set(found) == expected
    assert len(expected) == 9 * 9 + 2 * 8 * 7 + 7 * 7


def test_the_shares_are_as_stated():
    config = ForcingConfig(bootstrap_fraction=0.25, clean_probability=0.05)
    labels = drawn(config, rows=20_000, frames=2)
    is_bootstrap = labels.bootstrapped.any(dim=1)
    assert is_bootstrap.double().mean().item() == pytest.approx(0.25, abs=0.01)
    # Of two frames, both keep d_min with probability 1/4, and then one of them does not: 3/4 x 2/3 + 1/4 x 1/2 of the frames.
    assert labels.bootstrapped[is_bootstrap].double().mean().item() == pytest.approx(0.625, abs=0.01)
    sizes = labels.steps[labels.bootstrapped].log2()
    assert [(sizes == i).double().mean().item() for i in range(1, 7)] == pytest.approx([1 / 6] * 6, abs=0.02)
    flow = labels.levels[~is_bootstrap]
    assert (flow == 64).double().mean().item() == pytest.approx(0.05, abs=0.005)
    assert flow[flow < 64].double().mean().item() == pytest.approx(31.5, abs=0.5)
    assert labels.bootstrap_rows.tolist() == is_bootstrap.nonzero().flatten().tolist()
    assert (labels.bootstrapped == (labels.steps > 1)).all()


def test_one_frame_alone_is_bootstrapped_in_every_bootstrap_clip():
    labels = drawn(ForcingConfig(bootstrap_fraction=1.0), frames=1)
    assert labels.bootstrapped.all()


def test_the_warm_up_has_no_bootstrap_clip():
    config = ForcingConfig(bootstrap_fraction=1.0, bootstrap_warmup=0.3)
    assert not drawn(config, progress=0.29).bootstrapped.any()
    assert drawn(config, progress=0.3).bootstrapped.any(dim=1).all()


def test_a_clip_s_draw_does_not_depend_on_the_cut_of_the_batch():
    config = ForcingConfig()
    whole = drawn(config, rows=12)
    for places in ([0, 1, 2], [11], [1, 3, 5, 7, 9, 11], [4, 2]):
        part = draw_labels(config, generators(7, 3, places), 3, 1.0)
        assert torch.equal(part.levels, whole.levels[places])
        assert torch.equal(part.steps, whole.steps[places])
        assert torch.equal(part.bootstrapped, whole.bootstrapped[places])
    noise = [torch.randn(3, generator=generator) for generator in generators(7, 3, range(3))]
    assert torch.equal(noise[2], torch.randn(3, generator=generators(7, 3, [2])[0]))


def test_seeds_steps_and_places_all_count():
    draws = {
        tuple(torch.rand(2, generator=generators(seed, step, [place])[0]).tolist())
        for seed, step, place in product(range(3), repeat=3)
    }
    assert len(draws) == 27


def test_a_curriculum_begins_on_a_coarse_grid():
    config = ForcingConfig(grid=LinearSchedule(start=0.125, end=1.0, over=0.5), bootstrap_fraction=0.5)
    assert [finest_step(config, progress) for progress in (0.0, 0.05, 0.2, 0.49, 0.5, 1.0)] == [8, 8, 4, 2, 1, 1]
    early = drawn(config, progress=0.0)
    assert set(early.steps.unique().tolist()) == {8, 16, 32, 64}
    assert (early.levels % 8 == 0).all()
    assert (early.bootstrapped == (early.steps > 8)).all()
    assert (
        finest_step(ForcingConfig(grid=LinearSchedule(start=0.0)), 0.0) == 32
    )  # two steps: one cannot be taught by halves
