"""`wm finetune`: a finished run goes on with new episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

_HELP = "data.sources.NAME.path=FOLDER of the new episodes, and config overrides."
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[PATH=VALUE]...", help=_HELP)]


def add_finetune_command(app: typer.Typer) -> None:
    """Adds `finetune`."""
    app.command()(finetune)


def finetune(
    run: Annotated[str, typer.Argument(help="A finished run: its folder, or its hash under storage.root.")],
    overrides: Overrides = None,
    old_share: Annotated[
        float, typer.Option(help="Share of every batch from the run's own data, against forgetting.", min=0, max=0.99)
    ] = 0.0,
    episodes: Annotated[
        int | None, typer.Option(help="Plan afterwards, with so many problems a goal horizon (plan.episodes).")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Where the report goes.")] = None,
) -> None:
    """Train a finished run on new episodes, at a tenth of its rates and averaged, and report what it forgot."""
    from ray_jobs.experiment import run_experiment
    from ray_jobs.finetune import finetune_spec
    from ray_jobs.runtime.progress import Narrator

    given = [*(overrides or []), *([] if episodes is None else [f"plan.episodes={episodes}"])]
    spec, changes = finetune_spec(run, given, old_share)
    finished = run_experiment(spec, changes, Narrator(Console()), html=html)
    if finished.failures:
        raise typer.Exit(1)
