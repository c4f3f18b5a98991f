"""Self-distillation's losses: closed forms and rows counted by hand."""

from __future__ import annotations

import math

import pytest
import torch

from wm.losses.distillation import (
    balanced_targets,
    distillation_loss,
    identification_loss,
    motion_loss,
    near_in_time,
    spread_loss,
)

LOGITS = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))


def test_balanced_rows_sum_to_one_and_prototypes_are_used_equally_often() -> None:
    targets = balanced_targets(LOGITS, 0.5, num_iterations=200)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(12))
    torch.testing.assert_close(targets.sum(dim=0), torch.full((4,), 12 / 4))


def test_a_few_iterations_balance_rows_exactly_and_prototypes_nearly() -> None:
    targets = balanced_targets(LOGITS, 0.5)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(12))
    unbalanced = torch.softmax(LOGITS / 0.5, dim=1).sum(dim=0)
    assert (targets.sum(dim=0) - 3).abs().max() < 0.5 * (unbalanced - 3).abs().max()


def test_no_rows_have_no_targets() -> None:
    assert balanced_targets(LOGITS[:0], 0.5).shape == (0, 4)


def test_a_fixed_point_is_left_as_it_is() -> None:
    """Permutations of one row: balanced already, so that targets are the softmax."""
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 2.0, 1.0], [1.0, 0.0, 2.0]])
    torch.testing.assert_close(balanced_targets(logits, 0.7), torch.softmax(logits / 0.7, dim=1))


def test_what_favours_a_prototype_in_every_row_cancels() -> None:
    shifted = LOGITS + torch.tensor([3.0, 0.0, -1.0, 0.5])
    found, expected = (balanced_targets(each, 0.5, num_iterations=300) for each in (shifted, LOGITS))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_near_in_time_by_hand() -> None:
    """Two clips of three frames: weights 1, 1/e, 1/e^2 within a clip, rows made to sum to 1, nothing across clips."""
    near = near_in_time(2, 3, 1.0)
    one, two = math.exp(-1), math.exp(-2)
    clip = torch.tensor([[1, one, two], [one, 1, one], [two, one, 1]])
    torch.testing.assert_close(near[:3, :3], clip / clip.sum(dim=1, keepdim=True))
    torch.testing.assert_close(near[3:, 3:], near[:3, :3])
    assert not near[:3, 3:].any()
    assert not near[3:, :3].any()
    torch.testing.assert_close(near_in_time(2, 3, 0.5)[1, 0] / near_in_time(2, 3, 0.5)[1, 1], torch.tensor(two))
    assert torch.equal(near_in_time(2, 3, 0.0), torch.eye(6))


def test_naming_a_frame_by_hand() -> None:
    """Mean squares of (3, 0) less (1, 0), (3, 2), (-1, 0) are 2, 2, 8."""
    taught = torch.tensor([[1.0, 0.0], [3.0, 2.0], [-1.0, 0.0]])
    said, scale = torch.tensor([[3.0, 0.0]]), torch.tensor(0.5)
    total = math.log(2 * math.exp(-1) + math.exp(-4))
    for own, square in enumerate((2, 2, 8)):
        found = identification_loss(said, taught, torch.eye(3)[own : own + 1], scale)
        torch.testing.assert_close(found, torch.tensor([total + 0.5 * square]))
    both = identification_loss(said, taught, torch.tensor([[0.75, 0.0, 0.25]]), scale)
    torch.testing.assert_close(both, torch.tensor([total + 0.5 * (0.75 * 2 + 0.25 * 8)]))


def test_a_worker_names_its_own_rows_among_all() -> None:
    near, scale = near_in_time(3, 4, 1.0), torch.tensor(3.0)
    whole = identification_loss(LOGITS, LOGITS + 0.1, near, scale)
    parts = [
        identification_loss(LOGITS[first : first + 4], LOGITS + 0.1, near[first : first + 4], scale)
        for first in (0, 4, 8)
    ]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_frames_that_look_alike_cannot_be_named() -> None:
    """The loss of n equal rows is log n, whatever they are."""
    same = torch.ones(5, 3)
    found = identification_loss(same, same, torch.eye(5), torch.tensor(7.0))
    torch.testing.assert_close(found, torch.full((5,), math.log(5)))


