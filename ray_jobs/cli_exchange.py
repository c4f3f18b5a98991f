"""`wm import-checkpoint`, `wm export-checkpoint`, `wm export-rollout`, `wm import-runs`: the doors to other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

console = Console()


def add_commands(app: typer.Typer) -> None:
    """Put the four commands on `app`."""
    app.command("import-checkpoint")(import_checkpoint)
    app.command("export-checkpoint")(export_checkpoint)
    app.command("export-rollout")(export_rollout)
    app.command("import-runs")(import_runs)


def import_checkpoint(
    source: Annotated[Path, typer.Argument(help="A DINO-WM run folder, one of its .pth files, or an export.")],
    target: Annotated[Path, typer.Argument(help="A new folder.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[PATH=VALUE]...", help="What the weights do not decide.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The folder that the model was trained on.")] = None,
) -> None:
    """Bring in a checkpoint of DINO-WM's own program, running nothing that its file holds."""
    from ray_jobs.exchange import import_checkpoint as bring

    bring(source, target, data, overrides or [], console)


def export_checkpoint(
    source: Annotated[Path, typer.Argument(help="A run folder or a checkpoint folder.")],
    target: Annotated[Path, typer.Argument(help="A new folder.")],
) -> None:
    """Write a checkpoint as plain state dicts under DINO-WM's names."""
    from ray_jobs.exchange import export_checkpoint as write

    write(source, target, console)


def export_rollout(
    source: Annotated[Path, typer.Argument(help="A run folder or a checkpoint folder of a shortcut model.")],
    out: Annotated[Path, typer.Option(help="FILE.pt2; replaced if it is there.")],
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="Of weights, keys and values.")] = "fp32",
    batch: Annotated[int, typer.Option(help="Rollouts that advance together.")] = 1,
    steps: Annotated[int | None, typer.Option(help="K, denoising steps of a frame; default: the model's own.")] = None,
    compiled: Annotated[
        bool,
        typer.Option("--compile", help="Machine code by AOTInductor, for this kind of device; needs a C++ compiler."),
    ] = False,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where it will run.")] = "auto",
) -> None:
    """Write a shortcut model's rollout step as a torch.export program, for a robot's process (docs/shortcut.md)."""
    from ray_jobs.exchange import export_rollout as write

    write(source, out, console, precision=precision, batch=batch, steps=steps, compiled=compiled, device=device)


def import_runs(
    folders: Annotated[list[Path], typer.Argument(help="Hydra output folders, or folders that hold some.")],
    experiment: Annotated[str, typer.Option(help="MLflow experiment that they join.")] = "imported",
    tracking_uri: Annotated[str | None, typer.Option(help="tracking.uri; default: under storage.root.")] = None,
) -> None:
    """Bring old runs (Hydra's config, metrics as CSV, W&B's local files) into MLflow; again: only what is new."""
    from ray_jobs.exchange import import_runs as bring

    bring(folders, experiment, tracking_uri, console)
