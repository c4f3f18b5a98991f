"""`wm pretrain-encoder`: an encoder of one's own."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console


def add_encoder_commands(app: typer.Typer) -> None:
    """Put the command on `app`."""
    app.command("pretrain-encoder")(pretrain)


def pretrain(
    spec: Annotated[str, typer.Argument(help="A spec file, or the name of one in experiments/encoders.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATH=VALUE]...", help="As in train.epochs=5 or make.wall.episodes=20."),
    ] = None,
) -> None:
    """Train a small encoder without labels on frames, judge it, export it with its card. Again: goes on, or is done."""
    from experiments.pretrain_spec import load_pretrain_spec
    from ray_jobs.pretrain_encoder import pretrain_encoder, typed
    from ray_jobs.runtime.progress import Narrator

    loaded, config_overrides = load_pretrain_spec(spec, overrides or [])
    pretrain_encoder(loaded, config_overrides, Narrator(Console()), typed(spec, overrides or []))
