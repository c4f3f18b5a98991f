"""Runs that another program left behind, read from their folders: Hydra's config, CSV and log files, W&B's local files.

RUN/hydra.yaml or RUN/.hydra/config.yaml        parameters
RUN/*.csv, RUN/**/metrics.csv, RUN/logs.json    metrics by step; logs.json holds one JSON object a line
RUN/train.log, RUN/wandb/*/files/output.log     DINO-WM's "Epoch 3 Training loss: ... Validation loss: ..."
RUN/wandb/*/files/{config.yaml, wandb-summary.json, wandb-metadata.json}
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from experiments.tracking import flatten

CONFIGS = ("hydra.yaml", ".hydra/config.yaml")
STEP_COLUMNS = ("step", "_step", "global_step", "iteration", "epoch")
_LOSSES = re.compile(r"Epoch (\d+)\s+Training loss:\s*(\S+)\s+Validation loss:\s*(\S+)")
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")  # of another value of the same file


@dataclass
class OldRun:
    """One run, as far as its folder tells.

    Args:
        identity: the same however often it is imported: W&B's id of the run, else its folder.
        rows: metrics by step.
        notes: what could not be read, a line each.
    """

    folder: Path
    identity: str
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    rows: dict[int, dict[str, float]] = field(default_factory=dict[int, dict[str, float]])
    tags: dict[str, str] = field(default_factory=dict[str, str])
    notes: list[str] = field(default_factory=list[str])

    @property
    def name(self) -> str:
        """The last two folders: Hydra's day and time."""
        return "/".join(self.folder.parts[-2:])

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics of a step; a later file wins over an earlier one."""
        if metrics:
            self.rows.setdefault(step, {}).update(metrics)


def find_runs(folder: Path) -> list[Path]:
    """`folder` itself if it is a run, else every run below it, sorted. A run's own subfolders are part of it."""
    found: list[Path] = []
    for path, below, _ in os.walk(folder):
        here = Path(path)
        if any((here / name).is_file() for name in CONFIGS) or _is_wandb_run(here):
            found.append(here.resolve())
            below.clear()
    return sorted(found)


def read_run(folder: Path) -> OldRun:
    """Everything that can be read of one run; what cannot becomes a note."""
    wandb_runs = (
        [folder] if _is_wandb_run(folder) else sorted(p for p in folder.glob("wandb/*run-*") if _is_wandb_run(p))
    )
    run = OldRun(folder, _identity("folder", folder), tags={"wm.source": str(folder)})
    for wandb_run in wandb_runs:
        _read_wandb_facts(run, wandb_run)
    for name in CONFIGS:
        tree = _yaml(run, folder / name)
        run.params |= _parameters(tree)
        if isinstance(tree.get("wandb_run_id"), str):
            run.identity = _identity("wandb", tree["wandb_run_id"])
    tables = sorted({*folder.glob("*.csv"), *(p for p in folder.rglob("metrics.csv") if "wandb" not in p.parts)})
    for file in tables:
        _read_csv(run, file, prefix="" if len(tables) == 1 else f"{file.stem}/")
    _read_json_lines(run, folder / "logs.json")
    has_epochs = _read_losses(run, [folder / "train.log", *(path / "files" / "output.log" for path in wandb_runs)])
    for wandb_run in wandb_runs:
        _read_summary(run, wandb_run, "epoch" if has_epochs else "_step")
        for binary in sorted(wandb_run.glob("*.wandb")):
            run.notes.append(f"{binary.name}: W&B's binary history is not read; its summary and output.log are")
    return run


def _identity(kind: str, value: object) -> str:
    return f"{kind}:{hashlib.sha256(str(value).encode()).hexdigest()[:16]}"


def _is_wandb_run(folder: Path) -> bool:
    return any((folder / "files" / name).is_file() for name in ("config.yaml", "wandb-summary.json"))


