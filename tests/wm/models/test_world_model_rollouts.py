"""The assembly's rollouts, latents and alignment: shapes, order, and what each reads."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.wm.models.conftest import PATCHES, STATE_NAMES
from wm.config.errors import UserError
from wm.config.model import DinoWmConfig, EmbeddedProprio, LinearProjection, MlpProjection, NoProjection
from wm.config.resolve import variant_names
from wm.models.projection import build_projection
from wm.models.world_model import WorldModel
from wm.types import Observation

VARIANTS = variant_names("dino_wm")
INFONCE = {"model.alignment": {"kind": "infonce", "regularization": 0.1}}


# -- rollouts ----


@torch.no_grad()
@pytest.mark.parametrize("given", [1, 2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_rollout_is_the_loop(make_model, make_batch, variant, given):
    model, batch = make_model(variant), make_batch(frames=6)
    frames = list(model.encode_content(batch.obs)[:, :given].unbind(1))
    for step in range(given, 7):
        window = range(max(0, step - model.history_len), step)
        latent = torch.stack(
            [model.with_actions(frames[i][:, None], batch.actions[:, i : i + 1])[:, 0] for i in window], 1
        )
        frames.append(model.predict(latent)[:, -1])
    imagined = model.rollout(torch.stack(frames[:given], 1), batch.actions)
    assert imagined.shape[1] == 6 - given + 1
    torch.testing.assert_close(imagined, torch.stack(frames[given:], 1))


@torch.no_grad()
def test_a_later_action_cannot_change_an_earlier_frame(make_model, make_batch):
    model, batch = make_model("align"), make_batch(frames=5)
    context = model.encode_content(batch.obs)[:, :2]
    for step in range(5):
        changed = batch.actions.clone()
        changed[:, step] += 1
        difference = (model.rollout(context, changed) - model.rollout(context, batch.actions)).abs().amax(dim=(0, 2, 3))
        first = max(0, step - 1)  # frame k + 2 is the first that action k + 1 leads to
        assert not difference[:first].any()
        assert difference[first] > 0


def test_two_steps_of_the_loss(make_model, make_batch):
    """Teacher-forced step, plus the MSE of the step after it, made from the model's own latent."""
    model, batch = make_model("align", {"model.alignment": "none"}, 2), make_batch(frames=4)
    content = model.encode_content(batch.obs)
    latent = model.with_actions(content, batch.actions)
    first = model.predict(latent[:, :2])
    own = torch.cat([latent[:, 1:2], model.with_actions(first[:, -1:], batch.actions[:, 2:3])], dim=1)
    second = model.predict(own)[:, -1]
    expected = (first - content[:, 1:3].detach()).square().mean() + (second - content[:, 3].detach()).square().mean()
    terms = model.losses(batch)
    torch.testing.assert_close(terms.total, expected)
    parameters = list(model.projection.parameters())
    ours, theirs = (torch.autograd.grad(loss, parameters) for loss in (terms.total, expected))  # through the rollout
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("history", "frames"), [(2, 5), (1, 7)])  # frames beyond the horizon are left alone
def test_three_steps_are_a_sum(make_model, make_batch, history, frames):
    model = make_model("baseline", {"model.history_len": history}, rollout_horizon=3)
    batch = replace(make_batch(frames=frames), has_actions=torch.tensor([True, False, True]))
    content = model.encode_content(batch.obs)
    imagined = model.rollout(content[:, :history], batch.actions[:, : history + 2], batch.has_actions)
    expected = sum((imagined[:, k] - content[:, history + k]).square().mean() for k in (1, 2))
    torch.testing.assert_close(model.losses(batch).parts["rollout_loss"], expected.detach())


# -- latents ----


def test_channels_are_visual_then_proprio_then_action(make_model, make_batch):
    model, batch = make_model("align"), make_batch()
    latent = model.encode(batch.obs, batch.actions)
    visual, content = model.visual_dim, model.content_dim
    assert (visual, content, latent.shape[-1]) == (8, 8 + 32, 8 + 32 + 16)
    torch.testing.assert_close(latent[..., :visual], model.projection(batch.obs.visual))
    assert batch.obs.proprio is not None
    for patch in range(PATCHES):
        torch.testing.assert_close(latent[:, :, patch, visual:content], model.proprio_embedding(batch.obs.proprio))
        torch.testing.assert_close(latent[:, :, patch, content:], model.action_embedding(batch.actions))


def test_without_proprio_content_is_visual(make_model, make_batch):
    model, batch = make_model("align", {"model.proprio": "none"}), make_batch()
    assert model.content_dim == model.visual_dim
    other = replace(batch, obs=Observation(batch.obs.visual, torch.zeros_like(batch.obs.proprio)))
    assert torch.equal(model.losses(batch).total, model.losses(other).total)


