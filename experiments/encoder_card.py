"""The model card of a trained encoder: facts -> Markdown, and its loss curves as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.figures import COLOURS, INK, LINES

CARD, LOSS = "MODEL_CARD.md", "loss.png"
HEADS = {
    "image": "image",
    "identity": "identity (naming the frame)",
    "patch": "hidden patches",
    "spread": "spread (KoLeo)",
}


@dataclass(frozen=True)
class SourceRow:
    """One line of the data table.

    Args:
        made_by: how our own world drew it; empty for what was there.
        episodes, held_out: that training and the probes take.
        frames: of all episodes.
    """

    name: str
    made_by: str
    episodes: int
    held_out: int
    frames: int
    fingerprint: str


@dataclass(frozen=True)
class CardFacts:
    """All that a card says.

    Args:
        step: of the exported weights. total_steps: that the config allows.
        history: metric rows.
        best_metric: by which `step` was chosen; None: it is the last.
        probes: Markdown of the probes beside their controls; None where there were none.
        pictures: file name -> alternative text, shown below the probes.
        config: as YAML.
    """

    name: str
    purpose: str
    licence: str
    limits: Sequence[str]
    hash: str
    parameters: int
    weight_bytes: int
    image_size: int
    patch_size: int
    dim: int
    depth: int
    heads: int
    step: int
    total_steps: int
    batch_frames: int
    seconds: float
    history: Sequence[Mapping[str, Any]]
    best_metric: str | None
    sources: Sequence[SourceRow]
    command: str
    config: str
    provenance: Mapping[str, str]
    probes: str | None
    pictures: Mapping[str, str]


def write_card(facts: CardFacts) -> str:
    """The card in Markdown."""
    last = facts.history[-1]["step"]
    ended = f"{last} of {facts.total_steps} steps" + (
        "" if last == facts.total_steps else " (it had stopped improving)"
    )
    chosen = f"step {facts.step}" + (f", the best by `{facts.best_metric}`" if facts.best_metric else ", the last")
    lines = [
        f"# {facts.name}: {facts.purpose}",
        "",
        "A vision transformer in DINOv2's architecture, trained without labels by self-distillation (wm's docs/encoder.md).",
        "",
        "| | |",
        "|---|---|",
        f"| Shape | depth {facts.depth}, {facts.dim} channels, {facts.heads} heads, patches of {facts.patch_size} px at "
        f"{facts.image_size} px: {facts.parameters / 1e6:.2f} M parameters |",
        f"| Weights | {chosen}; float16, {facts.weight_bytes / 2**20:.2f} MiB; `{facts.hash}` |",
        f"| Training | {ended}, {facts.batch_frames} frames a step, {facts.seconds / 3600:.2f} hours |",
        f"| Machine | {facts.provenance['machine']} |",
        f"| Code | commit {facts.provenance['commit']}; {facts.provenance['versions']} |",
        f"| Data | fingerprint {facts.provenance['data_fingerprint']} |",
        f"| Licence | {facts.licence or 'not stated; that of its data may matter'} |",
        "",
        "Use it by `encoder: {kind: tiny, pretrained: FOLDER}`, at this size or another multiple of the patch "
        "(`encoder.image_size=...`). transformers' own `Dinov2Model.from_pretrained(FOLDER)` reads it, too.",
        "",
        "## Data",
        "",
        "| source | made by | episodes | held out | frames | fingerprint |",
        "|---|---|---:|---:|---:|---|",
    ]
    lines += [
        f"| {row.name} | {row.made_by or 'given'} | {row.episodes} | {row.held_out} | {row.frames} | {row.fingerprint} |"
        for row in facts.sources
    ]
    lines += [
        f"| in all | | {sum(row.episodes for row in facts.sources)} | {sum(row.held_out for row in facts.sources)} | "
        f"{sum(row.frames for row in facts.sources)} | |",
        "",
        "## Recipe",
        "",
        "```sh",
        facts.command,
        "```",
        "",
        "The config that it was resolved to:",
        "",
        "```yaml",
        facts.config.strip(),
        "```",
        "",
        "## Loss",
        "",
        f"![Loss terms over training steps]({LOSS})",
        "",
        _first_rows(facts.history),
        "",
        "The same command gives the same rows on the same CPU model with as many threads; elsewhere sums are in another order.",
        "",
        "## Probes",
        "",
        facts.probes.strip() if facts.probes else "None: `train.best_metric` was null.",
        "",
    ]
    lines += [f"![{text}]({file})\n" for file, text in facts.pictures.items()]
    lines += [
        "## Known limits",
        "",
        *(f"- {limit}" for limit in facts.limits),
        "- It has seen the sources above and nothing else: no photographs, no other worlds.",
        "- The probes are of held-out episodes of these sources; intervals are over episodes, not over seeds of training.",
        "- Weights are rounded to float16 and computed with in float32.",
    ]
    return "\n".join(lines) + "\n"


def _first_rows(history: Sequence[Mapping[str, Any]]) -> str:
    """The first rows of the curve: what a repetition is compared with."""
    rows = [row for row in history if "train/loss" in row["metrics"]][:5]
    head = ["step", *(key.removeprefix("train/") for key in _terms(history)), "loss"]
    lines = [f"| {' | '.join(head)} |", "|" + "---:|" * len(head)]
    for row in rows:
        values = [row["metrics"][key] for key in (*_terms(history), "train/loss")]
        lines.append(f"| {row['step']} | {' | '.join(f'{value:.6f}' for value in values)} |")
    return "\n".join(lines)


def _terms(history: Sequence[Mapping[str, Any]]) -> list[str]:
    first = next((row["metrics"] for row in history if "train/loss" in row["metrics"]), {})
    return [f"train/{name}" for name in HEADS if f"train/{name}" in first]


def draw_losses(history: Sequence[Mapping[str, Any]], chosen: int, judged: str | None) -> Figure:
    """The unweighted loss terms over training steps, and beside them what the encoder is judged by.

    Args:
        chosen: the step whose weights are exported: a dashed line.
        judged: `val/...`; None leaves its panel out.
    """
    terms = _terms(history)
    names = [*terms, *([judged] if judged else [])]
    across = min(3, len(names))
    down = -(-len(names) // across)
    figure = Figure(figsize=(3.5 * across, 2.6 * down), layout="constrained", facecolor="white")
    panels = figure.subplots(down, across, squeeze=False).flatten()
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    for number, (axes, name) in enumerate(zip(panels, names, strict=False)):
        points = [(row["step"], row["metrics"][name]) for row in history if name in row["metrics"]]
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(
            *zip(*points, strict=True),
            color=colour,
            lw=1.6,
            ls=LINES[0],
            marker="o" if len(points) < 25 else None,
            ms=3,
        )
        axes.axvline(chosen, color=INK, lw=0.9, ls=(0, (4, 3)), alpha=0.6)
        title = HEADS.get(name.removeprefix("train/"), name)
        axes.set_title(title, loc="left", fontsize=10, color=INK, parse_math=False)
        axes.set_xlabel("Training step", fontsize=9, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(color=INK, alpha=0.14, lw=0.8)
        axes.tick_params(colors=INK, labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
