"""Views: what the frames of a clip share, what is hidden, what no change of colour may do."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from wm.config.pretrain import ViewsConfig
from wm.pretraining.views import View, Views

STILL: dict[str, Any] = {
    "crop": (1.0, 1.0),
    "brightness": (1.0, 1.0),
    "contrast": (1.0, 1.0),
    "saturation": (1.0, 1.0),
    "channel_mix": 0.0,
}
FRAME = torch.randint(0, 256, (1, 1, 28, 28, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def draw(frames: torch.Tensor, size: int = 28, seed: int = 0, **config: Any) -> View:
    torch.manual_seed(seed)
    return Views(ViewsConfig(**config), size, 14).pair(frames)[0]


def test_without_changes_a_view_is_the_picture_in_minus_one_to_one() -> None:
    view = draw(FRAME, **STILL)
    torch.testing.assert_close(view.pictures[0, 0], FRAME[0, 0].permute(2, 0, 1) / 127.5 - 1, rtol=0, atol=1e-5)


def test_frames_of_a_clip_share_the_draw_and_clips_do_not() -> None:
    clips = FRAME.expand(3, 4, -1, -1, -1)
    pictures = draw(clips, colour_probability=1.0).pictures
    for clip in pictures:
        assert all(torch.equal(clip[0], frame) for frame in clip)
    assert not torch.allclose(pictures[0, 0], pictures[1, 0], atol=0.01)


def test_two_views_differ_in_colours_and_show_the_same_window() -> None:
    torch.manual_seed(0)
    one, other = Views(ViewsConfig(colour_probability=1.0), 28, 14).pair(FRAME)
    assert not torch.allclose(one.pictures, other.pictures, atol=0.01)
    one, other = Views(ViewsConfig(colour_probability=0.0, crop=(0.5, 0.6)), 28, 14).pair(FRAME)
    assert torch.equal(one.pictures, other.pictures)
    assert not torch.equal(one.pictures, Views(ViewsConfig(**STILL), 28, 14).pair(FRAME)[0].pictures)


@pytest.mark.parametrize("level", [0, 77, 160])
def test_grey_stays_grey(level: int) -> None:
    grey = torch.full((8, 1, 28, 28, 3), level, dtype=torch.uint8)
    pictures = draw(grey, colour_probability=1.0, channel_mix=0.3).pictures
    assert float((pictures.amax(dim=2) - pictures.amin(dim=2)).max()) < 1e-5


def test_colours_change_in_their_share_of_the_clips() -> None:
    clips = FRAME.expand(200, 1, -1, -1, -1)
    plain = FRAME[0, 0].permute(2, 0, 1) / 127.5 - 1
    changed = draw(clips, crop=(1.0, 1.0), colour_probability=0.25).pictures
    share = ((changed[:, 0] - plain).abs().amax(dim=(1, 2, 3)) > 1e-3).float().mean()
    assert 0.15 < float(share) < 0.35


def test_a_crop_is_a_window_of_the_frame() -> None:
    """Columns hold their own number: a window of half the side spans half the numbers, wherever it is."""
    ramp = (torch.arange(56) * 4).to(torch.uint8).view(1, 1, 1, 56, 1).expand(6, 1, 56, 56, 3)
    pictures = draw(ramp, **{**STILL, "crop": (0.5, 0.5)}).pictures
    columns = (pictures[:, 0, 0].mean(dim=1) + 1) * 127.5 / 4
    spans = columns[:, -2] - columns[:, 1]  # the ends may lie at the border
    torch.testing.assert_close(spans, torch.full((6,), 25.0), rtol=0, atol=0.6)
    assert float(columns[:, 0].max() - columns[:, 0].min()) > 1  # and they lie in different places


def test_large_frames_are_averaged_not_skipped() -> None:
    """A fine checkerboard becomes grey; picking every fourth pixel would give black or white."""
    board = (torch.arange(112)[:, None] + torch.arange(112)).remainder(2).mul(255).to(torch.uint8)
    view = draw(board.view(1, 1, 112, 112, 1).expand(-1, -1, -1, -1, 3), **STILL)
    assert float(view.pictures.abs().max()) < 0.1


def test_hidden_patches_are_a_rectangle_of_about_their_share_in_their_share_of_the_frames() -> None:
    frames = torch.zeros(100, 3, 112, 112, 3, dtype=torch.uint8)
    hidden = draw(frames, 112, masked_probability=0.5, masked_share=(0.2, 0.4), **STILL).hidden.view(300, 8, 8)
    some = hidden.flatten(1).any(dim=1)
    assert 0.4 < float(some.float().mean()) < 0.6
    shares = hidden[some].float().mean(dim=(1, 2))
    assert float(shares.min()) > 0.12
    assert float(shares.max()) < 0.5
    assert float(shares.mean()) == pytest.approx(0.3, abs=0.03)
    for one in hidden[some]:
        rows, columns = one.any(dim=1), one.any(dim=0)
        assert torch.equal(one, rows[:, None] & columns[None])
        for line in (rows, columns):
            where = line.nonzero().flatten()
            assert len(where) == int(where[-1] - where[0]) + 1
    # Frames of one clip are hidden apart: what moved elsewhere says nothing of it.
    assert not torch.equal(hidden.view(100, 3, 64)[:, 0], hidden.view(100, 3, 64)[:, 1])


def test_nothing_or_everything_is_hidden_on_request() -> None:
    frames = torch.zeros(10, 2, 28, 28, 3, dtype=torch.uint8)
    assert not draw(frames, masked_probability=0.0).hidden.any()
    assert draw(frames, masked_probability=1.0).hidden.flatten(0, 1).any(dim=1).all()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"crop": (1.0, 0.7)}, "crop: [1, 0.7] is no range"),
        ({"crop": (0.0, 1.0)}, "crop: [0.0, 1.0] must lie within (0, 1]"),
        ({"masked_share": (0.2, 1.0)}, "masked_share: [0.2, 1.0] must stay below 1"),
    ],
)
def test_ranges_that_make_no_sense_are_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="ViewsConfig") as caught:
        ViewsConfig(**config)
    assert words in str(caught.value)
