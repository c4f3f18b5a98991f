"""One AdamW over named groups: every learned parameter is in exactly one."""

from __future__ import annotations

import torch
from torch import nn

from wm.config.schedule import value_at
from wm.config.train import AnyOptimizerConfig, OneRateConfig, OptimizerConfig

# Which part of the model is trained at which rate. A part that is missing here is an error, never left untrained.
RATE_OF_PART = {
    "predictor": "predictor_lr",
    "backbone": "predictor_lr",
    "action_token": "embedding_lr",
    "action_embedding": "embedding_lr",
    "proprio_embedding": "embedding_lr",
    "projection": "head_lr",
    "alignment_head": "head_lr",
    "reconstruction_head": "head_lr",
    "transition_head": "head_lr",
    "masking": "head_lr",
    "terms": "head_lr",
    "decoder": "decoder_lr",
}


def build_optimizer(model: nn.Module, config: AnyOptimizerConfig) -> torch.optim.AdamW:
    """AdamW over every parameter that learns: by part of the model, or all at one rate.

    Raises ValueError for a parameter that no group would hold.
    """
    return _at_one_rate(model, config) if isinstance(config, OneRateConfig) else _by_part(model, config)


def _at_one_rate(model: nn.Module, config: OneRateConfig) -> torch.optim.AdamW:
    learns = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = {"matrices": [p for p in learns if p.ndim >= 2], "vectors": [p for p in learns if p.ndim < 2]}
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": config.lr,
                "base_lr": config.lr,
                "name": name,
                "weight_decay": config.weight_decay if name == "matrices" else 0.0,
            }
            for name, parameters in groups.items()
        ]
    )


def _by_part(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        part = name.split(".", 1)[0]
        if part not in RATE_OF_PART:
            raise ValueError(f"parameter '{name}' belongs to no optimiser group")
        groups.setdefault(part, []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": (rate := getattr(config, RATE_OF_PART[part])),
                "base_lr": rate,
                "name": part,
                "weight_decay": 0.0 if part == "decoder" else config.weight_decay,
            }
            for part, parameters in groups.items()
        ]
    )


def clipped_apart(model: nn.Module) -> list[list[nn.Parameter]]:
    """Parameters in sets whose gradient norms are clipped each on its own: a decoder must not scale the world model's gradient."""
    named = list(model.named_parameters())
    sets = [[p for name, p in named if name.startswith("decoder.") == decoders] for decoders in (False, True)]
    return [parameters for parameters in sets if parameters]


def set_rates(optimizer: torch.optim.Optimizer, config: AnyOptimizerConfig, progress: float) -> None:
    """Every group's rate at `progress` in [0, 1] of training: its own times the schedule."""
    scale = value_at(config.schedule, progress)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * scale
