"""Files in DINO-WM's own format, made without its code: modules of its names and attributes, pickled whole by torch.save."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from tests.golden.case import GOLDEN, Golden, load_case

CLASSES = {
    "models.vit": ("ViTPredictor", "Transformer", "Attention", "FeedForward"),
    "models.proprio": ("ProprioceptiveEmbedding",),
    "models.vqvae": ("VQVAE", "Quantize", "ResBlock", "Decoder"),
    "models.dummy": ("DummyRepeatActionEncoder",),
}


@contextmanager
def reference_modules() -> Iterator[dict[str, type[nn.Module]]]:
    """Empty classes under the reference's module names, importable inside the block only, as pickle asks when it writes."""
    made: dict[str, type[nn.Module]] = {}
    before = {name: sys.modules.get(name) for name in ("models", *CLASSES)}
    try:
        sys.modules["models"] = types.ModuleType("models")
        for module, classes in CLASSES.items():
            sys.modules[module] = types.ModuleType(module)
            for name in classes:
                made[name] = type(name, (nn.Module,), {"__module__": module})
                setattr(sys.modules[module], name, made[name])
        yield made
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


def predictor_module(classes: dict[str, type[nn.Module]], case: Golden) -> nn.Module:
    """A ViTPredictor with the reference's attributes, parameters as they come."""
    heads, inner, mlp = case.size("heads"), case.size("heads") * case.size("dim_head"), case.size("mlp_dim")
    positions, dim = case["w/predictor.pos_embedding"].shape[1:]
    predictor = classes["ViTPredictor"]()
    predictor.pos_embedding = nn.Parameter(torch.zeros(1, positions, dim))
    predictor.dropout, predictor.pool = nn.Dropout(0.0), "mean"
    predictor.transformer = classes["Transformer"]()
    predictor.transformer.norm = nn.LayerNorm(dim)
    predictor.transformer.layers = nn.ModuleList()
    for _ in range(case.size("depth")):
        attention, feed_forward = classes["Attention"](), classes["FeedForward"]()
        attention.heads, attention.scale = heads, case.size("dim_head") ** -0.5
        attention.norm, attention.attend = nn.LayerNorm(dim), nn.Softmax(dim=-1)
        attention.dropout, attention.to_qkv = nn.Dropout(0.1), nn.Linear(dim, 3 * inner, bias=False)
        attention.to_out = nn.Sequential(nn.Linear(inner, dim), nn.Dropout(0.1))
        attention.bias = torch.ones(1, 1, positions, positions)  # a plain attribute: the mask
        feed_forward.net = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, mlp), nn.GELU(), nn.Dropout(0.1), nn.Linear(mlp, dim), nn.Dropout(0.1)
        )
        predictor.transformer.layers.append(nn.ModuleList([attention, feed_forward]))
    return predictor


def embedding_module(classes: dict[str, type[nn.Module]], weight: Tensor) -> nn.Module:
    embedding = classes["ProprioceptiveEmbedding"]()
    embedding.emb_dim, embedding.in_chans, _ = weight.shape
    embedding.num_frames = embedding.tubelet_size = 1
    embedding.patch_embed = nn.Conv1d(embedding.in_chans, embedding.emb_dim, 1)
    return embedding


def decoder_module(classes: dict[str, type[nn.Module]], weights: dict[str, Tensor]) -> nn.Module:
    """A VQVAE by the names of its parameters alone: nested modules that hold them."""
    decoder = classes["VQVAE"]()
    decoder.quantize = False
    for name, value in weights.items():
        node: nn.Module = decoder
        *path, last = name.split(".")
        for step in path:
            if step not in node._modules:
                node.add_module(step, classes["Quantize"]() if step == "quantize_b" else nn.Sequential())
            node = node._modules[step]  # type: ignore[assignment]
        if path == ["quantize_b"]:
            node.register_buffer(last, value)
        else:
            node.register_parameter(last, nn.Parameter(value))
    return decoder


