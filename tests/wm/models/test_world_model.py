"""The assembly: what each variant learns, from what, and what must not matter."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from wm.config.resolve import variant_names
from wm.config.train import OptimizerConfig
from wm.models.world_model import WorldModel
from wm.training.optimizer import build_optimizer
from wm.types import Batch, Observation

VARIANTS = variant_names("dino_wm")
NULLS = {"action_embedding.null", "proprio_embedding.null"}  # learn from clips without labels, and from nothing else
INFONCE = {"model.alignment": {"kind": "infonce", "regularization": 0.1}}


def unlabelled(batch: Batch, row: int) -> Batch:
    """The same clips, one of them without actions and state."""
    keep = torch.arange(batch.num_clips) != row
    return replace(batch, has_actions=keep, has_state=keep)


def gradients(model: WorldModel, batch: Batch) -> dict[str, Tensor | None]:
    model.zero_grad()
    model.losses(batch).total.backward()
    return {name: p.grad for name, p in model.named_parameters()}


# -- what is learned ----


@pytest.mark.parametrize(
    ("variant", "changes"),
    [(variant, {}) for variant in VARIANTS]
    + [("align", INFONCE), ("align_recon", {"model.projection.kind": "mlp"}), ("align", {"model.proprio": "none"})],
)
def test_every_parameter_learns_and_is_in_one_optimiser_group(make_model, make_batch, variant, changes):
    """Faults: W created inside forward(); projection and reconstruction held by no optimiser."""
    model = make_model(variant, changes)
    optimizer = build_optimizer(model, OptimizerConfig())
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    assert all(p.requires_grad for p in model.parameters())

    for name, gradient in gradients(model, make_batch()).items():
        if name not in NULLS:
            assert gradient is not None, name
            assert gradient.abs().max() > 0, name
    # With a clip that has no labels the null action learns too.
    null = gradients(model, unlabelled(make_batch(), 0))["action_embedding.null"]
    assert null is not None
    assert null.abs().max() > 0


def test_without_proprio_in_the_data_its_null_learns(make_model, make_batch):
    batch = make_batch()
    bare = replace(batch, obs=Observation(batch.obs.visual))
    found = gradients(make_model("baseline"), bare)
    assert found["proprio_embedding.null"] is not None
    assert found["proprio_embedding.null"].abs().max() > 0


def test_one_step_moves_projection_w_and_reconstruction(make_model, make_batch):
    """Fault: "128-d" results of a random projection, aligned by a random W."""
    model = make_model("align_recon")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.0))
    model.losses(make_batch()).total.backward()
    optimizer.step()
    for part in ("projection", "alignment_head", "reconstruction_head", "predictor", "action_embedding.linear"):
        moved = [not torch.equal(p, before[name]) for name, p in model.named_parameters() if name.startswith(part)]
        assert moved, part
        assert all(moved), part


def test_the_gradient_of_reconstruction_reaches_the_projection(make_model, make_batch):
    model, batch = make_model("align_recon"), make_batch()
    without = make_model("align_recon", {"model.reconstruction.weight.start": 0.0})
    name = "projection.0.weight"
    through = gradients(model, batch)[name] - gradients(without, batch)[name]
    rebuilt = model.reconstruction_head(model.projection(batch.obs.visual))
    loss = (rebuilt - batch.obs.visual).square().mean()
    (expected,) = torch.autograd.grad(loss, [model.projection[0].weight])
    torch.testing.assert_close(through, expected, rtol=1e-4, atol=1e-6)


def test_projection_w_and_reconstruction_are_in_the_checkpoint(make_model):
    names = make_model("align_recon").state_dict().keys()
    parts = {name.split(".")[0] for name in names}
    assert parts == {"predictor", "action_embedding", "proprio_embedding", "projection", "token_center"} | {
        "alignment_head",
        "reconstruction_head",
    }
    again = make_model("align_recon")
    again.load_state_dict(make_model("align_recon").state_dict())  # strict


def test_a_part_that_no_group_would_hold_is_an_error(make_model):
    model = make_model()
    model.extra = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"'extra\.weight' belongs to no optimiser group"):
        build_optimizer(model, OptimizerConfig())


def test_the_same_seed_draws_the_same_model(make_model):
    first, second = make_model("align_recon"), make_model("align_recon")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


# -- the target ----


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_gradient_through_the_target(make_model, make_batch, variant):
    """Fault: with it a learned P collapses. The last frame is nothing but a target, so its tokens get no gradient."""
    model = make_model(
        variant, {f"model.{term}": "none" for term in ("alignment", "reconstruction", "temporal_dynamics")}
    )
    batch = make_batch()
    visual = batch.obs.visual.clone().requires_grad_()
    model.losses(replace(batch, obs=Observation(visual, batch.obs.proprio))).total.backward()
    assert visual.grad is not None
    assert not visual.grad[:, -1].any()
    assert visual.grad[:, :-1].any()


def test_the_loss_is_the_prediction_of_every_next_frame(make_model, make_batch):
    """Faults: target z[:, H:], one frame for all positions; (z_pred - z_src)^2, which rewards copying."""
    model, batch = make_model("align"), make_batch(clips=2)
    latent = model.encode(batch.obs, batch.actions)
    predicted = model.predict(latent[:, :2])
    target = model.encode_content(batch.obs)[:, 1:3]
    expected = torch.stack(
        [(predicted[b, t] - target[b, t]).square().mean() for b in range(2) for t in range(2)]
    ).mean()
    parts = model.losses(batch).parts
    torch.testing.assert_close(parts["z_loss"], expected.detach())
    visual = (predicted - target)[..., : model.visual_dim].square().mean()
    torch.testing.assert_close(parts["z_visual_loss"], visual.detach())


def test_changing_one_target_frame_changes_only_its_own_part(make_model, make_batch):
    model, batch = make_model("baseline", {"model.history_len": 1}), make_batch(clips=1, frames=2)
    shifted = batch.obs.visual.clone()
    shifted[:, 1] += 1
    moved = replace(batch, obs=Observation(shifted, batch.obs.proprio))
    predicted = model.predict(model.encode(batch.obs, batch.actions)[:, :1])
    target = model.encode_content(moved.obs)[:, 1:]
    torch.testing.assert_close(model.losses(moved).total, (predicted - target).square().mean())


def test_no_part_is_another_one_again(make_model, make_batch):
    """Fault: the "dynamics" loss was the alignment loss a second time, which only doubled its weight."""
    parts = make_model("align_recon_dynamics", rollout_horizon=2).losses(make_batch(frames=4)).parts
    extra = {"rollout_loss", "alignment_loss", "reconstruction_loss", "temporal_dynamics_loss"}
    assert parts.keys() == {"z_loss", "z_visual_loss", "z_proprio_loss", *extra}
    assert len({round(float(value), 6) for value in parts.values()}) == len(parts)


def test_the_total_is_the_weighted_sum_at_this_point_of_training(make_model, make_batch):
    weights = {
        "model.alignment.weight": {"kind": "linear", "start": 2.0, "end": 0.0},
        "model.reconstruction.weight": {"kind": "constant", "start": 3.0},
    }
    model, batch = make_model("align_recon", weights, 2), make_batch(frames=4)
    for progress, weight in ((0.0, 2.0), (0.25, 1.5), (1.0, 0.0)):
        terms = model.losses(batch, progress)
        parts = terms.parts
        expected = parts["z_loss"] + parts["rollout_loss"] + weight * parts["alignment_loss"]
        torch.testing.assert_close(terms.total.detach(), expected + 3 * parts["reconstruction_loss"])
    assert not any(value.requires_grad for value in terms.parts.values())


# -- clips without labels, and clips that do not count ----


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_clip_without_actions_gets_the_null_action(make_model, make_batch, variant):
    model, batch = make_model(variant), unlabelled(make_batch(), 1)
    torch.nn.init.normal_(model.action_embedding.null)
    changed = batch.actions.clone()
    changed[1] += 7
    assert torch.equal(model.losses(batch).total, model.losses(replace(batch, actions=changed)).total)
    content = model.encode_content(batch.obs)
    latent = model.with_actions(content, batch.actions, batch.has_actions)
    null = model.action_embedding.null.expand_as(latent[1, ..., model.content_dim :])
    assert torch.equal(latent[1, ..., model.content_dim :], null)
    assert not torch.equal(latent[0, ..., model.content_dim :], null)
    changed = batch.actions.clone()
    changed[0] += 7  # a labelled one's do matter
    assert not torch.equal(model.losses(batch).total, model.losses(replace(batch, actions=changed)).total)


def test_imagined_frames_of_a_clip_without_actions_use_the_null_action_too(make_model, make_batch):
    model, batch = make_model("baseline"), unlabelled(make_batch(frames=5), 1)
    content = model.encode_content(batch.obs)[:, :2]
    changed = batch.actions.clone()
    changed[1] += 7
    futures = [model.rollout(content, actions, batch.has_actions) for actions in (batch.actions, changed)]
    assert torch.equal(*futures)


@pytest.mark.parametrize("changes", [{}, INFONCE], ids=["state_mse", "infonce"])
def test_a_clip_without_state_does_not_enter_the_alignment(make_model, make_batch, changes):
    model, batch = make_model("align", changes), unlabelled(make_batch(), 1)
    assert batch.state is not None
    changed = batch.state.clone()
    changed[1] += 7
    ours = model.losses(batch).parts["alignment_loss"]
    assert torch.equal(ours, model.losses(replace(batch, state=changed)).parts["alignment_loss"])
    rest = torch.tensor([0, 2])
    torch.testing.assert_close(ours, model.losses(rows(batch, rest)).parts["alignment_loss"])


def rows(batch: Batch, index: Tensor) -> Batch:
    return batch.map(lambda values: values[index])


@pytest.mark.parametrize("stateless", ["no state at all", "none of these clips has one"])
@pytest.mark.parametrize("changes", [{}, {"model.alignment.kind": "infonce"}], ids=["state_mse", "infonce"])
def test_without_any_state_the_alignment_is_zero_and_can_be_differentiated(make_model, make_batch, changes, stateless):
    batch = make_batch()
    none = torch.zeros(batch.num_clips, dtype=torch.bool)
    bare = replace(batch, state=None if stateless == "no state at all" else batch.state, has_state=none)
    terms = make_model("align", changes).losses(bare)
    assert float(terms.parts["alignment_loss"]) == 0
    terms.total.backward()
    assert torch.isfinite(terms.total)


@pytest.mark.parametrize("changes", [{}, INFONCE], ids=["state_mse", "infonce"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_clip_of_weight_zero_changes_nothing(make_model, make_batch, variant, changes):
    model = make_model(variant, changes if variant != "baseline" else {}, 2)
    batch = make_batch(frames=4)
    weightless = replace(batch, weights=torch.tensor([1.0, 0.0, 1.0]))
    rest = rows(batch, torch.tensor([0, 2]))
    terms, expected = model.losses(weightless), model.losses(rest)
    torch.testing.assert_close(terms.total, expected.total)
    for name, value in terms.parts.items():
        torch.testing.assert_close(value, expected.parts[name])
    ours, theirs = gradients(model, weightless), gradients(model, rest)
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], msg=name)


@pytest.mark.parametrize("variant", ["baseline", "align_recon"])
def test_a_batch_is_the_mean_of_its_clips(make_model, make_batch, variant):
    model, batch = make_model(variant, rollout_horizon=2), make_batch(frames=4)
    clips = [model.losses(rows(batch, torch.tensor([i]))).parts for i in range(batch.num_clips)]
    for name, value in model.losses(batch).parts.items():
        torch.testing.assert_close(value, torch.stack([parts[name] for parts in clips]).mean())


@pytest.mark.parametrize("kind", ["random", "block", "tube", "learned"])
@pytest.mark.parametrize("attention", ["plain", "fused"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_is_made_on_another_device(make_model, make_batch, variant, attention, kind):
    """On a machine without a GPU: `meta` tensors refuse to meet those of the CPU as a GPU's do."""
    changes = {"model.masking.kind": kind, "model.predictor.attention": attention}
    model, batch = make_model(variant, changes, rollout_horizon=2).train(), make_batch(frames=4)
    meta = torch.device("meta")
    terms = model.to(meta).losses(batch.to(meta))
    assert all(value.is_meta for value in terms.parts.values())
    assert terms.total.is_meta
