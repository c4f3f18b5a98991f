"""The static step is the eager rollout, frame for frame, in any dtype that its weights have."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.wm.shortcut.test_model import KINDS, A, D, P, built, clips
from wm.shortcut.driver import StepDriver
from wm.shortcut.model import BackboneModel
from wm.shortcut.past import RecomputedPast
from wm.shortcut.static_step import StaticStep

ROWS, RING = 2, 5  # clips of 6 frames: a ring of 5 slots
FRAMES = 3 * RING + 3  # written round more than three times


def calm(kind: str) -> BackboneModel:
    """Whose rollouts do not blow rounding up, so that equality can be asked for over many frames."""
    model = built(kind)
    with torch.no_grad():
        model.backbone.to_latents.weight.mul_(0.3)
    model.sampling_steps = 2 if kind == "shortcut" else None
    return model


def driver(model: BackboneModel, batch: int = ROWS) -> StepDriver:
    step = StaticStep(model, batch)
    return StepDriver(step, step.facts, torch.device("cpu"))


def given(known: int, frames: int = FRAMES, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    batch = clips(ROWS, frames)
    return batch.obs.visual[:, :known].to(dtype), batch.actions[:, : frames - 1].to(dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("known", [1, RING + 3])
def test_it_is_the_eager_rollout_over_three_rounds_of_the_ring(kind: str, known: int) -> None:
    model, (context, actions) = calm(kind), given(known)
    expected = model.rollout(context, actions)
    torch.testing.assert_close(driver(model).rollout(context, actions), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_a_reset_forgets_all(kind: str) -> None:
    stepped, (context, actions) = driver(calm(kind)), given(2, 4)
    first = stepped.rollout(context, actions)
    assert torch.equal(stepped.rollout(context, actions), first)
    assert not torch.equal(stepped.rollout(context + 1, actions), first)


def test_soft_capped_logits_are_capped_here_too() -> None:
    model = calm("shortcut")
    context, actions = given(2, 6)
    plain = driver(model).rollout(context, actions)
    changed = model.config.backbone.model_copy(update={"soft_cap": 0.5})
    model.config = model.config.model_copy(update={"backbone": changed})
    model.backbone.config = changed
    for layer in model.backbone.layers:
        layer.soft_cap = 0.5
    found = driver(model).rollout(context, actions)
    torch.testing.assert_close(found, model.rollout(context, actions), rtol=0, atol=1e-10)
    assert (found - plain).abs().max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_slot_holds_before_it_is_written_is_not_seen(kind: str) -> None:
    step = StaticStep(calm(kind), ROWS)
    facts, (context, actions) = step.facts, given(1, 3)
    known, noise = torch.ones(ROWS, 2, dtype=torch.bool), torch.randn(1, 2, P, D, dtype=torch.float64)
    for clock in (0, 2):
        found = []
        for rubbish in (0.0, 7.0):
            ring = torch.ones(facts.ring_shape, dtype=torch.float64)
            ring[..., clock:, :] = rubbish
            found.append(step(context, actions, known, noise, ring, ring, torch.tensor(clock))[0])
        assert torch.equal(*found)
        ring[..., :clock, :] = 2.0
        seen = step(context, actions, known, noise, ring, ring, torch.tensor(clock))[0]
        assert torch.equal(seen, found[0]) == (clock == 0)


@pytest.mark.parametrize("kind", KINDS)
def test_imagining_leaves_what_was_seen(kind: str) -> None:
    """A robot's loop: plans are imagined between one real frame and the next."""
    model, (frames, actions) = calm(kind), given(3, 6)
    stepped = driver(model)
    stepped.observe(frames[:, 0])
    for position in range(1, 3):
        first = stepped.imagine(actions[:, position:])
        assert stepped.num_frames == position
        assert torch.equal(stepped.imagine(actions[:, position:]), first)
        stepped.observe(frames[:, position], actions[:, position - 1])
    expected = model.rollout(frames, actions)
    torch.testing.assert_close(stepped.imagine(actions[:, 2:]), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_actions_that_are_not_known(kind: str) -> None:
    model, (context, actions) = calm(kind), given(3, 5)
    stepped = driver(model)
    for frame in context.unbind(dim=1):
        stepped.observe(frame)  # no action led through the context
    found = stepped.imagine(actions[:, 2:3])
    nothing = model.action_token.null(ROWS, 1)
    known = model.tokens_of(actions[:, :3], None)
    first, last = (1, 3) if kind == "shortcut" else (0, 2)
    tokens = torch.cat([known[:, :first], *[nothing] * 2, known[:, last:]], dim=1)
    expected = _imagined(model, context, tokens)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert (found - model.rollout(context, actions[:, :3])).abs().max() > 1e-4


def _imagined(model: BackboneModel, context: Tensor, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        past = RecomputedPast(model.backbone, model.window)
        return model.content_of(model.imagine(past, model.standardised(context), tokens))


def test_sampling_steps_are_the_models_own() -> None:
    model, (context, actions) = calm("shortcut"), given(2, 4)
    found = []
    for steps in (1, 4):
        with model.sampled_in(steps):
            assert StaticStep(model, ROWS).facts.sampling_steps == steps
            found.append(driver(model).rollout(context, actions))
            torch.testing.assert_close(found[-1], model.rollout(context, actions), rtol=0, atol=1e-10)
    assert (found[0] - found[1]).abs().max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["weights_in", "to"])
def test_weights_in_bfloat16_are_near(kind: str, how: str) -> None:
    """Within 5 % of the frames' spread over 4 frames; frames go in and come out in float32."""
    context, actions = given(2, 6, torch.float32)
    exact = calm(kind).float().rollout(context, actions)
    model = calm(kind).float()
    model = model.weights_in(torch.bfloat16) if how == "weights_in" else model.to(torch.bfloat16)
    found = model.rollout(context, actions)
    assert found.dtype == torch.float32
    error = (found - exact).square().mean().sqrt() / exact.std()
    assert 1e-5 < error < 0.05
    if how == "weights_in":
        assert model.token_mean.dtype == torch.float32
        stepped = driver(model)
        assert stepped._keys.dtype == torch.bfloat16
        torch.testing.assert_close(stepped.rollout(context, actions), found, rtol=0, atol=0.05)


def test_signal_levels_are_never_rounded() -> None:
    signal = built("shortcut").forcing.signal
    exact = signal.tau.clone()
    assert torch.equal(signal.to(torch.bfloat16).tau, exact)
    assert exact.dtype == torch.float64


def test_what_cannot_be_is_refused() -> None:
    step = StaticStep(calm("teacher"), ROWS)
    with pytest.raises(ValueError, match="no frame was seen: observe one first"):
        driver(step.model).imagine(torch.zeros(ROWS, 1, A, dtype=torch.float64))
    with pytest.raises(ValueError, match="a CUDA graph needs a CUDA device, not cpu"):
        StepDriver(step, step.facts, torch.device("cpu"), cuda_graph=True)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_a_captured_graph_is_the_eager_rollout(kind: str) -> None:
    cuda = torch.device("cuda")
    model = calm(kind).to(cuda)
    context, actions = (x.to(cuda) for x in given(3))
    step = StaticStep(model, ROWS)
    graphed = StepDriver(step, step.facts, cuda, cuda_graph=True)
    torch.testing.assert_close(graphed.rollout(context, actions), model.rollout(context, actions), rtol=0, atol=1e-10)
