"""What the block-causal transformer promises whatever its weights, and its published size."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from tests.wm.shortcut.toy_backbone import K_MAX, C, P, W, clips, part, toy
from wm.config.backbone import BackboneConfig
from wm.shortcut.backbone import BlockCausalTransformer
from wm.shortcut.layers import SpaceLayer, TimeLayer

T = 6


def test_the_published_size():
    with torch.device("meta"):
        backbone = BlockCausalTransformer(BackboneConfig(), channels=768, num_patches=196, k_max=64)
    assert sum(p.numel() for p in backbone.parameters()) == 152_402_688
    assert (backbone.num_tokens, backbone.config.mlp_dim) == (206, 2048)
    kinds = [type(layer) for layer in backbone.layers]
    assert kinds == [SpaceLayer, SpaceLayer, SpaceLayer, TimeLayer] * 6


@torch.no_grad()
@pytest.mark.parametrize("what", range(4))
@pytest.mark.parametrize("frame", [0, 2, T - 1])
@pytest.mark.parametrize("how", [{}, {"window": 4}, {"soft_cap": 2.0}])  # 2 layers of 4 frames reach 6 back
def test_a_frame_changes_its_own_and_later_outputs_only(how, frame, what):
    """By its latents, its level, its step or its action."""
    backbone, before = toy(**how), clips(2, T)
    changed = [x.clone() for x in before]
    match what:
        case 0:
            changed[0][:, frame, 1] += 1
        case 1:
            changed[1][:, frame] = (changed[1][:, frame] + 1) % (K_MAX + 1)
        case 2:
            changed[2][:, frame] = torch.where(before[2][:, frame] == 1, 2, 1)
        case 3:
            changed[3][:, frame] += 1
    difference = (backbone(*changed) - backbone(*before)).abs().amax(dim=(0, 3))
    assert not difference[:frame].any()
    assert (difference[frame:] > 1e-6).all()


@torch.no_grad()
def test_a_window_ends_where_it_says():
    """With one time layer nothing else carries older frames on."""
    backbone, before = toy(depth=2, window=3), clips(2, T)
    changed = [x.clone() for x in before]
    changed[0][:, 1] += 1
    difference = (backbone(*changed) - backbone(*before)).abs().amax(dim=(0, 2, 3))
    assert [bool(d) for d in difference] == [False, True, True, True, False, False]


@torch.no_grad()
def test_a_batch_is_its_clips_and_a_shorter_clip_is_a_prefix():
    backbone, x = toy(), clips(3, T)
    whole = backbone(*x)
    one_by_one = torch.cat([backbone(*(of[i : i + 1] for of in x)) for i in range(3)])
    torch.testing.assert_close(one_by_one, whole, rtol=0, atol=1e-12)
    for frames in (1, 4):
        torch.testing.assert_close(backbone(*part(x, 0, frames)), whole[:, :frames], rtol=0, atol=1e-12)


@torch.no_grad()
def test_only_differences_of_time_count(monkeypatch):
    backbone, x = toy(), clips(2, T)
    at_zero = backbone(*x)
    from wm.shortcut import backbone as module

    turned = module.rotation
    monkeypatch.setattr(module, "rotation", lambda start, *rest: turned(start + 1000, *rest))
    torch.testing.assert_close(backbone(*x), at_zero, rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("how", [{}, {"window": 3}, {"soft_cap": 2.0}])
def test_shared_key_value_heads_are_repeated_ones(how):
    grouped, plain = toy(kv_heads=2, **how), toy(kv_heads=4, **how)
    weights = dict(grouped.state_dict())
    for name in [name for name in weights if name.endswith("to_kv.weight")]:
        weights[name] = weights[name].unflatten(0, (2, 2, 8)).repeat_interleave(2, dim=1).flatten(0, 2)
    plain.load_state_dict(weights)
    x = clips(2, T)
    torch.testing.assert_close(grouped(*x), plain(*x), rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_high_cap_is_none_and_a_low_one_is_not():
    x = clips(2, T)
    uncapped = toy()(*x)
    torch.testing.assert_close(toy(soft_cap=1e6)(*x), uncapped, rtol=0, atol=1e-9)
    assert (toy(soft_cap=0.5)(*x) - uncapped).abs().max() > 0.01


@torch.no_grad()
def test_tokens_of_a_frame_are_registers_latents_shortcut_action():
    backbone = toy()
    latents, levels, steps, actions = clips(2, 3)
    latents.zero_()
    backbone.from_latents.bias.fill_(7.0)
    tokens = backbone._tokens(latents, levels, steps, actions) - backbone.positions
    assert tokens.shape == (2, 3, 2 + P + 2, W)
    exponent = {1: 0, 2: 1, 4: 2, 8: 3}
    for b, t in itertools.product(range(2), range(3)):
        label = [
            backbone.level_table.weight[levels[b, t]],
            backbone.step_table.weight[exponent[int(steps[b, t])]],
        ]
        label, action = torch.cat(label), actions[b, t]
        own = [torch.zeros(W)] * 2 + [torch.full((W,), 7.0)] * P + [label, action]
        everywhere = label + action
        torch.testing.assert_close(tokens[b, t], torch.stack(own).double() + everywhere, rtol=0, atol=1e-12)


@torch.no_grad()
def test_the_output_is_read_at_the_latent_tokens():
    """Without layers every patch is its own."""
    backbone, x = toy(), clips(2, 3)
    backbone.layers = torch.nn.ModuleList()
    own = backbone._tokens(*x)[:, :, 2 : 2 + P]
    torch.testing.assert_close(backbone(*x), backbone.to_latents(backbone.norm(own)), rtol=0, atol=1e-12)


def test_tables_hold_every_label():
    backbone = BlockCausalTransformer(toy().config, C, P, k_max=64)
    assert (backbone.level_table.num_embeddings, backbone.step_table.num_embeddings) == (65, 7)
    steps = 2 ** torch.arange(7)[None]
    backbone(torch.zeros(1, 7, P, C), torch.tensor([[0, 1, 32, 58, 62, 63, 64]]), steps, torch.zeros(1, 7, W))


def test_it_starts_at_zero_and_learns_from_there():
    torch.manual_seed(0)
    backbone = BlockCausalTransformer(toy().config, C, P, K_MAX).double()
    found = backbone(*clips(2, T))
    assert not found.any()
    (found - 1).square().mean().backward()
    assert backbone.to_latents.weight.grad.abs().max() > 1e-4


def test_activations_keep_their_scale_with_depth():
    """The residual stream is no more than a little louder at the end than at the input."""
    backbone, heard, x = toy(depth=24), [], clips(2, T)
    backbone.norm.register_forward_pre_hook(lambda _, given: heard.append(given[0]))
    backbone(*x)
    assert 0.8 < heard[0].square().mean() / backbone._tokens(*x).square().mean() < 2


def test_every_parameter_has_a_gradient():
    backbone = toy()
    backbone(*clips(8, T)).square().sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().amax() > 1e-8, name


def test_recomputed_activations_change_no_gradient_and_keep_less():
    found: list[list[torch.Tensor]] = []
    kept: list[int] = []
    for checkpointing in (False, True):
        backbone, sizes = toy(checkpointing=checkpointing).train(), []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, s=sizes: s.append(x.numel()) or x, lambda x: x):
            out = backbone(*clips(2, T))
        out.square().sum().backward()
        found.append([p.grad for p in backbone.parameters() if p.grad is not None])
        kept.append(sum(sizes))
    assert len(found[0]) == len(list(toy().parameters()))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
    assert kept[1] < 0.5 * kept[0]


def test_it_runs_in_bfloat16_under_autocast():
    backbone = toy().float()
    latents, levels, steps, actions = clips(2, T)
    given: tuple[Any, ...] = (latents.float(), levels, steps, actions.float())
    exact = backbone(*given)
    with torch.autocast("cpu", torch.bfloat16):
        found = backbone(*given)
    error = (found.float() - exact).square().mean().sqrt() / exact.std()
    assert error < 0.03
    found.float().square().mean().backward()
