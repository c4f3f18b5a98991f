"""A checkpoint's rollout step as one file for another process."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch

from wm.config.errors import UserError
from wm.data.normalization import Vector
from wm.loaded import LoadedModel
from wm.shortcut.export import check_compiler, program_of, write_compiled, write_program
from wm.shortcut.model import BackboneModel
from wm.shortcut.static_step import StaticStep

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def export_rollout(
    model: LoadedModel,
    out: Path,
    *,
    precision: Literal["fp32", "bf16"] = "fp32",
    batch: int = 1,
    sampling_steps: int | None = None,
    compiled: bool = False,
) -> dict[str, Any]:
    """Write the step and return its facts; the model is left as it is.

    Args:
        out: FILE.pt2; replaced if it is there.
        precision: of weights, keys and values.
        batch: rows that advance together.
        sampling_steps: K; None: the model's own.
        compiled: machine code instead of a program.

    Raises:
        UserError: a model that is no shortcut model, sampling steps that it cannot take, a name that is not FILE.pt2, no compiler.
    """
    network = model.model
    if not isinstance(network, BackboneModel):
        raise UserError(
            f"model.kind is {model.config.model.kind}, expected shortcut: it alone has a rollout step to export"
        )
    if out.suffix != ".pt2":
        raise UserError(f"--out: {out}, expected a name that ends in .pt2")
    if batch < 1:
        raise UserError(f"--batch: {batch} is too few; expected at least 1")
    if compiled:
        check_compiler()
    with network.sampled_in(sampling_steps):
        bare = deepcopy(network)
    bare.decoder = bare.decoder_loss = None  # a step draws nothing
    step = StaticStep(bare.weights_in(_DTYPES[precision]).eval().requires_grad_(False), batch)
    facts = {
        "step": asdict(step.facts),
        "device": bare.token_mean.device.type,
        "precision": precision,
        "torch": torch.__version__,
        **_units(model),
    }
    (write_compiled if compiled else write_program)(program_of(step), facts, out)
    return facts


def _units(model: LoadedModel) -> dict[str, Any]:
    """Where frames and actions come from."""
    statistics = model.statistics
    if statistics.action is None:
        raise UserError("this model was trained without actions: it cannot imagine")
    return {
        "variant": model.config.model.variant,
        "commit": model.facts.get("commit", "unknown"),
        "frameskip": model.frameskip,
        "frame_size": model.facts.get("frame_size"),
        "encoder": {
            "kind": model.config.encoder.kind,
            "grid": list(model.encoder.grid),
            "fingerprint": model.encoder.fingerprint,
        },
        "action": Vector(statistics.action_names, statistics.action).to_json(),
    }
