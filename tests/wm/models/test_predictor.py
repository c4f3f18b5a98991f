"""What the causal ViT promises whatever its weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from wm.config.model import PredictorConfig
from wm.models.predictor import CausalPredictor, KeysValues, frame_causal_mask

T, P, D = 3, 4, 10


@pytest.fixture(params=["plain", "fused"])
def predictor(request: pytest.FixtureRequest) -> CausalPredictor:
    config = PredictorConfig(depth=2, heads=2, head_dim=4, mlp_dim=16, attention=request.param)
    torch.manual_seed(0)
    return CausalPredictor(D, P, T, config).eval()


def latents(clips: int = 2) -> torch.Tensor:
    return torch.randn(clips, T, P, D, generator=torch.Generator().manual_seed(1))


def test_the_mask_is_blocks():
    mask = frame_causal_mask(2, 2)
    assert mask.int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]


@torch.no_grad()
@pytest.mark.parametrize("frame", range(T))
def test_a_frame_changes_its_own_and_later_outputs_only(predictor, frame):
    before, changed = latents(), latents()
    changed[:, frame, 1] += torch.arange(D)  # one token of it; a constant would vanish in the LayerNorm
    difference = (predictor(changed) - predictor(before)).abs().amax(dim=(0, 3))
    assert not difference[:frame].any()
    assert (difference[frame:] > 1e-4).all()  # every token of its own frame too, earlier ones included


@torch.no_grad()
def test_a_batch_is_its_clips(predictor):
    x = latents(4)
    torch.testing.assert_close(predictor(x), torch.cat([predictor(clip) for clip in x.split(1)]), rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_shorter_history_is_a_prefix(predictor):
    x = latents()
    for frames in (1, 2):
        torch.testing.assert_close(predictor(x[:, :frames]), predictor(x)[:, :frames], rtol=0, atol=2e-6)


def test_more_frames_than_the_history_are_refused(predictor):
    with pytest.raises(ValueError, match="at most 3 frames, got 4"):
        predictor(torch.zeros(1, 4, P, D))


@pytest.mark.parametrize("given", [[1], [1, 1], [1, 1, 1], [2], [2, 1], [1, 2], [3]])
def test_frame_by_frame_is_the_last_slot_of_all(predictor, given):
    x = latents()
    seen: list[KeysValues] = []
    first = 0
    for count in given:
        last = predictor.extend(x[:, first : first + count], seen)
        first += count
        expected = predictor(x[:, :first])[:, -1:]
        torch.testing.assert_close(last, expected, rtol=0, atol=2e-6)
    assert [k.shape[2] for k, _ in seen] == ([] if first == T else [first * P] * 2)
    ours, theirs = (torch.autograd.grad(of.square().sum(), list(predictor.parameters())) for of in (last, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_a_window_takes_no_frame_beyond_it(predictor):
    seen: list[KeysValues] = []
    predictor.extend(latents()[:, :2], seen)
    with pytest.raises(ValueError, match="at most 3 frames, got 4"):
        predictor.extend(latents()[:, :2], seen)


def test_dropout_in_training_only(predictor):
    x = latents()
    assert torch.equal(predictor(x), predictor(x))
    predictor.train()
    assert not torch.equal(predictor(x), predictor(x))


def test_attention_drops_weights_in_training_whichever_way_it_is_computed():
    """Both ways drop the same share: a uniform attention over ones keeps its mean and gains a spread."""
    for way in ("plain", "fused"):
        config = PredictorConfig(depth=1, heads=1, head_dim=4, mlp_dim=4, dropout=0.5, attention=way)
        predictor = CausalPredictor(4, 256, 1, config)
        attention = predictor.transformer.layers[0][0]
        attention.to_out = torch.nn.Identity()
        attention.norm = torch.nn.Identity()
        with torch.no_grad():
            attention.to_qkv.weight[:8] = 0  # queries and keys: every weight is 1 / 256
            attention.to_qkv.weight[8:] = torch.eye(4)
        out = attention.train()(torch.ones(1, 256, 4), 1)
        assert out.mean().item() == pytest.approx(1.0, abs=0.05), way
        assert out.std().item() == pytest.approx(256**-0.5, rel=0.3), way  # of 256 coins, each 0 or 2


def both_ways(**more: Any) -> list[CausalPredictor]:
    """The same weights with plain and with fused attention."""
    plain, fused = (
        CausalPredictor(D, P, T, PredictorConfig(depth=2, heads=2, head_dim=4, mlp_dim=16, attention=way, **more))
        for way in ("plain", "fused")
    )
    fused.load_state_dict(plain.state_dict())
    return [plain, fused]


def test_fused_attention_is_the_formula_and_has_its_gradient():
    plain, fused = (predictor.double().eval() for predictor in both_ways())
    x = latents().double()
    torch.testing.assert_close(fused(x), plain(x), rtol=0, atol=1e-12)
    for predictor in (plain, fused):
        predictor(x).square().sum().backward()
    for (name, ours), theirs in zip(fused.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-10, msg=name)


@pytest.mark.parametrize("way", [0, 1])
def test_recomputed_activations_change_no_gradient(way):
    """Dropout included: what is drawn again is what was drawn."""
    found: list[list[torch.Tensor]] = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        predictor = both_ways(dropout=0.3, checkpointing=checkpointing)[way].train()
        torch.manual_seed(5)
        predictor(latents()).square().sum().backward()
        found.append([p.grad for p in predictor.parameters() if p.grad is not None])
    assert len(found[0]) == len(list(predictor.parameters()))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_recomputing_keeps_fewer_activations():
    def kept(checkpointing: bool) -> int:
        sizes: list[int] = []
        predictor = both_ways(checkpointing=checkpointing)[1].train()
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            predictor(latents())
        return sum(sizes)

    assert kept(True) < 0.5 * kept(False)


def test_only_plain_attention_makes_a_mask(monkeypatch):
    def refuse(*given: Any) -> None:
        raise AssertionError("a mask was made")

    monkeypatch.setattr("wm.models.predictor.frame_causal_mask", refuse)
    for way in ("fused", "plain"):
        config = PredictorConfig(depth=1, heads=2, head_dim=4, mlp_dim=16, attention=way)  # type: ignore[arg-type]
        predictor = CausalPredictor(D, P, T, config).eval()
        if way == "fused":
            predictor(latents())
        else:
            with pytest.raises(AssertionError, match="a mask was made"):
                predictor(latents())


def test_each_layer_drops_out_three_times_beside_its_attention_weights():
    config = PredictorConfig(depth=2, heads=2, head_dim=4, mlp_dim=16, dropout=0.3)
    layers = CausalPredictor(D, P, T, config).transformer.layers
    for attention, feed_forward in layers:  # type: ignore[union-attr]
        assert [m.p for m in attention.modules() if isinstance(m, torch.nn.Dropout)] == [0.3]
        assert [m.p for m in feed_forward.modules() if isinstance(m, torch.nn.Dropout)] == [0.3, 0.3]
