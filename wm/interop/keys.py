"""Where a parameter of ours has another name in DINO-WM: one table, for both directions.

Ours and theirs agree on `predictor.*` and `decoder.*`. Their embeddings are convolutions of width 1, ours are Linear.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

# Our prefix -> their module and its own prefix.
EMBEDDINGS = {
    "action_embedding.linear.": ("action_encoder", "patch_embed."),
    "proprio_embedding.linear.": ("proprio_encoder", "patch_embed."),
}
MODULES = ("predictor", "action_encoder", "proprio_encoder", "decoder")


def to_ours(module: str, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One module's state dict under our names. An unused codebook (`quantize_b` beside no quantisation) is the caller's to drop."""
    found: dict[str, Tensor] = {}
    for ours, (owner, prefix) in EMBEDDINGS.items():
        if owner == module:
            for name, value in theirs.items():
                found[f"{ours}{name.removeprefix(prefix)}"] = value.squeeze(-1) if name == f"{prefix}weight" else value
            return found
    return {f"{module}.{name}": value for name, value in theirs.items()}


def to_theirs(ours: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Module -> its state dict under their names; what they have no place for comes under `ours`, under our names."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in ours.items():
        module, rest = name.split(".", 1)
        for prefix, (owner, theirs) in EMBEDDINGS.items():
            if name.startswith(prefix):
                key = f"{theirs}{name.removeprefix(prefix)}"
                found.setdefault(owner, {})[key] = value.unsqueeze(-1) if key == f"{theirs}weight" else value
                break
        else:
            if module in MODULES:
                found.setdefault(module, {})[rest] = value
            else:
                found.setdefault("ours", {})[name] = value
    return found
