"""What is hidden, how much of it, and that hiding is an ablation of training alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from wm.config.errors import UserError
from wm.config.masking import BlockMasking, LearnedMasking, RandomMasking, TubeMasking
from wm.models.masking import TokenMasking

B, T, SIDE, C = 5, 3, 4, 6
PATCHES = SIDE * SIDE
KINDS: dict[str, Any] = {"random": RandomMasking, "block": BlockMasking, "tube": TubeMasking, "learned": LearnedMasking}


def content(extra: int = 0) -> torch.Tensor:
    return torch.randn(B, T, PATCHES + extra, C, generator=torch.Generator().manual_seed(0))


def masking(kind: str, ratio: float = 0.25) -> TokenMasking:
    torch.manual_seed(0)
    module = TokenMasking(KINDS[kind](ratio=ratio), PATCHES, C)
    torch.nn.init.constant_(module.token, 7.0)
    return module


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("extra", [0, 1])
def test_hidden_patches_show_the_token_and_the_others_themselves(kind, extra):
    given = content(extra)
    shown, hidden = masking(kind)(given, PATCHES)
    assert (hidden.sum(dim=-1) == 4).all()
    patches = shown[:, :, :PATCHES]
    torch.testing.assert_close(patches[hidden], torch.full_like(patches[hidden], 7.0))
    torch.testing.assert_close(patches[~hidden], given[:, :, :PATCHES][~hidden])
    assert torch.equal(shown[:, :, PATCHES:], given[:, :, PATCHES:])  # a proprio token is never hidden


def test_frames_hide_patches_of_their_own_but_for_tubes():
    same = {
        kind: bool((masking(kind)(content(), PATCHES)[1][:, :1] == masking(kind)(content(), PATCHES)[1]).all())
        for kind in KINDS
    }
    assert same == {"random": False, "block": False, "tube": True, "learned": False}


def test_a_block_is_a_square():
    _, hidden = masking("block")(content(), PATCHES)
    grid = hidden.unflatten(-1, (SIDE, SIDE)).flatten(0, 1)
    for frame in grid:
        down, across = frame.any(dim=1).nonzero().flatten(), frame.any(dim=0).nonzero().flatten()
        assert (len(down), len(across)) == (2, 2)
        assert down[1] - down[0] == across[1] - across[0] == 1


def test_a_block_of_one_patch():
    assert (masking("block", 0.05)(content(), PATCHES)[1].sum(dim=-1) == 1).all()


@pytest.mark.parametrize("kind", ["random", "tube", "learned"])
def test_of_two_patches_one_is_hidden(kind):
    module = TokenMasking(KINDS[kind](ratio=0.9), 2, C)
    _, hidden = module(content()[:, :, :2], 2)
    assert (hidden.sum(dim=-1) == 1).all()


def test_a_learned_choice_is_the_lowest_of_score_plus_gumbel_noise_with_its_gradient(monkeypatch):
    """Of 1 - hidden in value, and of sigmoid(noisy score - its mean over the frame) in gradient."""
    module = TokenMasking(LearnedMasking(ratio=0.5), PATCHES, C)
    uniform = torch.rand(B, T, PATCHES, generator=torch.Generator().manual_seed(3))
    uniform[0, 0, :2] = torch.tensor([0.0, 1.0])  # whose noise would be infinite
    monkeypatch.setattr(torch, "rand_like", lambda scores: uniform.clone())
    hidden, keep = module.choose(content())
    scores = module.score(content()).squeeze(-1).detach()
    noisy = scores - torch.log(-torch.log(uniform.clamp(1e-6, 1 - 1e-6)))
    order = noisy.sort(dim=-1).values
    assert torch.equal(hidden, noisy < order[..., PATCHES // 2, None])
    torch.testing.assert_close(keep.detach(), (~hidden).float())
    keep.square().sum().backward()
    soft = torch.sigmoid(noisy - noisy.mean(dim=-1, keepdim=True))
    slope = 2 * keep.detach() * soft * (1 - soft)
    assert module.score.weight.grad is not None
    torch.testing.assert_close(module.score.weight.grad[0], (slope[..., None] * content()).sum(dim=(0, 1, 2)))


@pytest.mark.parametrize(
    ("kind", "patches", "words"), [("block", 6, "6 patches a frame are no square"), ("tube", 1, "one token a frame")]
)
def test_what_cannot_be_hidden_is_refused(kind, patches, words):
    with pytest.raises(UserError, match=words):
        TokenMasking(KINDS[kind](), patches, C)


@pytest.mark.parametrize(("ratio", "count"), [(0.01, 1), (0.5, 8), (0.99, 15)])
def test_at_least_one_patch_is_hidden_and_one_is_seen(ratio, count):
    assert (masking("random", ratio)(content(), PATCHES)[1].sum(dim=-1) == count).all()


def test_a_learned_score_learns_to_show_what_matters():
    """Only patch 3's first channel counts: after training it is hidden less often than by chance."""
    module = TokenMasking(LearnedMasking(ratio=0.5), PATCHES, C)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    torch.manual_seed(0)
    for _ in range(150):
        frames = torch.randn(32, 1, PATCHES, C, generator=generator)
        frames[:, :, :, 1] = 0
        frames[:, :, 3, 1] = 3.0  # what tells it from the others
        shown, _ = module(frames, PATCHES)
        loss = (shown[:, :, 3, 0] - frames[:, :, 3, 0]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    _, hidden = module(frames, PATCHES)
    assert hidden[:, :, 3].float().mean() < 0.25
    assert hidden.float().mean() == pytest.approx(0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_hides_in_training_only_and_learns_what_it_hides_with(make_model, make_batch, kind):
    changes = {"model.masking": {"kind": kind, "ratio": 0.5, "weight": {"kind": "constant", "start": 2.0}}}
    model, batch = make_model("align", changes), make_batch()
    plain = make_model("align")
    plain.load_state_dict(model.state_dict(), strict=False)
    assert "masked_loss" not in model.losses(batch).parts
    assert torch.equal(model.losses(batch).total, plain.losses(batch).total)

    model.train()
    torch.manual_seed(3)
    terms = model.losses(batch)
    assert not torch.equal(terms.parts["z_loss"], plain.losses(batch).parts["z_loss"])
    torch.testing.assert_close(terms.weighted["masked_loss"].detach(), 2 * terms.parts["masked_loss"])
    terms.total.backward()
    for name, parameter in model.masking.named_parameters():
        assert parameter.grad is not None, name
        # Where a frame's place among its patches is all that counts, a constant moves nothing.
        assert parameter.grad.abs().max() > 0 or name == "score.bias", name


@pytest.mark.parametrize("concat", ["channel", "token"])
def test_the_denoising_term_is_the_error_where_it_was_hidden(make_model, make_batch, concat):
    changes = {"model.masking": {"kind": "random", "ratio": 0.5}, "model.concat": concat}
    model, batch = make_model("baseline", changes).train(), make_batch()
    batch = replace(batch, weights=torch.tensor([0.5, 2.0, 0.0]))
    torch.manual_seed(3)
    terms = model.losses(batch)
    torch.manual_seed(3)
    content = model.encode_content(batch.obs)
    seen, hidden = model.masking(content[:, :2], 4)
    predicted = model.predict(model.with_actions(seen, batch.actions[:, :2]))
    errors = (predicted - content[:, 1:3]).square().mean(dim=-1)[:, :, :4]
    weights = hidden * torch.tensor([0.5, 2.0, 0.0])[:, None, None]
    torch.testing.assert_close(terms.parts["masked_loss"], ((errors * weights).sum() / weights.sum()).detach())