def content_of(case: Golden, classes: dict[str, type[nn.Module]], **more: Any) -> dict[str, Any]:
    """What the reference's train.py saves: an epoch, whole modules, optimisers."""
    weights = case.under("w/")
    content: dict[str, Any] = {"epoch": 7, "predictor": predictor_module(classes, case)}
    for part in ("action_encoder", "proprio_encoder"):
        content[part] = embedding_module(classes, weights[f"{part}.patch_embed.weight"])
    for part in ("predictor", "action_encoder", "proprio_encoder"):
        own = {name.removeprefix(f"{part}."): value for name, value in weights.items() if name.startswith(f"{part}.")}
        content[part].load_state_dict(own)
    decoder = {name.removeprefix("decoder."): value for name, value in weights.items() if name.startswith("decoder.")}
    if decoder:
        content["decoder"] = decoder_module(classes, decoder)
    content["predictor_optimizer"] = _stepped(content["predictor"])
    return {**content, **more}


def _stepped(module: nn.Module) -> torch.optim.Optimizer:
    """An AdamW with state, as after training; the weights stay."""
    before = {name: value.clone() for name, value in module.state_dict().items()}
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-4)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    module.load_state_dict(before)
    module.zero_grad()
    return optimizer


def hydra_tree(case: Golden, **changes: Any) -> dict[str, Any]:
    """The hydra.yaml of such a run (PushT, unless changed); `a__b=value` changes a.b, None removes it."""
    side = int(case.size("num_patches") ** 0.5)
    tree = OmegaConf.create(
        {
            "env": {
                "name": "pusht",
                "dataset": {"with_velocity": True, "n_rollout": None, "normalize_action": True, "split_ratio": 0.9},
                "decoder_path": None,
            },
            "encoder": {
                "_target_": "models.dino.DinoV2Encoder",
                "name": "dinov2_vits14",
                "feature_key": "x_norm_patchtokens",
            },
            "action_encoder": {"_target_": "models.proprio.ProprioceptiveEmbedding", "num_frames": 1},
            "proprio_encoder": {"_target_": "models.proprio.ProprioceptiveEmbedding", "num_frames": 1},
            "decoder": {
                "_target_": "models.vqvae.VQVAE",
                "channel": 8,
                "n_embed": 8,
                "n_res_block": 2,
                "n_res_channel": 4,
                "quantize": False,
            },
            "predictor": {
                "_target_": "models.vit.ViTPredictor",
                "depth": case.size("depth"),
                "heads": case.size("heads"),
                "mlp_dim": case.size("mlp_dim"),
                "dropout": 0.1,
                "emb_dropout": 0,
                "pool": "mean",
            },
            "training": {
                "seed": 0,
                "epochs": 100,
                "batch_size": 32,
                "predictor_lr": 5e-4,
                "action_encoder_lr": 5e-4,
                "decoder_lr": 3e-4,
            },
            "img_size": 16 * side,
            "frameskip": 5,
            "concat_dim": case.size("concat_dim"),
            "normalize_action": True,
            "action_emb_dim": case.size("action_emb_dim"),
            "num_action_repeat": case.size("num_action_repeat"),
            "proprio_emb_dim": case.size("proprio_emb_dim"),
            "num_proprio_repeat": case.size("num_proprio_repeat"),
            "num_hist": case.size("num_hist"),
            "num_pred": 1,
            "has_predictor": True,
            "has_decoder": False,
            "model": {"_target_": "models.visual_world_model.VWorldModel", "train_encoder": False},
        }
    )
    for path, value in changes.items():
        *parents, last = path.split("__")
        node: Any = tree
        for step in parents:
            node = node[step]
        if value is None:
            del node[last]
        else:
            node[last] = value
    return OmegaConf.to_container(tree)  # type: ignore[return-value]


def golden_case(name: str) -> Golden:
    return load_case(GOLDEN / "dino_wm" / f"{name}.npz")


def write_run(folder: Path, case: Golden, content: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A run folder of the reference with one checkpoint; returns the folder. `content` needs its classes to be importable."""
    (folder / "checkpoints").mkdir(parents=True)
    OmegaConf.save(hydra_tree(case, **changes), folder / "hydra.yaml")
    file = folder / "checkpoints" / "model_latest.pth"
    if content is not None:
        torch.save(content, file)
    else:
        with reference_modules() as classes:
            torch.save(content_of(case, classes), file)
    return folder


def tiny_encoder(case: Golden) -> list[str]:
    """Overrides for an encoder of the case's sizes: 42 px, 3 x 3 patches, 12 numbers each."""
    side = int(case.size("num_patches") ** 0.5)
    return [
        "encoder.kind=tiny",
        f"encoder.image_size={14 * side}",
        f"encoder.hidden_size={case.size('encoder_dim')}",
        "encoder.depth=1",
        "encoder.heads=2",
    ]
