"""Patch tokens of every frame, one memory-mapped file an episode.

tokens/<key>/episode_000123.npy   (T, P, D) float16
tokens/<key>/about.json           what the key stands for
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from wm.config.errors import UserError
from wm.contracts import Encoder, Source
from wm.data.atomic import atomic_file, write_json


def token_key(source_fingerprint: str, encoder_fingerprint: str, stride: int = 1) -> str:
    """Names a store: another encoder, preprocessing, data set or stride is another folder."""
    name = f"float16/{source_fingerprint}/{encoder_fingerprint}" + ("" if stride == 1 else f"/stride {stride}")
    return hashlib.sha256(name.encode()).hexdigest()[:16]


class StoredTokens:
    """Stands for an encoder whose tokens are all stored: a run that reads them needs its shape and name, not its network.

    Args:
        sizes: the same of other sizes of the pictures, where a run reads those too.
    """

    def __init__(
        self, dim: int, grid: tuple[int, int], fingerprint: str, sizes: Mapping[int, StoredTokens] | None = None
    ) -> None:
        self.dim = dim
        self.grid = grid
        self.fingerprint = fingerprint
        self._sizes = sizes or {}

    def at_size(self, size: int) -> StoredTokens:
        """Those of pictures of another size."""
        return self._sizes[size]

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """Raises RuntimeError: there is nothing here to encode with."""
        raise RuntimeError("these tokens are read from their store; build the encoder to encode new frames")


class TokenFiles:
    """Reads and writes the tokens of one source under one encoder. Many may read; each file is written atomically.

    Args:
        stride: env steps between the frames that the encoder sees together. Above 1, frame t is encoded after frames
            t - stride, t - 2 stride, ...: what a clip of that frameskip shows.
    """

    def __init__(self, root: Path, source: Source, encoder_fingerprint: str, stride: int = 1) -> None:
        self.source = source
        self.stride = stride
        self.folder = root / token_key(source.fingerprint, encoder_fingerprint, stride)
        self._encoder_fingerprint = encoder_fingerprint
        self._open = lru_cache(maxsize=256)(self._map)

    def path(self, episode: int) -> Path:
        """Where an episode's tokens are."""
        return self.folder / f"episode_{episode:06d}.npy"

    def missing(self) -> list[int]:
        """Episodes whose tokens are not there yet."""
        return [index for index in range(len(self.source)) if not self.path(index).is_file()]

    def read(self, episode: int, indices: np.ndarray) -> np.ndarray:
        """(n, P, D) float16. Raises UserError when the episode has no tokens."""
        return self._open(episode)[indices]

    def write(self, encoder: Encoder, episodes: Sequence[int]) -> Iterator[int]:
        """Encode these episodes, yielding each index when it is on disk."""
        if encoder.fingerprint != self._encoder_fingerprint:
            raise ValueError("this store belongs to another encoder")
        about = {"source": self.source.fingerprint, "encoder": encoder.fingerprint, "dim": encoder.dim}
        write_json(self.folder / "about.json", about)
        for index in episodes:
            episode = self.source.episode(index)
            frames = torch.from_numpy(episode.frames(np.arange(episode.length)))
            tokens = np.empty((episode.length, encoder.grid[0] * encoder.grid[1], encoder.dim), np.float16)
            for phase in range(min(self.stride, episode.length)):
                tokens[phase :: self.stride] = encoder.encode(frames[None, phase :: self.stride])[0].cpu().numpy()
            with atomic_file(self.path(index)) as partial, partial.open("wb") as handle:
                np.save(handle, tokens)
            yield index

    def _map(self, episode: int) -> np.ndarray:
        path = self.path(episode)
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path}: tokens missing or damaged; delete the file and run the command again") from error
