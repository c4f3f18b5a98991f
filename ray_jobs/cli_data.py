"""`wm data convert` and `wm data fetch`: from one layout to another, and from the publishers to here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def add_data_commands(data_app: typer.Typer) -> None:
    """Put `convert` and `fetch` below `data`."""
    data_app.command("convert")(convert)
    data_app.command("fetch")(fetch)


def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A data folder, or an HDF5 file.")],
    out: Annotated[
        Path, typer.Argument(metavar="DST", help="A new or empty folder; one that was interrupted is gone on with.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FIELD=VALUE]...", help="Settings of the source, as in episodes=10, filter=train, colors=bgr."
        ),
    ] = None,
    *,
    to: Annotated[
        str,
        typer.Option(
            help="dino_wm: arrays (.pth) and a video an episode. lerobot: format v3.0. robomimic: demo.hdf5 with pictures."
        ),
    ],
    layout: Annotated[
        str | None,
        typer.Option(
            help="With --to dino_wm: robomimic (the default, which any labelled data set fits), or wall_single, point_maze, "
            "pusht_noise, deformable where the source's vectors are exactly that layout's."
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            help="Shorter side of the frames, 84 to 384 pixels, averaged over areas; default: as they are. What holds only "
            "simulator states is drawn at this size."
        ),
    ] = None,
    camera: Annotated[
        list[str] | None,
        typer.Option(
            help="Of a source with several, or to draw by; lerobot and robomimic take more than one: say it again. "
            "The first is the main one."
        ),
    ] = None,
    task: Annotated[str | None, typer.Option(help="lerobot: the task in words; default: the source's own.")] = None,
    actors: Annotated[
        int | None, typer.Option(help="Ray actors; 0: in this process. Default: by how long it would take.")
    ] = None,
) -> None:
    """Write a data set of any layout in another. The same command goes on where a killed one stopped.

    Numbers are kept to the bit (float32); dino_wm's and lerobot's videos are lossy. What a target cannot hold is said in one
    line; what it would have to invent is refused. robosuite demonstrations of simulator states alone are drawn, state by state.
    """
    from ray_jobs.convert_data import convert_data
    from ray_jobs.runtime.progress import Narrator

    console = Console()
    with Narrator(console).step(f"Convert {source} to {to}", "episodes") as stage:
        converted = convert_data(
            source,
            out,
            to,
            layout=layout,
            size=size,
            cameras=camera or (),
            task=task,
            actors=actors,
            overrides=overrides or [],
            progress=lambda done, total, part: stage.update(done, total, part),
        )
    for note in converted.notes:
        console.print(f"   {note}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"{out}: {'written' if converted.fresh else 'complete already'}", soft_wrap=True, highlight=False)


def fetch(
    name: Annotated[str | None, typer.Argument(help="A public data set; without one they are listed.")] = None,
    *,
    episodes: Annotated[int | None, typer.Option(help="LeRobot sets: bring so many, the first.")] = None,
    camera: Annotated[str | None, typer.Option(help="LeRobot sets: whose videos.")] = None,
    part: Annotated[
        str | None,
        typer.Option(help="robomimic sets: low_dim (the default; states and observations) or demo (states alone)."),
    ] = None,
    mirror: Annotated[
        str | None,
        typer.Option(help="DINO-WM's archives: a folder of another server that holds them; default: WM_DATA_MIRROR."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep an archive when it is unpacked.")] = False,
) -> None:
    """Bring a public data set to where the specs look for it: checked, and on from where it was interrupted.

    Looks at the free disk first. Sets of the Hugging Face hub: HF_ENDPOINT names a mirror, HF_TOKEN or `hf auth login` says who asks.
    """
    from ray_jobs.fetch_data import MIRROR, Wanted, fetch_data, has_mirrors, list_sets
    from ray_jobs.runtime.progress import Narrator

    console = Console()
    if name is None:
        list_sets(console)
        return
    if mirror is None and has_mirrors(name):
        mirror = os.environ.get(MIRROR)
    fetch_data(name, Wanted(mirror, part, episodes, camera, keep), Narrator(console))
