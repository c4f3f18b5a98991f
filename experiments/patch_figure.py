"""What an encoder's patches tell apart: pictures of every world above, their patches' principal components below."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure

from experiments.figures import INK
from wm.evaluation.encoder_probes import CHUNK, Tokens
from wm.evaluation.patch_pca import patch_colours
from wm.evaluation.probe_frames import ProbeFrames, SourceFrames

_SIDE, _GAP = 112, 6  # px of a picture and between two
_AXES_OF = 64  # pictures that a world's components are taken from, at most


def patch_blocks(frames: ProbeFrames, tokens: Tokens, num_pictures: int = 4) -> dict[str, np.ndarray]:
    """Source -> uint8 (h, w, 3): held-out pictures above, as colours below the first three components of their patches.

    Pictures are the middles of different episodes. Each source has components and a scale of its own, from up to 64 of
    its held-out pictures.

    Raises:
        ValueError: the patches are no square.
    """
    return {source.name: _block(source, tokens, num_pictures) for source in frames.sources}


def draw_patches(blocks: dict[str, np.ndarray], across: int = 2) -> Figure:
    """The blocks side by side, each under its name."""
    down = -(-len(blocks) // across)
    height, width = next(iter(blocks.values())).shape[:2]
    one = 4.6
    figure = Figure(
        figsize=(one * across, (one * height / width + 0.32) * down), layout="constrained", facecolor="white"
    )
    panels = figure.subplots(down, across, squeeze=False).flatten()
    for axes in panels:
        axes.set_axis_off()
    for axes, (name, block) in zip(panels, blocks.items(), strict=False):
        axes.imshow(block, interpolation="nearest")
        axes.set_title(name, loc="left", fontsize=10, color=INK, parse_math=False)
    return figure


def _block(source: SourceFrames, tokens: Tokens, num_pictures: int) -> np.ndarray:
    middles = [episode.frames[len(episode.frames) // 2] for episode in source.episodes]
    shown = np.stack([middles[index % len(middles)] for index in range(num_pictures)])
    pool = np.concatenate([episode.frames for episode in source.episodes])
    pool = pool[np.unique(np.linspace(0, len(pool) - 1, _AXES_OF).round().astype(int))]
    _, colours = patch_colours(_tokens(tokens, pool), _tokens(tokens, shown))
    rows = [
        [cv2.resize(picture, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) for picture in shown],
        [
            cv2.resize((255 * each).round().astype(np.uint8), (_SIDE, _SIDE), interpolation=cv2.INTER_NEAREST)
            for each in colours
        ],
    ]
    white = np.full((2 * _SIDE + _GAP, num_pictures * (_SIDE + _GAP) - _GAP, 3), 255, np.uint8)
    for down, row in enumerate(rows):
        for across, picture in enumerate(row):
            top, left = down * (_SIDE + _GAP), across * (_SIDE + _GAP)
            white[top : top + _SIDE, left : left + _SIDE] = picture
    return white


def _tokens(tokens: Tokens, frames: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        chunks = [torch.from_numpy(frames[start : start + CHUNK]) for start in range(0, len(frames), CHUNK)]
        return torch.cat([tokens(chunk).float().cpu() for chunk in chunks])
