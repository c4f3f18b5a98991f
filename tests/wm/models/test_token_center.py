"""Centred tokens: the same functions P can be, another way there; the mean is the training frames' and stays with the weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.wm.data.samples import inputs, same
from wm.build import load
from wm.losses.reconstruction import reconstruction_loss
from wm.training.checkpoint import find_checkpoint, load_checkpoint
from wm.training.reporter import NullReporter
from wm.types import ClipRef

VARIANTS = ("align", "align_recon", "align_recon_dynamics", "projected")


@pytest.mark.parametrize("variant", VARIANTS)
def test_centring_is_a_change_of_the_bias(make_model, make_batch, variant) -> None:
    """P(x - m) is P(x) with the bias b - P m, so centred and raw models are the same family."""
    centered, raw = (make_model(variant, {"model.center_tokens": center}) for center in (True, False))
    batch = make_batch()
    centered.token_center.mean.copy_(torch.randn(centered.token_dim))
    raw.load_state_dict({k: v for k, v in centered.state_dict().items() if k != "token_center.mean"})
    with torch.no_grad():
        weight = raw.projection[0].weight[:, : raw.token_dim]  # joint: the proprio channels keep theirs
        raw.projection[0].bias -= weight @ centered.token_center.mean
        torch.testing.assert_close(centered.encode_content(batch.obs), raw.encode_content(batch.obs), rtol=0, atol=1e-5)


def test_what_is_reconstructed_is_the_encoder_s_token(make_model, make_batch) -> None:
    model, batch = make_model("align_recon", {"model.center_tokens": True}).eval(), make_batch()
    model.token_center.mean.copy_(3 + torch.randn(model.token_dim))
    rebuilt = model.reconstruction_head(model.visual(model.encode_content(batch.obs))) + model.token_center.mean
    expected = reconstruction_loss(rebuilt, batch.obs.visual, batch.weights)
    torch.testing.assert_close(model.losses(batch).parts["reconstruction_loss"], expected)


@pytest.mark.parametrize(("variant", "center"), [("baseline", False), *((name, True) for name in VARIANTS)])
def test_presets_centre_where_they_project(make_model, variant, center) -> None:
    assert (make_model(variant).token_center is not None) is center


def test_the_mean_is_of_training_frames_and_stays_with_the_weights(tmp_path: Path) -> None:
    run = inputs(tmp_path, "align", train__ema_decay=0.5)
    name, (trained_on, _) = next(iter(run.dataset.split.items()))
    lengths = run.dataset.sources[name].lengths
    frames = [run.batch([ClipRef(name, e, t, 1, 1)]).obs.visual for e in trained_on for t in range(lengths[e])]
    every = torch.cat(frames).double()
    mean, _ = run.token_statistics()
    # A sample of them: within a few standard errors of all of them.
    error = every.mean(dim=2).std(dim=0).squeeze() / min(128, len(frames)) ** 0.5
    assert ((mean - every.mean(dim=(0, 1, 2))).abs() <= 5 * error + 1e-6).all()
    run.training(NullReporter(), run.local_batches).run()
    checkpoint = load_checkpoint(find_checkpoint(run.folder.path))
    assert torch.equal(checkpoint.model["token_center.mean"], mean)
    assert torch.equal(checkpoint.ema["token_center.mean"], mean)
    center = load(run.folder.path).model.token_center
    assert center is not None
    assert torch.equal(center.mean, mean)
    again = inputs(tmp_path, "align", train__ema_decay=0.5).token_statistics()[0]
    assert same({"mean": again}, {"mean": mean})
