"""A checkpoint of ours as plain state dicts under DINO-WM's names, and back.

    DST/
      predictor.safetensors  action_encoder.safetensors  proprio_encoder.safetensors  decoder.safetensors
      ours.safetensors       what the reference has no place for, under our names (projection, heads, null embeddings)
      export.json            the reference's sizes, the step, our facts, sha256 of each file

`load_state_dict` of the reference's modules takes the first four. The weights are those that planning uses: the average where there
is one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from wm.config.errors import UserError
from wm.data.atomic import atomic_folder
from wm.interop.keys import to_ours, to_theirs
from wm.training.checkpoint import Checkpoint, find_checkpoint, load_checkpoint

EXPORT = "export.json"
OURS = "ours"
FORMAT = 1


@dataclass(frozen=True)
class Exported:
    """Where the export lies, and what of it the reference has no place for."""

    path: Path
    ours_alone: list[str]


def export_checkpoint(source: Path, target: Path) -> Exported:
    """Write a new folder.

    Raises UserError when there is no checkpoint, when something lies at `target`, or where the reference has no such model.
    """
    path = find_checkpoint(source)
    if target.exists() and (target.is_file() or any(target.iterdir())):
        raise UserError(f"{target}: something is there already; export into a new folder")
    checkpoint = load_checkpoint(path)
    kind = checkpoint.facts["config"]["model"]["kind"]
    if kind != "dino_wm":
        raise UserError(f"{path}: model.kind is {kind}; DINO-WM's own program knows dino_wm alone")
    states = to_theirs(checkpoint.weights)
    with atomic_folder(target) as partial:
        for module, state in states.items():
            save_file({name: value.contiguous() for name, value in state.items()}, partial / f"{module}.safetensors")
        manifest = {
            "format": FORMAT,
            "step": checkpoint.step,
            "averaged": checkpoint.ema is not None,
            "sizes": _sizes(checkpoint.facts, states),
            "sha256": {f"{module}.safetensors": _sha256(partial / f"{module}.safetensors") for module in states},
            "facts": checkpoint.facts,
        }
        (partial / EXPORT).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return Exported(target, sorted({name.rsplit(".", 1)[0] for name in states.get(OURS, {})}))


def read_export(folder: Path) -> Checkpoint:
    """The checkpoint that was exported, bit for bit but for the optimiser, which an export does not hold."""
    file = folder / EXPORT
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not readable ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{file}: not an export of this version (format {FORMAT})")
    weights: dict[str, Tensor] = {}
    for name, digest in manifest["sha256"].items():
        part = folder / Path(name).name
        if not part.is_file():
            raise UserError(f"{part}: missing from the export")
        if _sha256(part) != digest:
            raise UserError(f"{part}: damaged (its checksum differs)")
        module, state = part.stem, load_file(part)
        weights |= state if module == OURS else to_ours(module, state)
    return Checkpoint(manifest["step"], weights, {"state": {}, "param_groups": []}, {}, manifest["facts"])


def _sizes(facts: dict[str, Any], states: dict[str, dict[str, Tensor]]) -> dict[str, Any]:
    """What the reference's classes are made with, by its own argument names."""
    config = facts["config"]
    model, predictor = config["model"], config["model"]["predictor"]
    positions = states["predictor"]["pos_embedding"].shape
    sizes: dict[str, Any] = {
        "predictor": {
            "num_patches": positions[1] // model["history_len"],
            "num_frames": model["history_len"],
            "dim": positions[2],
            "depth": predictor["depth"],
            "heads": predictor["heads"],
            "dim_head": predictor["head_dim"],
            "mlp_dim": predictor["mlp_dim"],
            "dropout": predictor["dropout"],
        },
        "frameskip": config["data"]["clip"]["frameskip"],
        "concat_dim": 0 if model["concat"] == "token" else 1,
    }
    for part in ("action", "proprio"):
        if f"{part}_encoder" in states:
            out, into, _ = states[f"{part}_encoder"]["patch_embed.weight"].shape
            sizes[f"{part}_encoder"] = {"in_chans": into, "emb_dim": out, "num_frames": 1, "tubelet_size": 1}
            sizes[f"num_{part}_repeat"] = model[part]["repeat"]
    if "decoder" in states:
        sizes["decoder"] = model["decoder"]
    return sizes


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
