"""The quality table of a checkpoint, for a terminal, and what its names mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from experiments.metric_text import format_value

_HORIZON = re.compile(r"_h(\d+)(?=/|$)")


def render_quality(found: Mapping[str, Any]) -> list[RenderableType]:
    """Tables by horizon for each kind of clips, then latents, state and pictures, from what eval.json holds."""
    horizons, shown = found["horizons"], []
    for kind in ("labelled", "unlabelled"):
        if kind in found:
            shown.append(
                _by_horizon(f"Rollouts of {found['clips'][kind]} {kind} held-out clips", found[kind], horizons)
            )
        else:
            shown.append(Text(f"No {kind} held-out clips in this data set.", style="dim"))
    shown.append(_by_horizon("Latents, all held-out clips", found["latent"], horizons))
    if found["state"]:
        shown.append(_by_horizon("State read off latents, R²", found["state"], horizons))
    else:
        shown.append(Text("No state to probe for in these clips.", style="dim"))
    if found["images"]:
        shown.append(_by_horizon("Decoded pictures, all held-out clips", found["images"], horizons))
        if found["lpips"] != "available":
            shown.append(
                Text(f"LPIPS {found['lpips']} (evaluate.perceptual={{kind: lpips, backbone: FILE}})", style="dim")
            )
    else:
        shown.append(Text("No decoded pictures: this model has no decoder (model.decoder.kind).", style="dim"))
    return [*shown, Text("`wm eval --help` says what each name means.", style="dim")]


def _by_horizon(title: str, values: Mapping[str, float], horizons: Sequence[int]) -> Table:
    """A row a metric; a column a horizon, or one column where no metric has horizons."""
    rows: dict[str, dict[int, float]] = {}
    for name, value in values.items():
        horizon = _HORIZON.search(name)
        rows.setdefault(_HORIZON.sub("", name), {})[int(horizon[1]) if horizon else 0] = value
    columns = [h for h in (0, *horizons) if any(h in row for row in rows.values())]
    view = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1), min_width=len(title) + 2)
    view.add_column("metric", no_wrap=True)
    for h in columns:
        view.add_column(f"h={h}" if h else "", justify="right", no_wrap=True)
    for name, row in rows.items():
        view.add_row(name, *(format_value(name, row[h]) if h in row else "" for h in columns))
    return view
