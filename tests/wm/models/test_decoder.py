"""Image decoders: the reference's numbers, and that they only watch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.golden.case import GOLDEN, load_case
from tests.golden.decoders import check_decoder_loss, check_transposed_conv, check_vqvae, vqvae_config
from tests.wm.data.samples import inputs, train, trained, user_error
from tests.wm.models.conftest import TwoWorkers
from wm.build import load
from wm.config.decoder import LpipsConfig, TransposedConvDecoderConfig, VqVaeDecoderConfig
from wm.config.train import OptimizerConfig
from wm.losses.image import image_loss
from wm.models.decoder import DecoderLoss, build_decoder, target_images
from wm.models.decoder_vqvae import VqVaeDecoder
from wm.models.perceptual import PerceptualDistance
from wm.models.quantizer import Codebook
from wm.training.checkpoint import find_checkpoint, load_checkpoint
from wm.training.optimizer import build_optimizer, clipped_apart

SMALL = {"kind": "vqvae", "channel": 8, "num_blocks": 1, "block_channels": 4}


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("decoder_vqvae", check_vqvae),
        ("decoder_transposed_conv", check_transposed_conv),
        ("loss_concat1_decoder", check_decoder_loss),
    ],
)
def test_the_references_numbers(name, check):
    check(load_case(GOLDEN / "dino_wm" / f"{name}.npz"))


def test_the_check_fails_without_the_raw_skip():
    """A residual block that rectifies its skip too, as an in-place ReLU would."""
    case = load_case(GOLDEN / "dino_wm" / "decoder_vqvae.npz")
    decoder = VqVaeDecoder(vqvae_config(case), 12, 9)
    decoder.load_state_dict({k: v for k, v in case.under("w/").items() if "quantize" not in k})
    with torch.no_grad():
        assert torch.allclose(decoder(case["in/x"])[0][0], case["out/y"], atol=1e-5)
        decoder.upsample_b.blocks[1].conv[0] = torch.nn.ReLU(inplace=True)
        assert not torch.allclose(decoder(case["in/x"])[0][0], case["out/y"], atol=1e-5)


@pytest.mark.parametrize("quantize", [False, True])
def test_size_as_published(quantize):
    with torch.device("meta"):
        decoder = build_decoder(VqVaeDecoderConfig(quantize=quantize), 384, 196)
    assert decoder is not None
    assert sum(p.numel() for p in decoder.parameters()) == 10_140_163
    assert decoder.image_size == 224


def test_a_patch_is_drawn_where_it_lies():
    decoder = build_decoder(VqVaeDecoderConfig(channel=8, num_blocks=1, block_channels=4), 6, 64)
    assert decoder is not None
    visual = torch.randn(1, 2, 64, 6)
    changed = visual.clone()
    changed[0, 1, 8 * 1 + 6] += 5  # second frame, row 1, column 6
    with torch.no_grad():
        difference = (decoder(changed)[0] - decoder(visual)[0]).abs().sum(dim=2)[0]
    assert not difference[0].any()
    rows, columns = difference[1].sum(dim=1), difference[1].sum(dim=0)
    place = torch.arange(128.0)
    centre = float((rows * place).sum() / rows.sum()), float((columns * place).sum() / columns.sum())
    assert abs(centre[0] - 16 * 1.5) < 12  # as near as the picture's border lets it
    assert abs(centre[1] - 16 * 6.5) < 12
    assert not rows[16 * 6 :].any()  # two 3x3 blocks of each upsampler reach a few patches, no more


def test_tokens_that_are_no_square():
    assert "square grid" in user_error(lambda: build_decoder(VqVaeDecoderConfig(), 4, 5))


def test_several_tokens_a_frame_for_the_transposed_convolution():
    config = TransposedConvDecoderConfig(depth=8, image_size=20)
    decoder = build_decoder(config, 6, 4)
    assert decoder is not None
    visual = torch.randn(2, 3, 4, 6)
    pictures, distance = decoder(visual)
    assert pictures.shape == (2, 3, 3, 20, 20)
    assert float(distance) == 0
    swapped, _ = decoder(visual.flip(2))
    assert not torch.equal(pictures, swapped)  # a frame's tokens are not averaged


def test_targets_are_frames_as_the_encoder_crops_them():
    frames = torch.zeros(1, 2, 10, 20, 3, dtype=torch.uint8)
    frames[..., 5:15, :] = 255  # the middle square
    images = target_images(frames, 30)
    assert images.shape == (1, 2, 3, 30, 30)
    assert float(images[..., 3:-3].min()) > 0.99
    black = target_images(torch.zeros_like(frames), 5)
    assert torch.equal(black, torch.full((1, 2, 3, 5, 5), -1.0))


def test_image_loss_by_hand():
    decoded, frames = torch.zeros(2, 1, 3, 2, 2), torch.zeros(2, 1, 3, 2, 2)
    decoded[0] += 2.0
    decoded[1, 0, 0, 0, 0] = 6.0
    assert float(image_loss(decoded, frames, torch.tensor([1.0, 0.0]))) == 4
    assert float(image_loss(decoded, frames, torch.tensor([1.0, 1.0]))) == pytest.approx((4 + 3) / 2)


def test_commitment_is_a_quarter_of_the_distance_to_the_codes():
    config = VqVaeDecoderConfig(channel=8, num_blocks=0, block_channels=4, quantize=True, num_codes=3)
    decoder = build_decoder(config, 6, 4)
    assert decoder is not None
    decoder.eval()
    images = torch.zeros(2, 1, 3, 32, 32)
    terms = DecoderLoss(config)(decoder, torch.randn(2, 1, 4, 6), images, torch.ones(2))
    assert float(terms["decoder_vq_loss"]) > 0
    torch.testing.assert_close(
        terms["decoder_loss"], terms["decoder_recon_loss"] + 0.25 * terms["decoder_vq_loss"], rtol=0, atol=1e-6
    )


def test_codes_are_the_nearest_and_the_gradient_goes_straight_through():
    codebook = Codebook(2, 3).eval()
    codebook.embed.copy_(torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]]).T)
    vectors = torch.tensor([[[3.0, 0.5], [0.2, 3.1]], [[0.4, -0.4], [2.5, 0.0]]], requires_grad=True)
    codes, distance = codebook(vectors)
    torch.testing.assert_close(codes, torch.tensor([[[4.0, 0.0], [0.0, 4.0]], [[0.0, 0.0], [4.0, 0.0]]]))
    assert float(distance.detach()) == pytest.approx((1 + 0.25 + 0.04 + 0.81 + 0.16 + 0.16 + 2.25 + 0) / 8)
    weights = torch.randn(2, 2, 2)
    (codes * weights).sum().backward()
    torch.testing.assert_close(vectors.grad, weights)


def test_a_long_code_is_not_nearer_for_being_long():
    codebook = Codebook(1, 2).eval()
    codebook.embed.copy_(torch.tensor([[1.0, 3.0]]))
    codes, _ = codebook(torch.tensor([[1.9], [2.1]]))
    assert codes.flatten().tolist() == [1.0, 3.0]


def test_codes_become_the_means_of_their_vectors():
    codebook = Codebook(2, 2).train()
    codebook.embed.copy_(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]).T)
    codebook.embed_avg.copy_(codebook.embed)
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[5.0, 2.0], [-3.0, -4.0]])
    for _ in range(1000):
        noise = 0.1 * torch.randn(2, 8, 2, generator=generator)
        codebook(centres[:, None] + noise)
    torch.testing.assert_close(codebook.embed.T, centres, rtol=0, atol=0.05)
    before = codebook.embed.clone()
    codebook.eval()
    codebook(torch.zeros(4, 2))
    assert torch.equal(codebook.embed, before)


@pytest.mark.parametrize("variant", ["baseline", "align_recon"])
def test_no_gradient_of_the_decoder_reaches_the_world_model(make_model, make_batch, variant):
    model = make_model(variant, {"model.decoder": SMALL})
    batch = replace(make_batch(), images=torch.randint(0, 256, (3, 3, 40, 40, 3), dtype=torch.uint8))
    batch.obs.visual.requires_grad_()
    terms = model.losses(batch)
    assert set(terms.parts) >= {f"decoder_{part}_reconstructed" for part in ("loss", "recon_loss", "vq_loss")}
    terms.weighted["decoder_loss_reconstructed"].backward()
    taught = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert taught == {"decoder"}
    assert all(p.grad is not None for p in model.decoder.parameters())
    assert batch.obs.visual.grad is None


def test_the_decoder_draws_visual_channels_before_proprio(make_model, make_batch):
    """The picture does not change with the proprio, and the loss is that of the visual channels."""
    model = make_model("align", {"model.decoder": SMALL})
    batch = replace(make_batch(), images=torch.randint(0, 256, (3, 3, 32, 32, 3), dtype=torch.uint8))
    parts = model.losses(batch).parts
    assert {"z_loss", "alignment_loss", "decoder_recon_loss_reconstructed"} < parts.keys()
    found = parts["decoder_loss_reconstructed"]
    other = replace(batch, obs=replace(batch.obs, proprio=batch.obs.proprio + 3))
    assert torch.equal(found, model.losses(other).parts["decoder_loss_reconstructed"])
    decoded, _ = model.decoder(model.projection(batch.obs.visual))
    expected = (decoded - target_images(batch.images, 32)).square().mean()
    torch.testing.assert_close(found, expected.detach())


def test_a_batch_without_images_is_refused(make_model, make_batch):
    with pytest.raises(ValueError, match="batches with images"):
        make_model("baseline", {"model.decoder": SMALL}).losses(make_batch())


def test_adam_at_its_own_rate(make_model):
    groups = build_optimizer(make_model("align", {"model.decoder": SMALL}), OptimizerConfig()).param_groups
    by_name = {group["name"]: group for group in groups}
    assert (by_name["decoder"]["lr"], by_name["decoder"]["weight_decay"]) == (3e-4, 0.0)
    assert (by_name["predictor"]["lr"], by_name["predictor"]["weight_decay"]) == (5e-4, 0.01)


def test_a_decoder_changes_nothing_of_the_world_model(tmp_path: Path):
    """The same weights, bit for bit, though gradients are clipped; and the decoder has learnt."""
    clip = {"train__optimizer__grad_clip_norm": 0.5}
    plain, watched = inputs(tmp_path, **clip), inputs(tmp_path, model__decoder=SMALL, **clip)
    train(plain)
    history = train(watched)
    first, second = (load_checkpoint(find_checkpoint(run.folder.path)).model for run in (plain, watched))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert {name.split(".")[0] for name in second.keys() - first.keys()} == {"decoder"}
    losses = [row["metrics"]["train/decoder_loss_reconstructed"] for row in history]
    assert losses[-1] < losses[0]
    model = load(watched.folder.path).model
    assert isinstance(model.decoder, VqVaeDecoder)
    assert len(clipped_apart(model)) == 2
    assert len(clipped_apart(load(trained("align").folder.path).model)) == 1


# -- LPIPS ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in torchvision's layout; its numbers are random, which a test may use and a measurement may not."""
    from wm.encoders import torchvision_shim

    torchvision_shim.install()
    from torchvision.models import squeezenet1_1

    file = tmp_path_factory.mktemp("backbone") / "squeezenet.pth"
    torch.manual_seed(3)
    torch.save(squeezenet1_1(weights=None).state_dict(), file)
    return file


