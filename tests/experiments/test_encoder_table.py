"""The table says what the scores say, and where the judged encoder is behind."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from experiments.encoder_report import encoder_report
from experiments.encoder_table import MEAN, draw_encoders, encoder_frame, shortfalls, to_markdown
from experiments.figures import to_png
from experiments.patch_figure import draw_patches, patch_blocks
from tests.wm.data.samples import wall_root
from wm.build import build_encoder, build_world
from wm.config.data import DataConfig, DinoWmSourceConfig
from wm.config.encoder import TinyEncoderConfig
from wm.config.probes import ProbesConfig
from wm.data.dataset import Dataset
from wm.evaluation.control_features import control_tokens
from wm.evaluation.encoder_probes import tokens_of
from wm.evaluation.metric_names import PROBES
from wm.evaluation.probe_frames import ProbeFrames, prepare_probes
from wm.evaluation.probe_scores import MeanScore, ProbeScores


def scores(**worlds: list[float]) -> ProbeScores:
    values = {name: {"goal_rank": MeanScore(np.array(each))} for name, each in worlds.items()}
    return ProbeScores(values, {name: {"goal_rank_chance": 0.25} for name in worlds}, {})


THREE = {
    "trained": scores(wall=[0.8, 0.9, 1.0], rope=[0.1, 0.2, 0.3]),
    "pixels": scores(wall=[0.6, 0.7, 0.8], rope=[0.3, 0.4, 0.5]),
    "patches": scores(wall=[0.0, 0.0, 0.3], rope=[0.1, 0.2, 0.3]),
}


def test_cells_are_the_scores_and_differences_are_paired() -> None:
    frame = encoder_frame(THREE, num_resamples=200)
    cells = {(cell.world, cell.encoder): cell for cell in frame}
    assert len(frame) == 9
    assert cells["wall", "trained"].value == pytest.approx(0.9)
    assert cells[MEAN, "trained"].value == pytest.approx(0.55)
    assert cells["wall", "trained"].ahead is None
    assert cells["wall", "pixels"].ahead == pytest.approx((0.2, 0.2, 0.2))  # in every episode alike
    assert cells["wall", "pixels"].low < 0.7 < cells["wall", "pixels"].high
    assert {key for key, cell in cells.items() if cell.is_best} == {
        ("wall", "trained"),
        ("rope", "pixels"),
        (MEAN, "trained"),
        (MEAN, "pixels"),
    }


def test_markdown_and_where_it_is_behind() -> None:
    frame = encoder_frame(THREE, num_resamples=200)
    lines = to_markdown(frame).splitlines()
    assert lines[0] == (
        "| Goal rank, same episode | trained | pixels | patches | trained - pixels | trained - patches | chance |"
    )
    assert lines[3].startswith(
        "| rope | 0.200 | **0.400** | 0.200 | -0.20 [-0.20, -0.20] | +0.00 [+0.00, +0.00] | 0.25 |"
    )
    behind = shortfalls(frame)
    assert behind[0] == "rope, Goal rank, same episode: trained 0.200, pixels 0.400 (-0.20 [-0.20, -0.20])"
    assert not any(each.startswith("wall") for each in behind)


def test_the_figure_has_every_score() -> None:
    frame = encoder_frame(THREE, num_resamples=50)
    (axes,) = draw_encoders(frame).axes
    drawn = sorted(float(line.get_xdata()[0]) for line in axes.lines if len(line.get_xdata()) == 1)
    assert drawn == pytest.approx(sorted(cell.value for cell in frame))
    assert [text.get_text() for text in axes.get_yticklabels()] == ["wall", "rope", MEAN]
    assert imread(io.BytesIO(to_png(draw_encoders(frame)))).std() > 0


def prepared() -> ProbeFrames:
    sources = {"wall": DinoWmSourceConfig(path="wall")}
    dataset = Dataset(DataConfig(sources=sources, val_fraction=0.4), wall_root(), None)
    config = ProbesConfig(fit_frames=40, frames_per_episode=8, drawn_episodes=2, drawn_states=4, fresh_states=6)
    return prepare_probes(dataset, config, build_world)


def test_a_report_of_a_tiny_encoder() -> None:
    untrained = build_encoder(TinyEncoderConfig(image_size=28, hidden_size=16, depth=1, heads=2))
    told: list[tuple[int, int, str]] = []
    found = encoder_report(prepared(), control_tokens(untrained, 28), lambda *each: told.append(each))
    assert told == [(0, 3, "untrained"), (1, 3, "pixels"), (2, 3, "patches"), (3, 3, "")]
    assert found.markdown.count("| wall |") == 5
    assert MEAN not in found.markdown.split("Held-out")[0]  # of one world
    assert imread(io.BytesIO(found.table)).std() > 0
    names = {name.split("/")[-1] for name in found.metrics["pixels"]}
    documented = {
        metric.name.replace("_{shift}", f"_{shift}")
        for metric in PROBES
        for shift in ("light", "colours", "background", "agent_size")
    }
    assert names == documented


def test_patches_are_below_their_pictures() -> None:
    frames = prepared()
    untrained = build_encoder(TinyEncoderConfig(image_size=28, hidden_size=16, depth=1, heads=2))
    blocks = patch_blocks(frames, tokens_of(untrained), num_pictures=3)
    assert blocks["wall"].shape == (2 * 112 + 6, 3 * 118 - 6, 3)
    below = blocks["wall"][118:, :112]
    assert len(np.unique(below.reshape(-1, 3), axis=0)) == 4  # 2 x 2 patches
    assert imread(io.BytesIO(to_png(draw_patches(blocks)))).std() > 0
    with pytest.raises(ValueError, match="no square"):
        patch_blocks(frames, lambda images: torch.zeros(len(images), 5, 3))
