"""The model card: what it says, and of what."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from experiments.encoder_card import CardFacts, SourceRow, draw_losses, write_card
from experiments.figures import to_png

HISTORY: list[dict[str, Any]] = [
    {"step": step, "metrics": {"train/loss": 9.0 / step, "train/image": 5.0 / step, "train/patch": 4.0 / step}}
    for step in (20, 40, 60)
]
HISTORY[1]["metrics"]["val/probe/state_r2"] = 0.5
HISTORY[2]["metrics"]["val/probe/state_r2"] = 0.4

FACTS = CardFacts(
    name="tiny",
    purpose="to be carried",
    licence="MIT",
    limits=("It squints.",),
    hash="abc123",
    parameters=1_500_000,
    weight_bytes=3 * 2**20,
    image_size=112,
    patch_size=14,
    dim=192,
    depth=6,
    heads=3,
    step=40,
    total_steps=100,
    batch_frames=64,
    seconds=5400.0,
    history=HISTORY,
    best_metric="val/probe/state_r2",
    sources=(SourceRow("wall", "`wall --episodes 10`", 8, 2, 500, "f00"), SourceRow("ours", "", 3, 1, 70, "ba5")),
    command="wm pretrain-encoder tiny train.epochs=3",
    config="train:\n  epochs: 3\n",
    provenance={"commit": "c0ffee", "data_fingerprint": "da7a", "machine": "a toaster", "versions": "torch 2"},
    probes="| State R² | 0.5 |",
    pictures={"probes.png": "The probes"},
)


def test_a_card_says_all() -> None:
    card = write_card(FACTS)
    for words in (
        "# tiny: to be carried",
        "depth 6, 192 channels, 3 heads, patches of 14 px at 112 px: 1.50 M parameters",
        "step 40, the best by `val/probe/state_r2`; float16, 3.00 MiB; `abc123`",
        "60 of 100 steps (it had stopped improving), 64 frames a step, 1.50 hours",
        "a toaster",
        "commit c0ffee; torch 2",
        "| Licence | MIT |",
        "| wall | `wall --episodes 10` | 8 | 2 | 500 | f00 |",
        "| ours | given | 3 | 1 | 70 | ba5 |",
        "| in all | | 11 | 3 | 570 | |",
        "wm pretrain-encoder tiny train.epochs=3",
        "  epochs: 3",
        "| step | image | patch | loss |",
        "| 20 | 0.250000 | 0.200000 | 0.450000 |",
        "| State R² | 0.5 |",
        "![The probes](probes.png)",
        "- It squints.",
    ):
        assert words in card, words


def test_a_card_without_probes_and_licence_says_so() -> None:
    card = write_card(replace(FACTS, probes=None, best_metric=None, licence="", pictures={}, total_steps=60))
    assert "None: `train.best_metric` was null." in card
    assert "step 40, the last;" in card
    assert "| Licence | not stated" in card
    assert "60 of 60 steps, 64" in card


def test_the_figure_has_a_panel_for_each_term_and_one_for_the_judge() -> None:
    figure = draw_losses(HISTORY, 40, "val/probe/state_r2")
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.axison]
    assert titles == ["image", "hidden patches", "val/probe/state_r2"]
    lines = figure.axes[2].lines
    assert np.array_equal(lines[0].get_xdata(), [40, 60])
    assert list(lines[1].get_xdata()) == [40, 40]
    assert len([axes for axes in draw_losses(HISTORY, 40, None).axes if axes.axison]) == 2
    assert Image.open(io.BytesIO(to_png(figure))).size[0] > 800
