"""`wm plan`: planning with trained models, in simulation or along recorded clips."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from wm.config.errors import UserError

_OVERRIDE = re.compile(r"[a-z_]+(\.[\w-]+)+=")  # plan.episodes=10, and no path


def add_planning_commands(app: typer.Typer) -> None:
    """Adds `plan`."""
    app.command()(plan)


def plan(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT... [PATH=VALUE]...", help="Run or checkpoint folders, and config overrides."
        ),
    ],
    best: Annotated[
        bool, typer.Option("--best", help="A run's best checkpoint (train.best_metric), not its last.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Where outcomes, videos and figures go; default: beside the checkpoint.")
    ] = None,
    episodes: Annotated[
        int | None, typer.Option(help="Planning problems, or clips, for each goal horizon (plan.episodes).")
    ] = None,
    world: Annotated[str | None, typer.Option(help="The world (plan.world.kind).")] = None,
    problems: Annotated[
        str | None, typer.Option(help="dataset, random, or a file of saved problems (plan.problems).")
    ] = None,
    goal_horizons: Annotated[
        str | None, typer.Option(help="Model steps to the goals, as in 3,5,10 (evaluate.grid.goal_horizons).")
    ] = None,
    planner: Annotated[
        str | None,
        typer.Option(help="One or more, as in cem,gradient (plan.planner.kind, crossed with the checkpoints)."),
    ] = None,
    videos: Annotated[int, typer.Option(help="Videos of each checkpoint and goal horizon.", min=0)] = 10,
    offline: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET",
            help="No simulator: plan along recorded clips of this source (held-out episodes), or of a folder the model never saw.",
        ),
    ] = None,
) -> None:
    """Plan with trained models in simulation, on the same problems: success by goal horizon, with intervals."""
    from ray_jobs.runtime.progress import Narrator

    console = Console()
    overrides = [given for given in arguments if _OVERRIDE.match(given)]
    paths = [Path(given) for given in arguments if not _OVERRIDE.match(given)]
    if not paths:
        raise UserError("wm plan: no checkpoint; give one or more run or checkpoint folders")
    aliases = {
        "plan.episodes": episodes,
        "plan.world.kind": world,
        "plan.problems": problems,
        "evaluate.grid.goal_horizons": f"[{goal_horizons}]" if goal_horizons is not None else None,
    }
    overrides += [f"{path}={value}" for path, value in aliases.items() if value is not None]
    planners = [name.strip() for name in planner.split(",")] if planner is not None else []
    which = "best" if best else "latest"
    if offline is not None:
        from ray_jobs.plan_offline import plan_offline

        if len(paths) > 1 or len(planners) > 1:
            raise UserError("wm plan --offline: one checkpoint and one planner at a time")
        overrides += [f"plan.planner.kind={name}" for name in planners]
        plan_offline(paths[0], offline, overrides, out, Narrator(console), which)
        return
    from ray_jobs.plan import plan_checkpoints

    plan_checkpoints(paths, overrides, out, Narrator(console), planners=planners, videos=videos, which=which)
