"""The world models of shortcut forcing and of its ablation: what they promise to planners, probes and trainers."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from wm.config.backbone import BackboneConfig
from wm.config.forcing import ForcingConfig
from wm.config.shortcut import ShortcutActionConfig, ShortcutConfig, TeacherForcingConfig
from wm.shortcut.actions import ActionToken
from wm.shortcut.model import BackboneModel
from wm.shortcut.past import RecomputedPast
from wm.shortcut.shortcut import ShortcutModel
from wm.shortcut.teacher import TeacherForcedModel
from wm.types import Batch, Observation

P, D, A = 4, 6, 3
BACKBONE = BackboneConfig(width=32, depth=4, heads=4, kv_heads=2, head_dim=8, registers=1, time_every=2)
KINDS = ("shortcut", "teacher")


def built(kind: str, **changes) -> BackboneModel:
    """With weights that are not zero anywhere, in float64."""
    forcing = ForcingConfig(k_max=8, **changes.pop("forcing", {})) if kind == "shortcut" else TeacherForcingConfig()
    config = ShortcutConfig(history_len=2, clip_frames=6, backbone=BACKBONE, forcing=forcing, **changes)
    torch.manual_seed(0)
    cls = ShortcutModel if kind == "shortcut" else TeacherForcedModel
    model = cls(config, token_dim=D, tokens_per_frame=P, action_dim=A).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.use_token_statistics(torch.linspace(-1, 1, D), torch.linspace(0.5, 2, D))
    return model.eval()


def clips(num_clips: int = 5, frames: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return Batch(
        obs=Observation(normal(num_clips, frames, P, D)),
        actions=normal(num_clips, frames, A),
        has_actions=torch.arange(num_clips) % 3 != 1,
        state=None,
        has_state=torch.zeros(num_clips, dtype=torch.bool),
        weights=torch.ones(num_clips, dtype=torch.float64),
        seeds=torch.arange(num_clips) + 100,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_latents_are_standardised_and_back(kind: str) -> None:
    model, batch = built(kind), clips()
    content = model.encode_content(batch.obs)
    torch.testing.assert_close(model.content_of(model.standardised(content)), content)
    torch.testing.assert_close(
        model.standardised(model.token_mean.expand(1, 1, P, D)), torch.zeros(1, 1, P, D).double()
    )
    assert {"token_mean", "token_std"} <= set(model.state_dict())
    with pytest.raises(ValueError, match="encode pixels"):
        model.encode_content(Observation(torch.zeros(1, 1, 8, 8, 3, dtype=torch.uint8)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("known", [1, 2, 3])
def test_a_cached_rollout_is_the_recomputed_one(kind: str, known: int) -> None:
    """Three ways to the same frames: keys and values, every frame anew under a gradient, and one context for all samples."""
    model, batch = built(kind), clips()
    context, actions = batch.obs.visual[:, :known], batch.actions[:, : known + 2]
    cached = model.rollout(context, actions, batch.has_actions)
    assert cached.shape == (5, 3, P, D)
    anew = model.rollout(context, actions.clone().requires_grad_(), batch.has_actions)
    assert anew.requires_grad
    assert not cached.requires_grad
    torch.testing.assert_close(cached, anew.detach(), rtol=1e-9, atol=1e-9)
    actions = torch.cat([actions[:1, : known - 1].expand(5, -1, -1), actions[:, known - 1 :]], dim=1)
    repeated = model.rollout(context[:1].expand(5, -1, -1, -1), actions)
    torch.testing.assert_close(model.rollout(context[:1], actions), repeated, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollout_does_not_depend_on_what_is_computed_beside_it(kind: str) -> None:
    model, batch = built(kind), clips()
    context, actions = batch.obs.visual[:, :2], batch.actions[:, :4]
    whole = model.rollout(context, actions)
    torch.testing.assert_close(whole[2:3], model.rollout(context[2:3], actions[2:3]), rtol=1e-9, atol=1e-9)
    torch.manual_seed(5)
    assert torch.equal(whole, model.rollout(context, actions))


@pytest.mark.parametrize("kind", KINDS)
def test_an_action_changes_the_frame_that_it_leads_to_and_none_before(kind: str) -> None:
    model, batch = built(kind), clips()
    context, actions = batch.obs.visual[:, :2], batch.actions[:, :5]
    changed = actions.clone()
    changed[:, 3] += 1
    before, after = model.rollout(context, actions), model.rollout(context, changed)
    torch.testing.assert_close(before[:, :2], after[:, :2], rtol=1e-12, atol=1e-12)
    assert (before[:, 2] - after[:, 2]).abs().max() > 1e-3
    unknown = model.rollout(context, actions, torch.zeros(5, dtype=torch.bool))
    assert torch.equal(unknown, model.rollout(context, changed, torch.zeros(5, dtype=torch.bool)))
    assert (unknown - before).abs().max() > 1e-3


@pytest.mark.parametrize("action_dim", [2, 10, 35])
def test_an_action_s_token_is_as_loud_as_a_position(action_dim: int) -> None:
    """Positions have a spread of 1; the null action adds nothing to its own."""
    torch.manual_seed(0)
    token = ActionToken(action_dim, 128, 256, {})
    found = token(torch.randn(64, 3, action_dim))
    assert 0.6 < float(found.detach().std()) < 1.8
    assert not token.null(2, 3).any()


def test_more_steps_and_other_noise_are_other_frames() -> None:
    model, batch = built("shortcut"), clips()
    assert isinstance(model, ShortcutModel)
    context, actions = batch.obs.visual[:, :2], batch.actions[:, :3]
    found = [model.rollout(context, actions)]
    model.sampling_steps = 1
    found.append(model.rollout(context, actions))
    model.future = 1
    found.append(model.rollout(context, actions))
    assert all((a - b).abs().max() > 1e-3 for a, b in itertools.pairwise(found))


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_of_a_batch_add_up(kind: str) -> None:
    """Labels, noise and action dropout are the clip's own: gradients of pieces are those of the whole."""
    model, batch = built(kind, action=ShortcutActionConfig(hidden=8, dropout=0.5)), clips(8)
    model.train()

    def gradients(pieces: list[Batch]) -> list[Tensor]:
        model.zero_grad()
        for piece in pieces:
            (model.losses(piece, 0.5).total * piece.num_clips / 8).backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    whole, cut = gradients([batch]), gradients(batch.chunks(3))
    assert len(whole) == len(cut) == len([p for p in model.parameters() if p.requires_grad])
    for one, other in zip(whole, cut, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_actions_of_clips_without_labels_change_nothing(kind: str) -> None:
    model, batch = built(kind, action=ShortcutActionConfig(hidden=8, dropout=0.0)), clips()
    changed = replace(batch, actions=torch.where(batch.has_actions[:, None, None], batch.actions, 9.0))
    assert torch.equal(model.losses(batch).total, model.losses(changed).total)
    assert not torch.equal(model.losses(batch).total, model.losses(replace(batch, actions=batch.actions + 1)).total)


def test_a_running_scale_follows_the_loss() -> None:
    model, batch = built("shortcut", forcing={"bootstrap_fraction": 0.5}), clips(8)
    first = model.losses(batch, 0.5)
    model.after_step(0.5, first.parts)
    second = model.losses(batch, 0.5)
    assert first.parts["forcing_flow"] == second.parts["forcing_flow"]
    assert float(second.total.detach()) == pytest.approx(1.0, abs=0.1)  # each kind by its share of the frames
    assert second.total != first.total


def test_a_past_of_its_own_forgets_what_was_not_committed() -> None:
    model = built("shortcut")
    past = RecomputedPast(model.backbone, 6)
    latents, label = torch.randn(1, 2, P, D).double(), torch.ones(1, 2, dtype=torch.long)
    tokens = torch.randn(1, 2, 32).double()
    past.step(latents, label, label, tokens, 1)
    new = torch.randn(1, 1, P, D).double()
    found = past.step(new, label[:, :1], label[:, :1], tokens[:, 1:])
    expected = model.backbone(torch.cat([latents[:, :1], new], dim=1), label, label, tokens)[:, 1:]
    torch.testing.assert_close(found, expected)
