"""`wm diagnose`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def add_diagnose_command(app: typer.Typer, console: Console) -> None:
    """Put it on the app."""

    @app.command()
    def diagnose(
        checkpoint: Annotated[Path, typer.Argument(help="A run folder or a checkpoint folder.")],
        overrides: Annotated[
            list[str] | None, typer.Argument(metavar="[PATH=VALUE]...", help="Config overrides, as wm plan takes them.")
        ] = None,
        best: Annotated[
            bool, typer.Option("--best", help="A run's best checkpoint (train.best_metric), not its last.")
        ] = False,
        out: Annotated[
            Path | None, typer.Option(help="Where diagnosis.json and diagnosis.png go; default: beside the checkpoint.")
        ] = None,
        episodes: Annotated[
            int | None, typer.Option(help="Planning problems for each goal horizon (plan.episodes).")
        ] = None,
        simulator_problems: Annotated[
            int, typer.Option(help="The first of them, for what searches in the simulator: it is slow.", min=1)
        ] = 10,
        simulator_samples: Annotated[int, typer.Option(help="Candidates of an iteration of that search.", min=2)] = 64,
        simulator_iterations: Annotated[int, typer.Option(help="Iterations of that search.", min=1)] = 5,
        shifts: Annotated[
            str | None, typer.Option(help="Of the world, as in light,colours, or none; default: all that it has.")
        ] = None,
    ) -> None:
        """Say why planning fails: where success is lost between problems, search, objective and model, and under shifts."""
        from ray_jobs.diagnose import diagnose_checkpoint
        from ray_jobs.runtime.progress import Narrator
        from wm.config.diagnosis import DiagnosisConfig

        asked = None if shifts is None else tuple(name for name in shifts.split(",") if name not in ("", "none"))
        settings = DiagnosisConfig(
            simulator_problems=simulator_problems,
            simulator_samples=simulator_samples,
            simulator_iterations=simulator_iterations,
            shifts=asked,
        )
        given = [*(overrides or []), *([] if episodes is None else [f"plan.episodes={episodes}"])]
        diagnose_checkpoint(checkpoint, given, out, Narrator(console), settings, "best" if best else "latest")