def _read_wandb_facts(run: OldRun, folder: Path) -> None:
    run.identity = _identity("wandb", folder.name.rpartition("-")[2])  # run-20240131_101500-ID
    config = _yaml(run, folder / "files" / "config.yaml")
    values = {key: entry["value"] for key, entry in config.items() if isinstance(entry, dict) and "value" in entry}
    run.params |= _parameters({key: value for key, value in values.items() if key != "_wandb"})
    metadata = _json(run, folder / "files" / "wandb-metadata.json")
    git = metadata.get("git")
    facts = {"commit": git.get("commit") if isinstance(git, dict) else None}
    facts |= {key: metadata.get(key) for key in ("startedAt", "host", "program")}
    run.tags |= {key: str(value) for key, value in facts.items() if value is not None}


def _read_summary(run: OldRun, folder: Path, axis: str) -> None:
    """The last value of every metric, at the last step."""
    summary = _json(run, folder / "files" / "wandb-summary.json")
    step = summary.get(axis, summary.get("_step"))
    own = {key: value for key, value in summary.items() if not key.startswith("_")}
    if isinstance(step, int | float):
        run.add(int(step), _numbers(flatten(own)))
    elif own:
        run.notes.append(f"{folder.name}: its wandb-summary.json names no step: left out")


def _read_csv(run: OldRun, file: Path, prefix: str) -> None:
    try:
        with file.open(newline="", encoding="utf-8-sig") as handle:
            rows = list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        run.notes.append(f"{file.name}: not a readable CSV ({_short(error)})")
        return
    columns = list(rows[0]) if rows else []
    axis = next((name for wanted in STEP_COLUMNS for name in columns if str(name).strip().lower() == wanted), None)
    found = 0
    for index, row in enumerate(rows):
        step = index if axis is None else _number(row[axis])
        metrics = {f"{prefix}{key.strip()}": value for key, value in _numbers(row).items() if key != axis}
        if step is not None and step == step and metrics:
            run.add(int(step), metrics)
            found += 1
    if not found:
        run.notes.append(f"{file.name}: no numbers in it")
    elif axis is None:
        run.notes.append(f"{file.name}: no column {', '.join(STEP_COLUMNS)}: rows are counted instead")


def _read_json_lines(run: OldRun, file: Path) -> None:
    """DINO-WM's planning writes one object an evaluation."""
    if not file.is_file():
        return
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        for step, line in enumerate(line for line in lines if line.strip()):
            run.add(step, _numbers(flatten(_mapping(json.loads(line)))))
    except (OSError, ValueError) as error:
        run.notes.append(f"{file.name}: not one JSON object a line ({_short(error)})")


def _read_losses(run: OldRun, logs: Iterable[Path]) -> bool:
    """Whether a log held DINO-WM's lines."""
    found = False
    for file in logs:
        if file.is_file():
            for epoch, train, validation in _LOSSES.findall(file.read_text(encoding="utf-8", errors="replace")):
                run.add(int(epoch), _numbers({"train_loss": train, "val_loss": validation}))
                found = True
    return found


def _parameters(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted paths. `${a.b}` is looked up; what asks for an environment variable or a time stays as written."""
    flat = flatten(tree)

    def value_of(value: Any, depth: int = 0) -> Any:
        match = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
        return value_of(flat[match[1]], depth + 1) if match and match[1] in flat and depth < 10 else value

    return {key: value_of(value) for key, value in flat.items()}


def _yaml(run: OldRun, file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        text = file.read_text(encoding="utf-8")
        if text.strip() and ":" not in text:  # OmegaConf would take the words for a key
            raise ValueError("no mapping at its top")
        return _mapping(OmegaConf.to_container(OmegaConf.create(text), resolve=False))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        run.notes.append(f"{file.name}: not readable ({_short(error)})")
        return {}


def _json(run: OldRun, file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        return _mapping(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        run.notes.append(f"{file.name}: not readable ({_short(error)})")
        return {}


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("no mapping at its top")
    return {str(key): entry for key, entry in cast(dict[Any, Any], value).items()}


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {str(key): number for key, value in values.items() if (number := _number(value)) is not None}


def _number(value: Any) -> float | None:
    """NaN is a number: a run that diverged says so."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _short(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:120]
