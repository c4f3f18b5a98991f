"""`wm data make` and `wm bench worlds`: what is done in the simulated worlds alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from wm.config.catalogue import policy_kinds, world_kinds

WORLDS, POLICIES = ", ".join(world_kinds()), ", ".join(policy_kinds())
FORMATS = "wall_single, pusht_noise, point_maze, deformable, robosuite or lerobot"


def add_world_commands(app: typer.Typer, data_app: typer.Typer) -> None:
    """Put `make` below `data`, and `bench worlds` beside it."""
    data_app.command("make")(make)
    bench_app = typer.Typer(help="Measure speed on this machine.", no_args_is_help=True)
    bench_app.command("worlds")(bench_worlds)
    bench_app.callback()(lambda: None)  # so that its one command keeps its name
    app.add_typer(bench_app, name="bench")


def make(
    world: Annotated[str, typer.Argument(help=WORLDS)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH=VALUE]...", help="Settings, as in world.layout=random, world.config.x=1, policy.std=0.3."
        ),
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="A new or empty folder; one that was interrupted is gone on with.")],
    episodes: Annotated[int, typer.Option(help="How many.")] = 200,
    steps: Annotated[int, typer.Option(help="Env steps an episode.")] = 60,
    size: Annotated[
        int | None, typer.Option(help="Frame side in pixels; default: 84 for wall, else the world's.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help=f"{POLICIES}; default: wander for wall, push for rope and granular, else random.")
    ] = None,
    layout: Annotated[str | None, typer.Option(help="world.layout: fixed or random, where a world has it.")] = None,
    shift: Annotated[str | None, typer.Option(help="world.shift: light, colours, ...; each world has its own.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything drawn.")] = 0,
    format: Annotated[str | None, typer.Option(help=f"{FORMATS}; default: the world's own, else lerobot.")] = None,
    task: Annotated[str | None, typer.Option(help="lerobot: the task in words; default: the world's name.")] = None,
    workspace: Annotated[int, typer.Option(help="lerobot: workspace_id of every frame.")] = 0,
    actors: Annotated[
        int | None, typer.Option(help="Ray actors; 0: in this process. Default: by how long it would take.")
    ] = None,
) -> None:
    """Record demonstrations of a simulated world. The same command goes on where a killed one stopped."""
    from ray_jobs.make_data import make_data
    from ray_jobs.runtime.progress import Narrator

    console = Console()
    with Narrator(console).step(f"Make {world} demonstrations", "episodes") as stage:
        made = make_data(
            world,
            out,
            episodes=episodes,
            steps=steps,
            frame_size=size,
            policy=policy,
            layout=layout,
            shift=shift,
            seed=seed,
            format=format,
            task=task,
            workspace=workspace,
            actors=actors,
            overrides=overrides or [],
            progress=lambda done, total: stage.update(done, total),
        )
    for note in made.notes:
        console.print(f"   {note}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"{out}: {'written' if made.fresh else 'complete already'}", soft_wrap=True, highlight=False)


def bench_worlds(
    worlds: Annotated[list[str] | None, typer.Argument(help=f"Of {WORLDS}; default: all.", show_default=False)] = None,
    seconds: Annotated[float, typer.Option(help="How long each figure is measured.")] = 3.0,
) -> None:
    """Steps/s, frames/s at 224 and recorded episodes/min with two processes, of every world."""
    from ray_jobs.bench_worlds import show

    show(worlds or [], seconds, Console())
