"""`wm serve`: plans for a robot's own loop."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


class Device(StrEnum):
    """Where the model runs; `auto` is a GPU where torch sees one."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


def add_serve_command(app: typer.Typer) -> None:
    """Put the command on `app`."""
    app.command("serve")(serve)


def serve(
    checkpoint: Annotated[Path, typer.Argument(help="A run folder or a checkpoint folder.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[PATH=VALUE]...", help="Of plan.*, as in plan.planner.kind=mppi.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 is any that is free.", min=0, max=65535)] = 8900,
    timeout_s: Annotated[
        float, typer.Option("--timeout", help="Seconds for a plan, where a request does not say.", min=0.001, max=3600)
    ] = 60.0,
    device: Annotated[Device, typer.Option(help="auto is a GPU where torch sees one.")] = Device.auto,
    best: Annotated[
        bool, typer.Option("--best", help="A run's best checkpoint (train.best_metric), not its last.")
    ] = False,
) -> None:
    """Answer (start picture, goal picture, proprio) with actions, over HTTP on 127.0.0.1 (Ctrl-C ends it)."""
    from ray_jobs.serve import serve_checkpoint

    error_console = Console(stderr=True)
    serve_checkpoint(
        checkpoint,
        overrides or [],
        Console(),
        host=host,
        port=port,
        timeout_s=timeout_s,
        device=device.value,
        which="best" if best else "latest",
        log=lambda line: error_console.print(line, highlight=False, soft_wrap=True, markup=False),
    )