def test_lpips_uses_the_given_backbone(backbone: Path):
    torch.manual_seed(7)
    distance = PerceptualDistance(LpipsConfig(backbone=str(backbone), network="squeeze"))
    after = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(after, torch.rand(1))  # torch's generator is as it was
    same_again = PerceptualDistance(LpipsConfig(backbone=str(backbone), network="squeeze"))
    a, b = torch.rand(2, 3, 64, 64) * 2 - 1, torch.rand(2, 3, 64, 64) * 2 - 1
    assert torch.equal(distance(a, b), same_again(a, b))
    assert distance(a, b).shape == (2,)
    assert (distance(a, b) > 0).all()
    assert torch.equal(distance(a, a), torch.zeros(2))
    weights = torch.load(backbone, weights_only=True)
    weights["features.0.weight"] = weights["features.0.weight"].flip(0, 1)
    torch.save(weights, backbone.with_name("other.pth"))
    other = PerceptualDistance(LpipsConfig(backbone=str(backbone.with_name("other.pth")), network="squeeze"))
    assert not torch.equal(distance(a, b), other(a, b))


def test_lpips_reads_safetensors_too_and_learns_nothing(backbone: Path):
    file = backbone.with_suffix(".safetensors")
    save_file(torch.load(backbone, weights_only=True), file)
    a, b = torch.rand(2, 3, 64, 64).requires_grad_(), torch.rand(2, 3, 64, 64)
    first, second = (
        PerceptualDistance(LpipsConfig(backbone=str(place), network="squeeze")) for place in (backbone, file)
    )
    assert torch.equal(first(a, b), second(a, b))
    assert not first(a.detach(), b).requires_grad
    first(a, b).sum().backward()
    assert a.grad is not None


