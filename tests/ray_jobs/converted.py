"""Data sets before and after conversion, opened and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ray_jobs.convert_data import convert_data
from wm.config.catalogue import config_of, source_kinds
from wm.contracts import Source
from wm.data.dataset import open_source
from wm.data.sources.detect import detect
from wm.data.sources.file_source import FileSource

VECTORS = ("actions", "proprio", "state")


def opened(folder: Path, **config: Any) -> FileSource:
    settings = {**detect(folder), **config}
    kind = settings.pop("kind")
    return open_source(config_of(source_kinds(), kind, settings, "source", "kind"), folder.stem, folder)


def convert(source: Path, out: Path, to: str, **given: Any) -> tuple[str, ...]:
    return convert_data(source, out, to, **{"actors": 0, **given}).notes


def every(source: Source, index: int) -> np.ndarray:
    return source.episode(index).frames(np.arange(source.lengths[index]))


def psnr(found: np.ndarray, expected: np.ndarray) -> float:
    """dB."""
    assert found.shape == expected.shape
    return float(10 * np.log10(255**2 / np.mean((found.astype(np.float64) - expected) ** 2)))


def same_numbers(first: Source, second: Source, what: tuple[str, ...] = VECTORS) -> None:
    """Bit for bit, names too."""
    assert list(first.lengths) == list(second.lengths)
    assert first.action_names == second.action_names
    assert first.state_names == second.state_names
    for index in range(len(first)):
        one, two = first.episode(index), second.episode(index)
        assert one.fps == two.fps
        for key in what:
            np.testing.assert_array_equal(getattr(one, key), getattr(two, key))
