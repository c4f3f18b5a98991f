"""One AdamW over named groups: every learned parameter is in exactly one."""

from __future__ import annotations

import torch
from torch import nn

from wm.config.train import OptimizerConfig

# Which part of the model is trained at which rate. A part that is missing here is an error, never left untrained.
RATE_OF_PART = {
    "predictor": "predictor_lr",
    "action_embedding": "embedding_lr",
    "proprio_embedding": "embedding_lr",
    "projection": "head_lr",
    "alignment_head": "head_lr",
    "reconstruction_head": "head_lr",
}


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW with one group for each part of the model. Raises ValueError for a parameter that no group would hold."""
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        part = name.split(".", 1)[0]
        if part not in RATE_OF_PART:
            raise ValueError(f"parameter '{name}' belongs to no optimiser group")
        groups.setdefault(part, []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": getattr(config, RATE_OF_PART[part]), "name": part}
            for part, parameters in groups.items()
        ],
        weight_decay=config.weight_decay,
    )