def test_the_loss_is_at_its_least_the_entropy_of_the_target() -> None:
    targets = torch.softmax(LOGITS, dim=1)
    entropy = -(targets * targets.log()).sum(dim=1)
    student = (0.1 * targets.log()).requires_grad_()
    found = distillation_loss(student, targets, 0.1)
    torch.testing.assert_close(found, entropy)
    found.sum().backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad, torch.zeros_like(LOGITS), rtol=0, atol=1e-5)
    assert (distillation_loss(student + 0.05 * LOGITS, targets, 0.1) > entropy).all()


def test_the_loss_of_a_sharp_target_is_the_cross_entropy() -> None:
    rows = torch.arange(12) % 4
    expected = torch.nn.functional.cross_entropy(LOGITS / 0.3, rows, reduction="none")
    torch.testing.assert_close(distillation_loss(LOGITS, torch.eye(4)[rows], 0.3), expected)


def test_spread_by_hand() -> None:
    """(1, 0) and (0, 1) are sqrt 2 apart, (-3, 0) is sqrt 2 from (0, 1): lengths do not count."""
    rows = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    assert float(spread_loss(rows)) == pytest.approx(-math.log(math.sqrt(2)))
    near = torch.tensor([[1.0, 0.0], [math.cos(0.1), math.sin(0.1)], [-1.0, 0.0]])
    chord, far = 2 * math.sin(0.05), 2 * math.sin((math.pi - 0.1) / 2)
    assert float(spread_loss(near)) == pytest.approx(-(2 * math.log(chord) + math.log(far)) / 3, rel=1e-5)


def test_spread_pushes_neighbours_apart() -> None:
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0]], requires_grad=True)
    spread_loss(rows).backward()
    assert rows.grad is not None
    assert rows.grad[0, 1] > 0  # downhill takes the first row away from the second
    assert rows.grad[1, 1] < 0


SEEN = torch.ones(1, 2, 1, dtype=torch.bool)


def test_missed_motion_by_hand() -> None:
    """One pixel goes from 1 to 3: it moves by -1 and 1. Saying 0 and 1 moves by -.5 and .5: a quarter of the square is missed."""
    pictures = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
    for said, missed in (((1.0, 3.0), 0), ((7.0, 9.0), 0), ((5.0, 5.0), 1), ((0.0, 1.0), 0.25), ((1.0, -1.0), 4)):
        found = motion_loss(torch.tensor(said).view(1, 2, 1, 1), pictures, SEEN)
        torch.testing.assert_close(found, torch.tensor([float(missed)]))


def test_small_motion_counts_as_large_motion() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures, said = torch.randn(2, 1, 4, 3, 5, generator=generator)
    seen = torch.ones(1, 4, 3, dtype=torch.bool)
    torch.testing.assert_close(motion_loss(0.1 * said, 0.1 * pictures, seen), motion_loss(said, pictures, seen))


def test_where_nothing_moves_the_loss_stays_finite() -> None:
    still = torch.full((1, 2, 1, 3), 0.5)
    assert float(motion_loss(torch.zeros(1, 2, 1, 3), still, SEEN)) == 0
    assert float(
        motion_loss(torch.tensor([0.0, 0.02]).view(1, 2, 1, 1).expand(1, 2, 1, 3), still, SEEN)
    ) == pytest.approx(1)
    assert float(motion_loss(torch.zeros(1, 2, 1, 3), still, ~SEEN)) == 0


def test_hidden_patches_are_out_of_the_motion() -> None:
    pictures, said = torch.randn(2, 1, 3, 2, 5, generator=torch.Generator().manual_seed(1))
    seen = torch.tensor([[[1, 1], [1, 0], [1, 1]]], dtype=torch.bool)
    expected = motion_loss(said, pictures, seen)
    pictures[0, 1, 1], said[0, 1, 1] = 9.0, -9.0
    torch.testing.assert_close(motion_loss(said, pictures, seen), expected)


def test_targets_carry_no_gradient() -> None:
    assert not balanced_targets(LOGITS.clone().requires_grad_(), 0.1).requires_grad
