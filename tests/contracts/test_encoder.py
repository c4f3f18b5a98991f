"""What every encoder promises. A new one joins by an entry in SAMPLES of tests/wm/encoders/samples.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.wm.encoders.samples import SAMPLES, TEMPORAL, make, nudged, saved, some_frames
from wm.config.errors import UserError
from wm.contracts import Encoder, ResizableEncoder
from wm.encoders.frozen import FrozenEncoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(params=SAMPLES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def again(name: str, folder: Path) -> Callable[[], Encoder]:
    return lambda: make(name, folder)


@pytest.fixture
def encoder(again: Callable[[], Encoder]) -> Encoder:
    return again()


def test_it_is_an_encoder(encoder):
    assert isinstance(encoder, Encoder)
    assert encoder.fingerprint
    assert encoder.dim > 0


@pytest.mark.parametrize("size", [(50, 70), (70, 50), (42, 42), (20, 30), (224, 224)])
def test_patch_tokens_of_any_frame(encoder, size):
    tokens = encoder.encode(some_frames(2, 3, *size))
    assert tokens.shape == (2, 3, encoder.grid[0] * encoder.grid[1], encoder.dim)
    assert tokens.dtype == torch.float32
    assert torch.isfinite(tokens).all()


def test_frozen(encoder):
    assert not encoder.encode(some_frames()).requires_grad
    with torch.enable_grad():
        assert not encoder.encode(some_frames()).requires_grad
    if isinstance(encoder, nn.Module):
        assert not any(p.requires_grad for p in encoder.parameters())


def test_training_mode_does_not_reach_it(encoder):
    """Fault: a world model that holds its encoder and is set to train would switch it to training too."""
    before = encoder.encode(some_frames())
    if isinstance(encoder, nn.Module):
        nn.Sequential(encoder).train()
        assert not any(module.training for module in encoder.modules())
    assert torch.equal(encoder.encode(some_frames()), before)


def test_autocast_does_not_reach_it(encoder):
    """Fault: tokens would depend on the precision that the predictor is trained in."""
    before = encoder.encode(some_frames())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(encoder.encode(some_frames()), before)


def test_the_same_frames_give_the_same_tokens(again, encoder):
    tokens = encoder.encode(some_frames())
    state = torch.get_rng_state()
    assert torch.equal(encoder.encode(some_frames()), tokens)
    assert torch.equal(torch.get_rng_state(), state)
    other = again()
    assert other.fingerprint == encoder.fingerprint
    assert torch.equal(other.encode(some_frames()), tokens)


def test_a_batch_is_its_clips(encoder):
    """Also beyond the number of frames that are encoded at once."""
    frames = some_frames(4, 17)
    tokens = encoder.encode(frames)
    for clip in (0, 3):
        torch.testing.assert_close(tokens[clip], encoder.encode(frames[clip, None])[0], rtol=0, atol=1e-5)


def test_a_clip_is_its_frames(name, encoder):
    if name in TEMPORAL:
        pytest.skip("a token of a video encoder depends on earlier frames too")
    frames = some_frames(4, 17)
    tokens = encoder.encode(frames)
    for clip, frame in ((0, 0), (0, 16), (3, 12), (3, 16)):
        alone = encoder.encode(frames[clip, frame][None, None])
        torch.testing.assert_close(tokens[clip, frame], alone[0, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("changed", range(1, 6))
def test_no_later_frame_leaks_in(encoder, changed):
    """Fault: a window that is centred on its frame, or tokens of a tubelet whose second frame is the next."""
    frames = some_frames(2, 6)
    perturbed = frames.clone()
    perturbed[:, changed:] = 255 - perturbed[:, changed:]
    before, after = encoder.encode(frames), encoder.encode(perturbed)
    assert torch.equal(before[:, :changed], after[:, :changed])
    assert not torch.equal(before[:, changed], after[:, changed])


def test_what_comes_after_is_not_needed(encoder):
    frames = some_frames(2, 6)
    tokens = encoder.encode(frames)
    for length in range(1, 6):
        torch.testing.assert_close(encoder.encode(frames[:, :length]), tokens[:, :length], rtol=0, atol=1e-5)


def test_no_clip_leaks_into_another(encoder):
    """Fault: windows cut from all frames of a batch in a row, whose first would reach into the clip before."""
    frames = some_frames(3, 4)
    perturbed = frames.clone()
    perturbed[[0, 2]] = 255 - perturbed[[0, 2]]
    assert torch.equal(encoder.encode(frames)[1], encoder.encode(perturbed)[1])


def test_frames_matter(encoder):
    tokens = encoder.encode(some_frames())
    assert not torch.equal(tokens[0, 0], tokens[0, 1])
    if tokens.shape[2] > 1:  # patches differ from one another
        assert (tokens[0, 0, 1:] - tokens[0, 0, :1]).abs().amax(dim=-1).min() > 0


def test_frames_are_left_as_they_were(encoder):
    frames = some_frames()
    encoder.encode(frames)
    assert torch.equal(frames, some_frames())


def test_only_uint8_frames_are_taken(encoder):
    with pytest.raises(TypeError, match="uint8"):
        encoder.encode(some_frames().float())


def test_the_fingerprint_follows_every_setting_that_changes_tokens(name, encoder, folder):
    frames, changes = some_frames(1, 2), SAMPLES[name].changes
    assert changes
    others = [make(name, folder, **change) for change in changes]
    assert len({encoder.fingerprint, *(other.fingerprint for other in others)}) == 1 + len(changes)
    tokens = encoder.encode(frames)
    for other in others:
        moved = other.encode(frames)
        assert moved.shape != tokens.shape or not torch.equal(moved, tokens)


def test_the_fingerprint_follows_the_weights(name, encoder, folder, tmp_path):
    network = SAMPLES[name].network
    if network is None:
        pytest.skip("it reads no weights")
    other = make(name, folder, weights=nudged(saved(network, folder), tmp_path / "nudged"))
    assert other.fingerprint != encoder.fingerprint
    moved = make(name, folder, weights=Path(str(saved(network, folder)) + "/"))
    assert moved.fingerprint == encoder.fingerprint


def test_at_another_size_it_is_the_encoder_of_that_size(name, encoder, folder):
    """What train.resolution relies on: the same weights, a grid and a fingerprint of its own."""
    if not isinstance(encoder, ResizableEncoder):
        pytest.skip("it has one size")
    size = 28 if name == "tiny" or name.startswith("dinov2") else 32
    smaller = encoder.at_size(size)
    tokens = smaller.encode(some_frames())
    assert tokens.shape == (2, 3, smaller.grid[0] * smaller.grid[1], encoder.dim)
    assert (smaller.grid[0] < encoder.grid[0]) == (encoder.grid[0] > 1)
    assert smaller.fingerprint != encoder.fingerprint
    assert isinstance(encoder, nn.Module)
    assert {p.data_ptr() for p in smaller.parameters()} <= {p.data_ptr() for p in encoder.parameters()}  # not a copy
    if name != "tiny":  # its positions are drawn for one size
        field = "encode_size" if name.startswith("dinov2") else "image_size"
        sizes = {field: size, **({"resize_size": size} if "resize_size" in SAMPLES[name].values else {})}
        made = make(name, folder, **sizes)
        assert made.fingerprint == smaller.fingerprint
        assert torch.equal(made.encode(some_frames()), tokens)
    before = encoder.encode(some_frames())
    own = encoder.at_size(SAMPLES[name].values.get("encode_size") or SAMPLES[name].values["image_size"])
    assert own.fingerprint == encoder.fingerprint
    assert torch.equal(own.encode(some_frames()), before)


def test_a_size_between_patches_is_refused(encoder):
    if not isinstance(encoder, ResizableEncoder):
        pytest.skip("it has one size")
    with pytest.raises(UserError, match="33 is not a multiple"):
        encoder.at_size(33)


def test_nothing_is_rounded_to_tf32(encoder):
    """Fault: on a GPU torch lets convolutions round to ten bits, so a CPU's tokens and a GPU's would share one fingerprint."""
    if not isinstance(encoder, FrozenEncoder):
        pytest.skip("computes by itself")
    backends = (torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul)
    before = [backend.fp32_precision for backend in backends]
    seen = []
    encoder.network.register_forward_pre_hook(lambda *_: seen.append([b.fp32_precision for b in backends]))
    encoder.encode(some_frames())
    assert seen
    assert all(precision == "ieee" for call in seen for precision in call)
    assert [backend.fp32_precision for backend in backends] == before


@pytest.mark.gpu
def test_a_gpu_gives_the_tokens_of_a_cpu(encoder):
    """Up to far less than float16, in which tokens are kept, rounds off (2^-11)."""
    if not isinstance(encoder, FrozenEncoder):
        pytest.skip("chooses its device itself")
    frames = some_frames()
    expected, fingerprint = encoder.encode(frames), encoder.fingerprint
    tokens = encoder.to("cuda").encode(frames).cpu()
    encoder.to("cpu")
    assert encoder.fingerprint == fingerprint
    assert (tokens - expected).norm() / expected.norm() < 2**-14
