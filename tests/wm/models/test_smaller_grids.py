"""Frames of fewer patches than the model's own: what progressive resolution asks of predictor and world model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.wm.data.samples import config
from wm.models.predictor import CausalPredictor, resize_grid

# -- grids ------------------------------------------------------------------------------------------------------------


def test_a_grid_keeps_its_layout_when_it_is_resized():
    """Channel 0 rises down the grid, channel 1 across: both still do, and their means stay."""
    down, across = torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij")
    grid = torch.stack([down, across], dim=-1).flatten(0, 1)[None]
    small = resize_grid(grid, 9).unflatten(1, (3, 3))[0]
    torch.testing.assert_close(small[..., 0], small[:, :1, 0].expand(3, 3))
    torch.testing.assert_close(small[..., 1], small[:1, :, 1].expand(3, 3))
    assert (small[:, 0, 0].diff() > 1.5).all()
    torch.testing.assert_close(small.mean(dim=(0, 1)), torch.tensor([2.5, 2.5]))


def test_every_position_of_the_full_grid_is_trained_by_a_smaller_one():
    grid = torch.randn(
        2, 144, 3, requires_grad=True
    )  # without antialiasing four in a row would be all that a place sees
    resize_grid(grid, 4).square().sum().backward()
    assert grid.grad is not None
    assert (grid.grad != 0).all()


@pytest.mark.parametrize(("patches", "count"), [(6, 4), (4, 6)])
def test_only_squares_are_resized(patches, count):
    with pytest.raises(ValueError, match=f"only square grids can be resized, not {patches} patches to {count}"):
        resize_grid(torch.zeros(1, patches, 2), count)


def test_the_predictor_adds_resized_positions_to_patches_and_leaves_other_tokens_theirs():
    settings = config().model.predictor
    predictor = CausalPredictor(6, 4 + 2, 3, settings, others=2).eval()
    own = predictor.pos_embedding.detach().unflatten(1, (3, 6))[0]
    small: list[Tensor] = []
    predictor.transformer.layers[0][0].norm.register_forward_pre_hook(lambda module, given: small.append(given[0]))  # type: ignore[index]
    predictor(torch.zeros(1, 2, 1 + 2, 6))
    seen = small[0][0].unflatten(0, (2, 3))
    assert torch.equal(seen[:, 1:], own[:2, 4:])
    torch.testing.assert_close(seen[:, 0], own[:2, :4].mean(dim=1), rtol=0, atol=1e-5)  # four patches to one


# -- models -----------------------------------------------------------------------------------------------------------

MASKED = {"model.masking": {"kind": "random", "ratio": 0.5}}


@pytest.mark.parametrize("variant", ["baseline", "align", "align_recon", "projected", "align_recon_dynamics"])
@pytest.mark.parametrize("changes", [{}, MASKED, {"model.concat": "token"}], ids=["plain", "masked", "token"])
def test_every_variant_trains_on_fewer_patches(variant, changes, make_model, make_batch):
    if variant == "projected" and "model.concat" in changes:
        pytest.skip("refused by the config")
    model, batch = make_model(variant, changes, rollout_horizon=2).train(), make_batch(frames=4)
    obs = batch.obs
    few = type(batch)(
        type(obs)(obs.visual[:, :, :1], obs.proprio),
        batch.actions,
        batch.has_actions,
        batch.state,
        batch.has_state,
        batch.weights,
    )
    terms = model.losses(few)
    terms.total.backward()
    assert all(torch.isfinite(value).all() for value in terms.parts.values())
    assert model.predictor.pos_embedding.grad is not None
    assert (model.predictor.pos_embedding.grad.abs().sum(dim=-1) > 0).all()


def test_proprio_as_a_token_is_found_behind_fewer_patches(make_model, make_batch):
    model, batch = make_model("baseline", {"model.concat": "token"}), make_batch()
    obs = batch.obs
    whole = model.encode_content(obs)
    few = model.encode_content(type(obs)(obs.visual[:, :, :1], obs.proprio))
    assert torch.equal(model.proprio(few), model.proprio(whole))
    assert torch.equal(model.visual(few), model.visual(whole)[:, :, :1])