class Boom:
    """Unpickled, it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_a_backbone_that_would_run_code_is_refused(tmp_path: Path):
    file, mark = tmp_path / "vgg.pth", tmp_path / "mark"
    torch.save({"features.0.weight": Boom(mark)}, file)
    assert f"{file}: not a file of weights (UnpicklingError)" in user_error(
        lambda: PerceptualDistance(LpipsConfig(backbone=str(file)))
    )
    assert not mark.exists()


def test_decoder_losses_weigh_clips_and_are_of_the_global_batch(backbone: Path):
    config = VqVaeDecoderConfig(
        channel=8, num_blocks=0, block_channels=4, perceptual=LpipsConfig(backbone=str(backbone), network="squeeze")
    )
    decoder = build_decoder(config, 6, 16)
    assert decoder is not None
    generator = torch.Generator().manual_seed(0)
    visual, images = torch.randn(2, 3, 16, 6, generator=generator), torch.rand(2, 3, 3, 64, 64, generator=generator)
    loss, weights = DecoderLoss(config), torch.tensor([1.0, 3.0])
    whole = loss(decoder, visual, images, weights)
    apart = [loss(decoder, visual[i : i + 1], images[i : i + 1], torch.ones(1)) for i in range(2)]
    halved = loss(decoder, visual, images, weights, TwoWorkers())
    for name in ("decoder_recon_loss", "decoder_lpips_loss"):
        torch.testing.assert_close(whole[name], (apart[0][name] + 3 * apart[1][name]) / 4)
        torch.testing.assert_close(halved[name], whole[name] / 2)


def test_lpips_as_a_loss(backbone: Path):
    config = VqVaeDecoderConfig(
        channel=8,
        num_blocks=0,
        block_channels=4,
        perceptual=LpipsConfig(backbone=str(backbone), network="squeeze", weight=2.0),
    )
    decoder = build_decoder(config, 6, 16)
    assert decoder is not None
    terms = DecoderLoss(config)(decoder, torch.randn(1, 1, 16, 6), torch.zeros(1, 1, 3, 64, 64), torch.ones(1))
    expected = terms["decoder_recon_loss"] + 2 * terms["decoder_lpips_loss"]
    torch.testing.assert_close(terms["decoder_loss"], expected)
    terms["decoder_lpips_loss"].backward()
    assert all(p.grad is not None for p in decoder.parameters())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "or say perceptual=none"),
        (b"junk", "not a file of weights ("),
        ({"a": 1}, "features.0.weight"),
    ],
)
def test_a_backbone_that_is_none(tmp_path: Path, content, words: str):
    file = tmp_path / "vgg.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    message = user_error(lambda: PerceptualDistance(LpipsConfig(backbone=str(file))))
    assert words in message
    assert str(file) in message


def test_a_relative_backbone_is_refused():
    with pytest.raises(ValueError, match="absolute"):
        LpipsConfig(backbone="vgg.pth")
