"""Alignment losses by hand and against torch."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from wm.losses.alignment import infonce_loss, state_mse_loss

N, S = 5, 4


def pair(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N, S, generator=generator), torch.randn(N, S, generator=generator)


def similarities(readout: torch.Tensor, state: torch.Tensor, similarity: str) -> torch.Tensor:
    if similarity == "cosine":
        return functional.cosine_similarity(readout[:, None], state[None], dim=-1)
    return -torch.cdist(readout, state)


def test_state_mse_by_hand():
    readout, state = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [3.0, 1.0]])
    assert state_mse_loss(readout, state, torch.ones(2)).item() == pytest.approx((2.5 + 5) / 2)
    assert state_mse_loss(readout, state, torch.tensor([1.0, 3.0])).item() == pytest.approx((2.5 + 15) / 4)
    assert state_mse_loss(readout, state, torch.zeros(2)).item() == 0


@pytest.mark.parametrize("similarity", ["cosine", "neg_l2"])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_infonce_is_torch_s_cross_entropy(similarity, temperature):
    readout, state = pair()
    expected = functional.cross_entropy(similarities(readout, state, similarity) / temperature, torch.arange(N))
    torch.testing.assert_close(infonce_loss(readout, state, torch.ones(N), temperature, similarity), expected)


def test_infonce_by_hand():
    """Cosine, two orthogonal states and their exact readouts: -log(e^(1/T) / (e^(1/T) + 1))."""
    state = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    loss = infonce_loss(state * 3, state, torch.ones(2), 0.5, "cosine")
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)))
    # neg_l2: distance 0 to its own and sqrt(29) to the other.
    loss = infonce_loss(state, state, torch.ones(2), 0.5, "neg_l2")
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2 * math.sqrt(29))), abs=1e-3)


def test_the_row_s_own_state_is_the_positive_and_states_are_the_candidates():
    """Rows are anchors: swapping the roles of readout and state is another loss."""
    readout, state = pair()
    ones = torch.ones(N)
    logits = similarities(readout, state, "neg_l2")
    other_way = functional.cross_entropy(logits.T, torch.arange(N))
    assert not torch.isclose(infonce_loss(readout, state, ones, 1.0, "neg_l2"), other_way)
    assert infonce_loss(state, state, ones, 0.1, "neg_l2") < infonce_loss(state.roll(1, 0), state, ones, 0.1, "neg_l2")


def test_cosine_discards_the_radius_and_neg_l2_keeps_it():
    readout, state = pair()
    ones = torch.ones(N)
    for similarity, same in (("cosine", True), ("neg_l2", False)):
        losses = [infonce_loss(readout * scale, state, ones, 0.1, similarity) for scale in (1, 3)]
        assert torch.allclose(*losses) is same


@pytest.mark.parametrize("similarity", ["cosine", "neg_l2"])
def test_rows_of_weight_zero_are_neither_anchors_nor_candidates(similarity):
    readout, state = pair()
    weights = torch.tensor([1.0, 0.0, 2.0, 1.0, 0.0])
    kept = weights > 0
    logits = similarities(readout[kept], state[kept], similarity) / 0.1
    per_row = functional.cross_entropy(logits, torch.arange(3), reduction="none")
    expected = (per_row * torch.tensor([1.0, 2.0, 1.0])).sum() / 4
    torch.testing.assert_close(infonce_loss(readout, state, weights, 0.1, similarity), expected)


@pytest.mark.parametrize("similarity", ["cosine", "neg_l2"])
@pytest.mark.parametrize("weights", [torch.ones(N), torch.tensor([1.0, 0, 0, 1, 1]), torch.zeros(N)])
def test_gradients_are_finite_where_readout_and_state_coincide_or_vanish(similarity, weights):
    for readout in (pair()[1].clone(), torch.zeros(N, S)):
        readout.requires_grad_()
        loss = infonce_loss(readout, pair()[1], weights, 0.1, similarity)
        loss.backward()
        assert torch.isfinite(loss)
        assert readout.grad is not None
        assert torch.isfinite(readout.grad).all()


def test_the_gradient_is_torch_s():
    ours, theirs = (pair()[0].requires_grad_() for _ in range(2))
    state = pair()[1]
    infonce_loss(ours, state, torch.ones(N), 0.3, "neg_l2").backward()
    functional.cross_entropy(similarities(theirs, state, "neg_l2") / 0.3, torch.arange(N)).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


def test_unknown_similarities_are_refused():
    with pytest.raises(ValueError, match="unknown similarity 'dot'"):
        infonce_loss(*pair(), torch.ones(N), 0.1, "dot")
