"""What makes a resumed run the same run: weights, optimiser, average, random state, step, config and statistics.

    step_00000300/
      model.safetensors  optimizer.safetensors  ema.safetensors  rng.safetensors
      checkpoint.json    step, config, statistics, fingerprints, history of metrics, sha256 of each file

Tensors are safetensors and the rest is JSON: reading one runs no code. A folder appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from wm.config.errors import UserError
from wm.data.atomic import atomic_folder

FORMAT = 1
MANIFEST = "checkpoint.json"


class Best(NamedTuple):
    """The best validated step of a run so far."""

    step: int
    metric: str
    value: float


def best_of(history: Sequence[Mapping[str, Any]], metric: str, mode: Literal["min", "max"]) -> Best | None:
    """The first of the rows with the best finite value of `metric`, or None where no row has one."""
    found = [Best(row["step"], metric, row["metrics"][metric]) for row in history if metric in row["metrics"]]
    finite = [best for best in found if math.isfinite(best.value)]
    sign = 1 if mode == "min" else -1
    return min(finite, key=lambda best: sign * best.value, default=None)


@dataclass(frozen=True)
class Checkpoint:
    """Everything one holds, in memory.

    Args:
        step: optimiser steps done.
        facts: config, statistics, fingerprints and sizes: what rebuilds the model without the data.
        history: metric rows so far, `{"step": 20, "metrics": {...}}`.
        elapsed_s: seconds of training so far.
        scaler: the loss scale of fp16.
        micro_batch: clips computed at once, which memory may have made smaller than configured.
        health_at_start: latent health before the first step, which later ones are compared with.
        best: the best validated step so far, and what it is best by; None before the first validation.
    """

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    rng: dict[str, Tensor]
    facts: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)
    ema: dict[str, Tensor] | None = None
    elapsed_s: float = 0.0
    scaler: dict[str, Any] = field(default_factory=dict[str, Any])
    micro_batch: int | None = None
    health_at_start: dict[str, float] = field(default_factory=dict[str, float])
    best: Best | None = None

    @property
    def weights(self) -> dict[str, Tensor]:
        """What validation and planning use: the average when there is one."""
        return self.model if self.ema is None else self.ema


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write `folder/step_{:08d}` and delete all but the newest `keep` and the best. Raises UserError when the disk is full."""
    path = folder / _name(checkpoint.step)
    tensors, numbers = _flatten_optimizer(checkpoint.optimizer)
    files = {"model": checkpoint.model, "optimizer": tensors, "rng": checkpoint.rng}
    if checkpoint.ema is not None:
        files["ema"] = checkpoint.ema
    try:
        with atomic_folder(path) as partial:
            for name, values in files.items():
                contiguous = {key: value.detach().cpu().contiguous() for key, value in values.items()}
                save_file(contiguous, partial / f"{name}.safetensors")
            manifest = {
                "format": FORMAT,
                "step": checkpoint.step,
                "elapsed_s": checkpoint.elapsed_s,
                "scaler": checkpoint.scaler,
                "micro_batch": checkpoint.micro_batch,
                "health_at_start": checkpoint.health_at_start,
                "best": None if checkpoint.best is None else checkpoint.best._asdict(),
                "optimizer": numbers,
                "facts": checkpoint.facts,
                "history": checkpoint.history,
                "sha256": {f"{name}.safetensors": _sha256(partial / f"{name}.safetensors") for name in files},
            }
            manifest["digest"] = _digest(manifest)
            (partial / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path}: the checkpoint could not be written ({error}); free some space and run again"
        ) from error
    best = None if checkpoint.best is None else folder / _name(checkpoint.best.step)
    for old in list_checkpoints(folder)[:-keep]:
        if old == best:
            continue
        shutil.rmtree(old, ignore_errors=True)
    return path


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint folder. Raises UserError naming what is missing or damaged."""
    manifest = read_manifest(path)
    loaded: dict[str, dict[str, Tensor]] = {}
    for name, expected in manifest["sha256"].items():
        file = path / name
        if not file.is_file():
            raise UserError(f"{file}: missing from the checkpoint")
        if _sha256(file) != expected:
            raise UserError(f"{file}: damaged (its checksum differs)")
        loaded[name.removesuffix(".safetensors")] = load_file(file)
    return Checkpoint(
        step=manifest["step"],
        model=loaded["model"],
        optimizer=_unflatten_optimizer(loaded["optimizer"], manifest["optimizer"]),
        rng=loaded["rng"],
        facts=manifest["facts"],
        history=manifest["history"],
        ema=loaded.get("ema"),
        elapsed_s=manifest["elapsed_s"],
        # Checkpoints of the first release lack these; they can be planned with, not resumed (their train_hash differs).
        scaler=manifest.get("scaler", {}),
        micro_batch=manifest.get("micro_batch"),
        health_at_start=manifest.get("health_at_start", {}),
        best=None if manifest.get("best") is None else Best(**manifest["best"]),
    )


def read_manifest(path: Path) -> dict[str, Any]:
    """The JSON part alone. Raises UserError when `path` is not a checkpoint of this version."""
    file = path / MANIFEST
    if not file.is_file():
        raise UserError(f"{path}: not a checkpoint (no {MANIFEST} in it)")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: damaged ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(
            f"{file}: checkpoint format {manifest.get('format') if isinstance(manifest, dict) else '?'}, not {FORMAT}"
        )
    digest = manifest.pop("digest", None)
    if digest is not None and digest != _digest(manifest):
        raise UserError(f"{file}: damaged (its checksum differs)")
    return manifest


def list_checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("step_*") if (path / MANIFEST).is_file())


def find_checkpoint(path: Path, which: Literal["latest", "best"] = "latest") -> Path:
    """A checkpoint folder itself, or the newest, or the best by `train.best_metric`, of a run folder.

    Raises UserError when there is none.
    """
    if (path / MANIFEST).is_file():
        return path
    for folder in (path / "checkpoints", path):
        found = list_checkpoints(folder) if folder.is_dir() else []
        if found:
            return found[-1] if which == "latest" else _best(found)
    raise UserError(f"{path}: no checkpoint there; expected a run folder or a step_* folder with {MANIFEST}")


def _best(found: list[Path]) -> Path:
    best = read_manifest(found[-1]).get("best")
    if best is None:
        raise UserError(f"{found[-1]}: no step of this run has been validated, so none is the best; take the latest")
    path = found[-1].parent / _name(best["step"])
    if path not in found:
        raise UserError(f"{path}: the best checkpoint by {best['metric']} is gone; take the latest")
    return path


def _name(step: int) -> str:
    return f"step_{step:08d}"


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _digest(manifest: dict[str, Any]) -> str:
    """Of the manifest itself: a flipped digit in it is as bad as one in a tensor."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _flatten_optimizer(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors by `parameter/name`, the rest as JSON)."""
    tensors = {f"{index}/{name}": value for index, entry in state["state"].items() for name, value in entry.items()}
    return tensors, {"param_groups": state["param_groups"]}


def _unflatten_optimizer(tensors: dict[str, Tensor], numbers: dict[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split("/", 1)
        state.setdefault(int(index), {})[name] = value
    return {"state": state, "param_groups": numbers["param_groups"]}
