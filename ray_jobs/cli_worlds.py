"""`wm data make`, `wm bench worlds` and `wm bench rollout`: what needs no run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from wm.config.catalogue import policy_kinds, world_kinds

WORLDS, POLICIES = ", ".join(world_kinds()), ", ".join(policy_kinds())
FORMATS = "wall_single, pusht_noise, point_maze, deformable, robosuite or lerobot"


def add_world_commands(app: typer.Typer, data_app: typer.Typer) -> None:
    """Put `make` below `data`, and `bench` beside it."""
    data_app.command("make")(make)
    bench_app = typer.Typer(help="Measure speed on this machine.", no_args_is_help=True)
    bench_app.command("worlds")(bench_worlds)
    bench_app.command("rollout")(bench_rollout)
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


def bench_rollout(
    shape: Annotated[
        str | None, typer.Option(help="published (152 M) or small (0.8 M); default: by device.", show_default=False)
    ] = None,
    samples: Annotated[str, typer.Option(help="How many plans at once, as in 1,300.")] = "1,300",
    context: Annotated[int, typer.Option(help="Frames before the first imagined one, shared by all samples.")] = 64,
    steps: Annotated[int, typer.Option(help="K, denoising steps of a frame.")] = 4,
    horizon: Annotated[int, typer.Option(help="Imagined frames.")] = 5,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where.")] = "auto",
    precision: Annotated[Literal["bf16", "fp32"], typer.Option(help="Of the matrix products.")] = "bf16",
    seconds: Annotated[float, typer.Option(help="How long each figure is measured.")] = 3.0,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Also the static step as AOTInductor compiles it; needs a C++ compiler.")
    ] = False,
) -> None:
    """Frames/s that a shortcut model imagines, beside the floor: what the products and the reading alone would take here."""
    from ray_jobs.bench_rollout import show

    show(
        shape,
        samples,
        context=context,
        steps=steps,
        horizon=horizon,
        device=device,
        precision=precision,
        seconds=seconds,
        compiled=compiled,
        console=Console(),
    )
