"""A student and its teacher: who learns from whom."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.wm.pretraining.samples import config
from wm.pretraining.self_distillation import Features, SelfDistillation
from wm.pretraining_run import build_distillation, teacher_encoder, teacher_weights
from wm.types import Batch, Observation


def batch(clips: int = 3, still: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (clips, 3, 28, 28, 3), dtype=torch.uint8, generator=generator)
    if still:
        frames = frames[:, :1].expand(-1, 3, -1, -1, -1)
    none = torch.zeros(clips, dtype=torch.bool)
    return Batch(Observation(frames), torch.zeros(clips, 3, 1), none, None, none, torch.ones(clips))


def losses(model: SelfDistillation, of: Batch, progress: float = 0.5) -> Any:
    torch.manual_seed(0)  # of the views
    return model.losses(of, progress)


@pytest.fixture
def model() -> SelfDistillation:
    return build_distillation(config(distillation__motion_weight=1.0))


def step(model: SelfDistillation, progress: float = 0.5) -> None:
    """As the loop takes one, with plain gradient descent."""
    model.zero_grad()
    losses(model, batch()).total.backward()
    with torch.no_grad():
        for parameter in model.student.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad)
    model.after_step(progress, {})


def test_the_seed_decides_the_weights_and_the_teacher_starts_as_the_student(model: SelfDistillation) -> None:
    for (name, one), (_, other) in zip(
        model.student.state_dict().items(), model.teacher.state_dict().items(), strict=True
    ):
        assert torch.equal(one, other), name
    moving = {"distillation__motion_weight": 1.0}
    again, another = build_distillation(config(**moving)), build_distillation(config(seed=1))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert not torch.equal(model.student.patch_head.prototypes, another.student.patch_head.prototypes)
    filters = "network.embeddings.patch_embeddings.projection.weight"
    assert not torch.equal(model.student.state_dict()[filters], another.student.state_dict()[filters])


def test_no_gradient_reaches_the_teacher_and_every_part_of_the_student_gets_one(model: SelfDistillation) -> None:
    losses(model, batch()).total.backward()
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.teacher.parameters())
    without = [name for name, parameter in model.student.named_parameters() if parameter.grad is None]
    assert not without
    assert all(parameter.grad.abs().max() > 0 for parameter in model.student.image_head.parameters())


def test_the_teacher_is_the_moving_average_exactly() -> None:
    decay = {"kind": "linear", "start": 0.5, "end": 1.0, "over": 1.0}
    model = build_distillation(config(distillation__teacher_decay=decay))
    expected = copy.deepcopy(model.teacher.state_dict())
    for progress, keep in ((0.0, 0.5), (0.5, 0.75), (1.0, 1.0)):
        step(model, progress)
        for name, value in model.student.state_dict().items():
            expected[name] = keep * expected[name] + (1 - keep) * value
        for name, value in model.teacher.state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-6)
    pairs = zip(model.student.parameters(), model.teacher.parameters(), strict=True)
    moved = sum(float((fast.detach() - slow).abs().sum()) for fast, slow in pairs)
    assert moved > 0.01  # and it is not simply the student


def test_what_is_compiled_is_what_losses_call(model: SelfDistillation) -> None:
    calls: list[int] = []
    model.hot_part.register_forward_hook(lambda *_: calls.append(1))
    losses(model, batch())
    assert len(calls) == 2  # once a view


def test_the_student_does_not_see_what_is_hidden(model: SelfDistillation) -> None:
    torch.manual_seed(0)
    view = model._views.pair(batch().obs.visual)[0]
    view = view._replace(hidden=torch.ones_like(view.hidden))
    other = view._replace(pictures=-view.pictures)
    with torch.no_grad():
        blind, other_blind = (model.student.features(each, hide=True).patches for each in (view, other))
        seeing, other_seeing = (model.teacher.features(each, hide=False).patches for each in (view, other))
    torch.testing.assert_close(blind, other_blind)
    assert not torch.allclose(seeing, other_seeing, atol=1e-2)


def test_frames_of_a_clip_that_stands_still_cannot_be_named_apart(model: SelfDistillation) -> None:
    """One clip of three equal frames, nothing hidden: all frames are one, and the loss is log 3."""
    model._views._config = config(views__masked_probability=0.0).views
    parts = losses(model, batch(1, still=True)).parts
    assert float(parts["identity"]) == pytest.approx(math.log(3), abs=1e-4)
    assert float(parts["patch"]) == 0
    assert float(losses(model, batch(1)).parts["identity"]) != pytest.approx(math.log(3), abs=1e-4)


def test_weights_of_the_parts_are_those_of_the_config() -> None:
    of = {
        "image_weight": 2.0,
        "identity_weight": 0.0,
        "patch_weight": 0.5,
        "motion_weight": 1.5,
        "spread_weight": 3.0,
    }
    model = build_distillation(config(**{f"distillation__{name}": value for name, value in of.items()}))
    terms = losses(model, batch())
    for name, value in terms.parts.items():
        torch.testing.assert_close(terms.weighted[name].detach(), of[f"{name}_weight"] * value)
    assert float(terms.parts["identity"]) > 0


def test_without_motion_nothing_is_drawn_for_it() -> None:
    """Views are drawn by the same generator as weights: a head that nobody trains would make another training of it."""
    plain = build_distillation(config())
    after = torch.get_rng_state()
    moving = build_distillation(config(distillation__motion_weight=1.0))
    assert not torch.equal(torch.get_rng_state(), after)
    assert "motion" not in losses(plain, batch()).parts
    assert {name.partition(".")[0] for name, _ in moving.named_parameters()} - {
        name.partition(".")[0] for name, _ in plain.named_parameters()
    } == {"motion_head"}


def test_a_clip_of_weight_nothing_counts_for_nothing(model: SelfDistillation) -> None:
    """The means are over the clips that count."""
    whole = batch(2)
    found = [
        losses(model, replace(whole, weights=torch.tensor(weights))).parts
        for weights in ([1.0, 1.0], [1.0, 0.0], [0.0, 1.0])
    ]
    for name in ("image", "identity", "motion"):
        both, first, second = (each[name] for each in found)
        torch.testing.assert_close(both, (first + second) / 2)
        assert not torch.allclose(first, second)


def test_motion_is_restored_patch_by_patch_as_it_was_before_colours_changed(model: SelfDistillation) -> None:
    """A layer that is given each patch's own pixels restores them all; colours of the view do not count."""
    torch.manual_seed(0)
    view = model._views.pair(batch().obs.visual)[0]
    size = 14
    blocks = [
        view.plain.flatten(0, 1)[:, :, row : row + size, column : column + size].flatten(1)
        for row in (0, size)
        for column in (0, size)
    ]
    tokens = torch.stack(blocks, dim=1)
    head = torch.nn.Identity()
    found = Features(torch.zeros(9, 1), tokens)
    torch.testing.assert_close(model._motion(head, found, view), torch.zeros(3))
    torch.testing.assert_close(model._motion(head, found, view._replace(pictures=-view.pictures)), torch.zeros(3))
    assert (model._motion(head, found, view._replace(plain=view.plain.flip(1))) > 0.5).all()


def test_the_teacher_as_an_encoder_is_a_copy_of_its_own(model: SelfDistillation) -> None:
    encoder = teacher_encoder(model, config())
    frames = batch().obs.visual
    before = encoder.encode(frames)
    assert before.shape == (3, 3, 4, 16)
    step(model)
    assert torch.equal(encoder.encode(frames), before)
    assert teacher_encoder(model, config()).fingerprint != encoder.fingerprint
    names = teacher_weights(model.state_dict())
    assert names.keys() == model.teacher.network.state_dict().keys()
