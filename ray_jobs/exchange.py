"""Checkpoints and runs of DINO-WM's own program, in and out, told to a person."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console

from wm.config.errors import UserError


def import_checkpoint(
    source: Path, target: Path, data: Path | None, overrides: Sequence[str], console: Console
) -> None:
    """Bring one in and say what could not be carried over."""
    from wm.interop.importing import import_checkpoint as bring

    imported = bring(source, target, data, overrides)
    for note in imported.notes:
        _say(console, f"note: {note}")
    _say(console, f"imported: {imported.path}")


def export_checkpoint(source: Path, target: Path, console: Console) -> None:
    """Write one out and say what the reference has no place for."""
    from wm.interop.exporting import export_checkpoint as write

    exported = write(source, target)
    if exported.ours_alone:
        _say(console, f"note: the reference has no place for {', '.join(exported.ours_alone)}: in ours.safetensors")
    _say(console, f"exported: {exported.path}")


def export_rollout(
    source: Path,
    out: Path,
    console: Console,
    *,
    precision: Literal["fp32", "bf16"],
    batch: int,
    steps: int | None,
    compiled: bool,
    device: Literal["auto", "cpu", "cuda"],
) -> None:
    """Write a rollout step and say what it takes."""
    from wm.build import load
    from wm.serving.rollout_export import export_rollout as write
    from wm.training_run import pick_device

    model = load(source, str(pick_device(device)))
    facts = write(model, out, precision=precision, batch=batch, sampling_steps=steps, compiled=compiled)
    step, kind = facts["step"], "compiled step" if compiled else "program"
    sizes = f"{step['batch']} x {step['num_patches']} tokens of {step['token_dim']}, actions of {step['action_dim']}"
    passes = f"K = {step['sampling_steps']}, window {step['window']}"
    _say(console, f"{kind} for {facts['device']} in {precision}: {sizes}, {passes}")
    _say(console, f"exported: {out} ({out.stat().st_size / 1e6:.1f} MB)")


def import_runs(folders: Sequence[Path], experiment: str, tracking_uri: str | None, console: Console) -> None:
    """Bring run folders into MLflow, a line each. Raises UserError when none holds anything readable."""
    from experiments.old_runs import find_runs, read_run
    from experiments.old_runs_record import record_run
    from experiments.tracking import Tracker
    from ray_jobs.runtime.runs import storage_root
    from wm.config.platform import TrackingConfig

    found = {folder: find_runs(folder) for folder in folders}
    if not any(found.values()):
        raise UserError(
            f"{', '.join(map(str, folders))}: nothing readable (no hydra.yaml, .hydra/config.yaml or wandb/)"
        )
    tracker = Tracker(TrackingConfig(uri=tracking_uri), storage_root(None), experiment)
    for folder, runs in found.items():
        if not runs:
            _say(console, f"{folder}: nothing readable (no hydra.yaml, .hydra/config.yaml or wandb/)")
        for path in runs:
            run = read_run(path)
            _say(console, f"{path}: {record_run(tracker, run)}")
            for note in run.notes:
                _say(console, f"  note: {note}")


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False)