def test_pixels_are_refused(make_model):
    pixels = Observation(torch.zeros(1, 2, 8, 8, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="takes patch tokens"):
        make_model().encode_content(pixels)


def test_projections():
    module, width = build_projection(NoProjection(), 12)
    assert (width, list(module.parameters())) == (12, [])
    module, width = build_projection(LinearProjection(dim=5), 12)
    assert (width, sum(p.numel() for p in module.parameters())) == (5, 12 * 5 + 5)
    module, width = build_projection(MlpProjection(dim=5, hidden=7), 12)
    assert (width, sum(p.numel() for p in module.parameters())) == (5, 12 * 7 + 7 + 7 * 5 + 5)
    module, width = build_projection(LinearProjection(dim=16, norm="layernorm"), 12)
    assert sum(p.numel() for p in module.parameters()) == 12 * 16 + 16  # no affine
    out = module(100 * torch.randn(3, 12))
    torch.testing.assert_close(out.mean(-1), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.var(-1, correction=0), torch.ones(3), rtol=0, atol=1e-3)


# -- alignment ----


@pytest.mark.parametrize("keys", [("x", "y", "angle"), ("angle", "x"), ("y",)])
def test_state_keys_keep_their_order(make_model, make_batch, keys):
    model, batch = make_model("align", {"model.alignment.state_keys": list(keys)}), make_batch()
    assert batch.state is not None
    wanted = torch.stack([batch.state[..., STATE_NAMES.index(key)] for key in keys], dim=-1)
    content = model.encode_content(batch.obs)
    predicted = model.predict(model.with_actions(content, batch.actions)[:, :2])

    def error(latents: Tensor, states: Tensor) -> Tensor:
        return (model.alignment_head(latents[..., :7].mean(dim=2)) - states).square().mean()

    expected = (error(predicted, wanted[:, 1:3]) + error(content, wanted)) / 2
    torch.testing.assert_close(model.losses(batch).parts["alignment_loss"], expected.detach())
    assert model.alignment_head.out_features == len(keys)


def test_no_keys_mean_all(make_model):
    assert make_model("align").state_indices == [0, 1, 2]


@pytest.mark.parametrize(("on_predicted", "on_encoded"), [(True, False), (False, True)])
def test_predicted_latents_meet_the_next_state_and_encoded_ones_their_own(
    make_model, make_batch, on_predicted, on_encoded
):
    switches = {"model.alignment": {"on_predicted": on_predicted, "on_encoded": on_encoded}}
    model, batch = make_model("align", switches), make_batch()
    loss = model.losses(batch).parts["alignment_loss"]
    for frame in range(3):
        assert batch.state is not None
        changed = batch.state.clone()
        changed[:, frame] += 1
        moved = not torch.equal(loss, model.losses(replace(batch, state=changed)).parts["alignment_loss"])
        assert moved is (on_encoded or frame > 0)  # the first frame is nobody's next


def test_alignment_reads_leading_visual_channels_only(make_model, make_batch):
    model = make_model("align", {"model.alignment.dim": 3})
    content = torch.randn(2, 2, PATCHES, model.content_dim)
    changed = content.clone()
    changed[..., 3:] += 1
    assert torch.equal(model.aligned(content), model.aligned(changed))
    torch.testing.assert_close(model.aligned(content), content[..., :3].mean(2))


def test_infonce_regularises_w_once(make_model, make_batch):
    kind = {"model.alignment.kind": "infonce"}
    plain = make_model("align", kind)
    regular = make_model("align", {**kind, "model.alignment.regularization": 0.5})
    difference = (
        regular.losses(make_batch()).parts["alignment_loss"] - plain.losses(make_batch()).parts["alignment_loss"]
    )
    torch.testing.assert_close(difference, 0.5 * plain.alignment_head.weight.detach().square().sum())


def assemble(config: DinoWmConfig, **more) -> WorldModel:
    return WorldModel(config, token_dim=4, tokens_per_frame=2, action_dim=2, **more)


def test_what_the_data_cannot_give_is_refused_in_one_line(make_model):
    with pytest.raises(UserError, match=r"state_keys: the data has no 'angel'\. Did you mean 'angle'\?"):
        make_model("align", {"model.alignment.state_keys": ["angel"]})
    aligned = make_model("align").config.model_copy(update={"projection": NoProjection()})
    with pytest.raises(UserError, match=r"the data has no proprio; say model\.proprio=none"):
        assemble(DinoWmConfig(proprio=EmbeddedProprio()))
    with pytest.raises(UserError, match=r"no state to align with; say model\.alignment=none"):
        assemble(aligned, proprio_dim=2)
    with pytest.raises(UserError, match="7 is more than the 4 visual channels"):
        assemble(aligned, proprio_dim=2, state_names=("x",))
