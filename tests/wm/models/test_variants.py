"""What tells the variants and the ways of concatenation apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.wm.models.conftest import PATCHES, TOKEN_DIM, TwoWorkers
from wm.config.errors import UserError
from wm.losses.ranks import ALONE
from wm.models.heads import TransitionHead

TOKEN = {"model.concat": "token"}


def test_projected_is_80_wide_and_keeps_no_proprio_apart(make_model):
    sizes = {"model.projection.dim": 64, "model.proprio.dim": 32, "model.action.dim": 16}
    model = make_model("projected", sizes)
    assert model.projection[0].in_features == TOKEN_DIM + 32
    assert model.predictor.pos_embedding.shape[-1] == 80
    assert (model.visual_dim, model.content_dim) == (64, 64)
    assert model.proprio(torch.zeros(1, 1, PATCHES, 64)) is None


def test_align_is_176_wide(make_model):
    model = make_model("align", {"model.projection.dim": 128})
    assert model.predictor.pos_embedding.shape[-1] == 176


def test_a_joint_projection_sees_proprio_and_token(make_model, make_batch):
    model, batch = make_model("projected"), make_batch()
    tokens, proprio = batch.obs.visual, model.proprio_embedding(batch.obs.proprio)
    joint = torch.cat([tokens, proprio[:, :, None].expand(-1, -1, PATCHES, -1)], dim=-1)
    assert torch.equal(model.encode_content(batch.obs), model.projection(joint))


def test_tokens_of_their_own(make_model, make_batch):
    model, batch = make_model("baseline", TOKEN), make_batch()
    latent = model.encode(batch.obs, batch.actions)
    assert latent.shape == (3, 3, PATCHES + 2, TOKEN_DIM)
    assert torch.equal(latent[:, :, :PATCHES], batch.obs.visual)
    assert torch.equal(latent[:, :, PATCHES], model.proprio_embedding(batch.obs.proprio))
    assert torch.equal(latent[:, :, -1], model.action_embedding(batch.actions))
    content = model.predict(latent[:, :2])
    assert content.shape == (3, 2, PATCHES + 1, TOKEN_DIM)
    assert model.visual(content).shape == (3, 2, PATCHES, TOKEN_DIM)
    assert model.proprio(content).shape == (3, 2, 1, TOKEN_DIM)
    assert model.rollout(model.encode_content(batch.obs)[:, :2], batch.actions).shape == (3, 2, PATCHES + 1, TOKEN_DIM)


def test_published_sizes():
    from wm.config.model import DinoWmConfig
    from wm.models.world_model import WorldModel

    sizes = {"token_dim": 384, "tokens_per_frame": 196, "action_dim": 10, "proprio_dim": 4}
    for config, count in (
        (DinoWmConfig(), 20_122_600),
        (DinoWmConfig(history_len=1), 19_964_232),
        (DinoWmConfig(concat="token"), 19_129_344),
    ):
        with torch.device("meta"):
            model = WorldModel(config, **sizes)
        assert sum(p.numel() for p in model.predictor.parameters()) == count


@pytest.mark.parametrize("variant", ["baseline", "align", "align_recon_dynamics"])
def test_token_concatenation_trains_every_variant(make_model, make_batch, variant):
    model = make_model(variant, TOKEN, rollout_horizon=2)
    model.losses(make_batch(frames=4)).total.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert set(silent) <= {"action_embedding.null", "proprio_embedding.null"}


def test_a_clip_without_proprio_gets_the_null_proprio(make_model, make_batch):
    model, batch = make_model("baseline"), make_batch()
    torch.nn.init.normal_(model.proprio_embedding.null)
    partly = replace(batch.obs, has_proprio=torch.tensor([True, False, True]))
    proprio = model.proprio(model.encode_content(partly))
    null = model.proprio_embedding.null.expand_as(proprio[1])
    assert torch.equal(proprio[1], null)
    whole = model.proprio(model.encode_content(batch.obs))
    assert torch.equal(proprio[0], whole[0])
    assert not torch.equal(proprio[1], whole[1])
    # Its values count for nothing.
    changed = replace(partly, proprio=_moved(partly.proprio))
    assert torch.equal(model.encode_content(changed)[1], model.encode_content(partly)[1])


def _moved(proprio: torch.Tensor) -> torch.Tensor:
    moved = proprio.clone()
    moved[1] += 7
    return moved


def test_repeats_tile_the_whole_vector(make_model, make_batch):
    model, batch = make_model("baseline", {"model.action.repeat": 2, "model.proprio.repeat": 3}), make_batch()
    latent = model.encode(batch.obs, batch.actions)
    once = model.action_embedding.linear(batch.actions)
    assert torch.equal(latent[:, :, 0, -20:], torch.cat([once, once], dim=-1))
    assert torch.equal(
        model.proprio(latent)[:, :, 0], model.proprio_embedding.linear(batch.obs.proprio).repeat(1, 1, 3)
    )


# -- terms of single variants ----


def test_latent_dynamics_is_the_patch_mean_of_the_next_frame(make_model, make_batch):
    """Faults: the alignment loss again under another name; (z_pred - z_src)^2, which rewards copying."""
    model, batch = make_model("projected"), make_batch()
    content = model.encode_content(batch.obs)
    predicted = model.predict(model.with_actions(content[:, :2], batch.actions[:, :2]))
    expected = (predicted.mean(dim=2) - content[:, 1:3].mean(dim=2)).square().mean()
    torch.testing.assert_close(model.losses(batch).parts["latent_dynamics_loss"], expected.detach())
    copying = (predicted.mean(dim=2) - content[:, :2].mean(dim=2)).square().mean()
    assert not torch.allclose(expected, copying, rtol=1e-3)


def test_temporal_dynamics_goes_one_step_forward_on_the_aligned_channels(make_model, make_batch):
    model, batch = make_model("align_recon_dynamics"), make_batch()
    aligned = model.aligned(model.encode_content(batch.obs))
    actions = model.action_embedding(batch.actions)
    steps = [
        model.transition_head(aligned[:, t : t + 1], actions[:, t : t + 1]) - aligned[:, t + 1 : t + 2] for t in (0, 1)
    ]
    expected = torch.cat(steps, dim=1).square().mean()
    torch.testing.assert_close(model.losses(batch).parts["temporal_dynamics_loss"], expected.detach())


def test_the_transition_is_linear_gelu_linear():
    head = TransitionHead(2, 3, 5)
    aligned, actions = torch.randn(2, 4, 2), torch.randn(2, 4, 3)
    first, last = head.net[0], head.net[-1]
    hidden = torch.nn.functional.gelu(torch.cat([aligned, actions], dim=-1) @ first.weight.T + first.bias)
    torch.testing.assert_close(head(aligned, actions), hidden @ last.weight.T + last.bias)


@pytest.mark.parametrize("alignment", ["state_mse", "infonce"])
@pytest.mark.parametrize("variant", ["align_recon_dynamics", "projected"])
def test_every_mean_is_of_the_global_batch(make_model, make_batch, variant, alignment):
    changes = {"model.masking": {"kind": "tube", "ratio": 0.5}, "model.alignment.kind": alignment}
    model, batch = make_model(variant, changes, rollout_horizon=2).train(), make_batch(frames=4)
    found = []
    for ranks in (ALONE, TwoWorkers()):
        torch.manual_seed(0)
        found.append(model.losses(batch, ranks=ranks).parts)
    assert {"masked_loss", "rollout_loss", "alignment_loss"} < found[0].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value / 2, msg=name)


def test_the_target_of_temporal_dynamics_is_detached(make_model, make_batch):
    off = {f"model.{term}.weight.start": 0.0 for term in ("alignment", "reconstruction", "prediction")}
    model, batch = make_model("align_recon_dynamics", off), make_batch()
    visual = batch.obs.visual.clone().requires_grad_()
    model.losses(replace(batch, obs=replace(batch.obs, visual=visual))).total.backward()
    assert visual.grad is not None
    assert not visual.grad[:, -1].any()  # the last frame is a target alone
    assert visual.grad[:, 0].any()


def test_aligned_channels_have_nothing_of_the_others(make_model, make_batch):
    model, batch = make_model("align", {"model.alignment.dim": 3}), make_batch()
    content = model.encode_content(batch.obs)
    changed = content.clone()
    changed[..., 3:] += 1
    assert torch.equal(model.aligned(content), model.aligned(changed))
    assert model.aligned(content).shape == (3, 3, 3)


def test_prediction_has_a_weight_and_a_kind(make_model, make_batch):
    batch = make_batch(frames=4)
    model = make_model(
        "baseline", {"model.prediction": {"loss": "l1", "weight": {"kind": "linear", "start": 1.0, "end": 3.0}}}, 2
    )
    plain = make_model("baseline", {"model.prediction.loss": "l1"}, 2)
    torch.testing.assert_close(model.losses(batch, 0.5).total, 2 * plain.losses(batch).total)
    content = model.encode_content(batch.obs)
    predicted = model.predict(model.with_actions(content[:, :2], batch.actions[:, :2]))
    expected = (predicted - content[:, 1:3]).abs().mean()
    torch.testing.assert_close(model.losses(batch).parts["z_loss"], expected.detach())


def test_a_term_from_outside_is_weighted_and_trained(make_model, make_batch):
    class Smooth(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(2.0))

        def forward(self, model, forward):
            return (
                self.scale
                * (model.visual(forward.predicted)[:, 1:] - model.visual(forward.predicted)[:, :-1]).square().mean()
            )

    term = {"model.terms.smooth": {"target": "my_lab.terms:Smooth", "weight": {"kind": "constant", "start": 3.0}}}
    model, batch = make_model("align", term), make_batch()
    model.add_terms({"smooth": Smooth()})
    terms = model.losses(batch)
    torch.testing.assert_close(terms.weighted["smooth_loss"].detach(), 3 * terms.parts["smooth_loss"])
    terms.total.backward()
    assert model.terms["smooth"].scale.grad.abs() > 0
    assert "terms.smooth.scale" in model.state_dict()


def test_the_variance_term_is_of_the_visual_channels_and_follows_its_schedule(make_model, make_batch):
    variance = {"kind": "hinge", "target": 2.0, "weight": {"kind": "linear", "start": 0.5, "end": 1.5}}
    model, batch = make_model("align", {"model.variance": variance}), make_batch()
    visual = model.visual(model.encode_content(batch.obs)).flatten(0, 2)
    expected = (2.0 - (visual.var(dim=0) + 1e-4).sqrt()).clamp_min(0).mean().detach()
    for progress, weight in ((0.0, 0.5), (0.5, 1.0), (1.0, 1.5)):
        terms = model.losses(batch, progress)
        torch.testing.assert_close(terms.parts["variance_loss"], expected)
        torch.testing.assert_close(terms.weighted["variance_loss"].detach(), weight * expected)
    assert torch.equal(model.losses(batch).total, model.losses(batch, 0.0).total)
    assert "variance_loss" not in make_model("align").losses(batch).parts


def test_terms_say_which_labels_their_rows_need(make_model, make_batch):
    assert make_model("align").losses(make_batch()).label == {"alignment_loss": "state"}


@pytest.mark.parametrize("concat", ["channel", "token"])
def test_the_parts_of_a_latent_are_those_of_its_content(make_model, make_batch, concat):
    model, batch = make_model("align", {"model.concat": concat}), make_batch()
    content = model.encode_content(batch.obs)
    latent = model.with_actions(content, batch.actions)
    assert torch.equal(model.visual(latent), model.visual(content))
    assert torch.equal(model.proprio(latent), model.proprio(content))


def test_a_joint_projection_without_proprio_sees_the_tokens_alone(make_model, make_batch):
    model, batch = make_model("projected", {"model.proprio": "none"}), make_batch()
    assert torch.equal(model.encode_content(batch.obs), model.projection(batch.obs.visual))
    assert torch.isfinite(model.losses(batch).total)


def test_all_visual_channels_may_be_aligned_and_no_more(make_model):
    assert make_model("align", {"model.alignment.dim": 8}).aligned_dim == 8
    with pytest.raises(UserError, match=r"alignment.dim \(9\) must be at most projection.dim \(8\)"):
        make_model("align", {"model.alignment.dim": 9})


def test_the_decoder_s_losses_are_of_the_global_batch(make_model, make_batch):
    decoder = {"kind": "vqvae", "channel": 8, "num_blocks": 0, "block_channels": 4}
    model = make_model("align", {"model.decoder": decoder})
    batch = replace(make_batch(), images=torch.randint(0, 256, (3, 3, 32, 32, 3), dtype=torch.uint8))
    name = "decoder_recon_loss_reconstructed"
    alone, together = (model.losses(batch, ranks=ranks).parts[name] for ranks in (ALONE, TwoWorkers()))
    torch.testing.assert_close(together, alone / 2)
