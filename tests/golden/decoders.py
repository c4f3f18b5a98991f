"""Our decoders with the reference's weights, and our image metrics, against the reference's pictures and numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.golden.case import Golden, assert_golden
from tests.golden.models import batch_of, build_world_model, check_gradients, check_loss
from wm.config.decoder import TransposedConvDecoderConfig, VqVaeDecoderConfig
from wm.evaluation.images import ImageScores, structural_similarity
from wm.models.decoder import DecoderLoss, build_decoder
from wm.models.decoder_transposed_conv import TransposedConvDecoder
from wm.models.decoder_vqvae import VqVaeDecoder


def vqvae_config(case: Golden) -> VqVaeDecoderConfig:
    return VqVaeDecoderConfig(
        channel=case.size("vq_channel"),
        num_blocks=case.size("vq_n_res_block"),
        block_channels=case.size("vq_n_res_channel"),
        num_codes=case.size("vq_n_embed"),
    )


def without_codebook(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The reference keeps a codebook even where quantisation is off; ours has none then."""
    return {name: value for name, value in weights.items() if not name.startswith("quantize_b.")}


@torch.no_grad()
def check_vqvae(case: Golden) -> None:
    visual = case["in/x"]
    decoder = VqVaeDecoder(vqvae_config(case), visual.shape[-1], visual.shape[-2])
    decoder.load_state_dict(without_codebook(case.under("w/")))
    decoded, distance = decoder(visual)
    assert_golden(decoded[0], case["out/y"])
    assert float(distance) == 0 == float(case["out/diff"].abs().max())


@torch.no_grad()
def check_transposed_conv(case: Golden) -> None:
    assert case.cfg("height") == case.cfg("width")
    config = TransposedConvDecoderConfig(
        depth=case.size("depth"),
        kernel_size=case.size("kernel_size"),
        stride=case.size("stride"),
        image_size=case.size("height"),
    )
    decoder = TransposedConvDecoder(config, case.size("emb_dim"), 1)
    decoder.load_state_dict(case.under("w/"))
    decoded, _ = decoder(case["in/x"])
    assert_golden(decoded.flatten(0, 1), case["out/y"])


def check_any_loss(case: Golden) -> None:
    """With a decoder or without, as the case says."""
    if case.arrays.get("cfg/has_decoder", 0):
        check_decoder_loss(case)
    else:
        check_loss(case)


def check_decoder_loss(case: Golden) -> None:
    """World model and decoder together: every loss, both pictures, and gradients, which the detached input keeps apart."""
    config = vqvae_config(case)
    model = build_world_model(Golden({k: v for k, v in case.arrays.items() if not k.startswith("w/decoder.")}))
    decoder = build_decoder(config, model.visual_dim, model.tokens_per_frame)
    assert decoder is not None
    decoder.load_state_dict(without_codebook(case.under("w/decoder.")))
    batch, images = batch_of(case), case["in/images"]
    content = model.encode_content(batch.obs)
    predicted = model.predict(model.encode(batch.obs, batch.actions)[:, : model.history_len])
    terms = model.losses(batch)
    for name in ("z_loss", "z_visual_loss", "z_proprio_loss"):
        assert_golden(terms.parts[name], case[f"out/loss/{name}"])
    loss = DecoderLoss(config)
    visual = model.visual(content)
    reconstructed = loss(decoder, visual, images, batch.weights)
    of_predicted = loss(decoder, model.visual(predicted), images[:, 1:], batch.weights)
    for found, where in ((reconstructed, "reconstructed"), (of_predicted, "pred")):
        for name, value in found.items():
            assert_golden(value.detach(), case[f"out/loss/{name}_{where}"])
    total = terms.total + reconstructed["decoder_loss"]
    assert_golden(total.detach(), case["out/loss/loss"])
    assert_golden(decoder(visual)[0][0, :1].detach(), case["out/visual_recon_frame0"])
    assert_golden(decoder(model.visual(predicted))[0][0, :1].detach(), case["out/visual_pred_frame0"])

    total.backward()
    of_decoder = {f"decoder.{name}": value for name, value in decoder.named_parameters()}
    checked = check_gradients(case, {**dict(model.named_parameters()), **of_decoder}, batch)
    assert any(name.startswith("decoder.dec.") for name in checked)


@torch.no_grad()
def check_metrics_image(case: Golden) -> None:
    for kind in ("noise", "smooth", "unit"):
        first, second = case[f"in/{kind}_a"], case[f"in/{kind}_b"]
        scores = ImageScores()
        scores.add(first[:1], second[:1])
        scores.add(first[1:], second[1:])
        found = scores.metrics()
        for theirs, ours in {"l1": "l1", "l2": "mse", "mse": "mse", "psnr": "psnr", "ssim": "ssim"}.items():
            assert abs(found[ours] - float(case[f"out/{kind}/{theirs}"])) <= 2e-6, f"{kind} {theirs}"
        per_image = structural_similarity(first, second)
        assert float((per_image - case[f"out/{kind}/ssim_per_image"]).abs().max()) <= 2e-6, kind
