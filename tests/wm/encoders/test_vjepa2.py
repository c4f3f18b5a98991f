"""V-JEPA 2's windows against transformers' own network and a loop over frames."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.wm.encoders.samples import make, saved, some_frames, vjepa2
from wm.config.encoder import VJepa2EncoderConfig
from wm.config.errors import UserError
from wm.encoders.preprocess import preprocess_imagenet

SIZE = 48
PATCHES = 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


def network(folder: Path, crop_size: int = SIZE):
    from transformers import VJEPA2Model

    return VJEPA2Model.from_pretrained(saved(vjepa2, folder), crop_size=crop_size).eval()


def images() -> Tensor:
    """(B, T, 3, SIZE, SIZE)"""
    frames = some_frames(2, 7)
    return preprocess_imagenet(frames.flatten(0, 1), SIZE).unflatten(0, (2, 7))


@torch.no_grad()
@pytest.mark.parametrize("window", [2, 4, 6])
def test_video_tokens_are_the_last_tubelet_of_a_window_that_ends_at_the_frame(folder, window):
    reference, pixels = network(folder), images()
    expected = torch.empty(2, 7, PATCHES, 24)
    for clip in range(2):
        for frame in range(7):
            shown = [pixels[clip, max(frame - back, 0)] for back in reversed(range(window))]
            found = reference(torch.stack(shown)[None], skip_predictor=True).last_hidden_state[0]
            assert found.shape[0] == window // 2 * PATCHES
            expected[clip, frame] = found[-PATCHES:]
    tokens = make("vjepa2 video", folder, window=window).encode(some_frames(2, 7))
    torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_frame_tokens_are_those_of_a_frame_repeated(folder):
    pixels = images().flatten(0, 1)
    still = network(folder)(torch.stack([pixels, pixels], dim=1), skip_predictor=True).last_hidden_state
    assert still.shape == (14, PATCHES, 24)
    tokens = make("vjepa2 frame", folder).encode(some_frames(2, 7))
    torch.testing.assert_close(tokens, still.unflatten(0, (2, 7)), rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_network_itself_would_leak(folder):
    """Fault: the whole clip through the network at once. A later frame then changes the tokens of every earlier one."""
    pixels = images()[:, :6]
    perturbed = pixels.clone()
    perturbed[:, 5] = -perturbed[:, 5]
    before, after = (network(folder)(video, skip_predictor=True).last_hidden_state for video in (pixels, perturbed))
    assert (before - after)[:, :PATCHES].abs().max() > 1e-3


def test_both_modes_agree_on_a_first_frame_as_wide_as_a_tubelet(folder):
    frames = some_frames(2, 3)
    video = make("vjepa2 video", folder, window=2).encode(frames)
    frame = make("vjepa2 frame", folder).encode(frames)
    torch.testing.assert_close(video[:, 0], frame[:, 0], rtol=0, atol=1e-5)
    assert not torch.allclose(video[:, 1], frame[:, 1], atol=1e-3)


def test_what_lies_before_the_window_does_not_matter(folder):
    frames = some_frames(1, 7)
    perturbed = frames.clone()
    perturbed[:, 0] = 255 - perturbed[:, 0]
    encoder = make("vjepa2 video", folder, window=4)
    before, after = encoder.encode(frames), encoder.encode(perturbed)
    assert torch.equal(before[:, 4:], after[:, 4:])
    assert not torch.equal(before[:, 3], after[:, 3])


@torch.no_grad()
def test_positions_are_counted_on_the_grid_of_the_images_given(folder):
    """Fault: transformers counts them on its config's crop_size (32 in this folder), and rows of another size shear."""
    encoder = make("vjepa2 frame", folder)
    assert encoder.grid == (3, 3)
    pixels = images().flatten(0, 1)
    video = torch.stack([pixels, pixels], dim=1)
    sheared = network(folder, crop_size=32)(video, skip_predictor=True).last_hidden_state
    assert (encoder.encode(some_frames(2, 7)).flatten(0, 1) - sheared).abs().max() > 1e-3


def test_the_predictor_is_left_out_and_may_be_missing(folder, tmp_path):
    encoder = make("vjepa2 frame", folder)
    assert not any("predictor" in name for name, _ in encoder.named_parameters())  # type: ignore[attr-defined]
    vjepa2_folder = saved(vjepa2, folder)
    weights = load_file(vjepa2_folder / "model.safetensors")
    (tmp_path / "config.json").write_text((vjepa2_folder / "config.json").read_text())

    def keep(part: str) -> None:
        rest = {key: value for key, value in weights.items() if part not in key}
        assert 0 < len(rest) < len(weights)
        save_file(rest, tmp_path / "model.safetensors", metadata={"format": "pt"})

    keep("predictor.")
    assert make("vjepa2 frame", folder, weights=tmp_path).fingerprint == encoder.fingerprint
    keep("encoder.layer.1.")
    with pytest.raises(UserError, match="of its weights are missing, as encoder"):
        make("vjepa2 frame", folder, weights=tmp_path)


def test_sizes_that_do_not_fit_are_refused(folder):
    with pytest.raises(UserError, match=r"encoder\.window: 3 is not a multiple of the tubelet size 2"):
        make("vjepa2 video", folder, window=3)
    make("vjepa2 frame", folder, window=3)  # which looks at no window
    with pytest.raises(UserError, match=r"encoder\.image_size: 40 is not a multiple of the patch size 16"):
        make("vjepa2 frame", folder, image_size=40)
    with pytest.raises(ValueError, match=r"resize_size \(255\) must be at least image_size \(256\)"):
        VJepa2EncoderConfig(resize_size=255)


def test_only_video_looks_back():
    assert VJepa2EncoderConfig(mode="video").looks_back
    assert not VJepa2EncoderConfig(mode="frame").looks_back
