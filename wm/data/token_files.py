"""Patch tokens of every frame, one file an episode, read frame by frame.

tokens/<key>/episode_000123.safetensors   `tokens` (T, P, D), see wm/data/token_format.py; what it was made of, as metadata
tokens/<key>/about.json                   what the key stands for, and the measured error of the format

Why files of our own (`python -m tests.benchmarks token_files`, numbers in experiments/LOG.md): zarr and Lance take 3 to 7
times the CPU for a clip. A memory map, or Arrow's, takes .6 of it where the process has touched every page before; it is not
taken because from the disk it reads 2 to 10 times what is asked for, over 10,000 episodes it is slower, and a file cut short
ends the process. HDF5 takes the same within a tenth, but its one file cannot be written by many, nor survive a crash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from wm.config.data import TokenFormat
from wm.config.errors import UserError
from wm.contracts import Encoder, Source
from wm.data.atomic import atomic_file, file_lock, write_json
from wm.data.tensor_file import TensorFile
from wm.data.token_format import StoredEpisode, relative_error, to_tensors
from wm.data.token_mirror import TokenMirror

_FRAMES_AT_ONCE = 512  # decoded, and on the encoder's device, at a time
_OPEN_FILES = 256  # of a process, whatever the number of stores: a quarter of the usual limit


def token_key(
    source_fingerprint: str, encoder_fingerprint: str, stride: int = 1, kept_as: TokenFormat = "float16"
) -> str:
    """Names a store: another encoder, preprocessing, data set, stride or format is another folder."""
    name = f"{kept_as}/{source_fingerprint}/{encoder_fingerprint}" + ("" if stride == 1 else f"/stride {stride}")
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
        stride: env steps between the frames that the encoder sees together: frame t is encoded after frames t - stride,
            t - 2 stride, ...: what a clip of that frameskip shows. None: it looks at each frame alone.
        kept_as: see `wm.data.token_format`.
        mirror: asked for an episode before it is encoded, and given what was.
    """

    def __init__(
        self,
        root: Path,
        source: Source,
        encoder_fingerprint: str,
        stride: int | None = None,
        kept_as: TokenFormat = "float16",
        mirror: TokenMirror | None = None,
    ) -> None:
        self.mirror = mirror
        self.source = source
        self.stride = stride
        self.kept_as: TokenFormat = kept_as
        self.folder = root / token_key(source.fingerprint, encoder_fingerprint, stride or 1, kept_as)
        self._facts = {
            "source": source.fingerprint,
            "encoder": encoder_fingerprint,
            "stride": str(stride or 1),
            "format": kept_as,
        }

    def path(self, episode: int) -> Path:
        """Where an episode's tokens are."""
        return self.folder / f"episode_{episode:06d}.safetensors"

    def missing(self) -> list[int]:
        """Episodes whose tokens are not there yet."""
        return [index for index in range(len(self.source)) if not self.path(index).is_file()]

    def read(self, episode: int, indices: np.ndarray) -> np.ndarray:
        """(n, P, D) float16 of some frames.

        Raises:
            UserError: the episode has no tokens, or its file is damaged or of another encoder, data set, format or stride.
            IndexError: it has no such frame.
        """
        path = self.path(episode)
        try:
            stored = _opened(path)
            if {name: stored.metadata.get(name) for name in self._facts} == self._facts:
                return stored.read(np.asarray(indices))
        except (OSError, ValueError) as error:
            _opened.cache_clear()
            raise UserError(f"{path}: tokens missing or damaged; delete the file and run the command again") from error
        _opened.cache_clear()
        wrong = [name for name, value in self._facts.items() if stored.metadata.get(name) != value]
        raise UserError(f"{path}: tokens of another {' and '.join(wrong)}; delete the file and run the command again")

    def write(self, encoder: Encoder, episodes: Sequence[int]) -> Iterator[int]:
        """Encode these episodes, or copy them from the mirror, yielding each index when it is on disk.

        Raises:
            UserError: the encoder gives tokens that are not finite, or too large for float16.
        """
        if encoder.fingerprint != self._facts["encoder"]:
            raise ValueError("this store belongs to another encoder")
        self._describe(encoder.dim)
        try:
            for index in episodes:
                if not self._fetched(index):
                    self.save(index, self._encoded(encoder, index))
                    if self.mirror is not None:
                        self.mirror.put(self.folder.name, self.path(index))
                yield index
        finally:
            self._describe(encoder.dim)

    def save(self, episode: int, tokens: torch.Tensor) -> None:
        """Put an episode's tokens, float32 (T, P, D), on disk. Raises UserError as `write`."""
        path = self.path(episode)
        try:
            kept = to_tensors(tokens, self.kept_as)
        except ValueError as error:
            raise UserError(f"{path}: the encoder's tokens of this episode are {error}") from error
        lost = relative_error(tokens, kept)
        with atomic_file(path) as partial:
            about = {"episode": str(episode), "content": _content(kept["tokens"]), "relative_error": f"{lost:.3e}"}
            save_file(kept, partial, {**self._facts, **about})
        _opened.cache_clear()

    def _fetched(self, episode: int) -> bool:
        """Whether an episode was copied from the mirror: False where it has none, or none that is whole and ours."""
        path = self.path(episode)
        if self.mirror is None or not self.mirror.fetch(self.folder.name, path):
            return False
        try:
            self.read(episode, np.arange(1))
            told = _opened(path).metadata
            if told.get("episode") == str(episode) and told.get("content") == _content(
                TensorFile(path).whole("tokens")
            ):
                return True
        except (UserError, ValueError):
            pass
        path.unlink()
        _opened.cache_clear()
        return False

    def _encoded(self, encoder: Encoder, index: int) -> torch.Tensor:
        episode = self.source.episode(index)
        tokens = torch.empty(episode.length, encoder.grid[0] * encoder.grid[1], encoder.dim)
        for part in _parts(episode.length, self.stride):
            frames = torch.from_numpy(episode.frames(np.arange(episode.length)[part]))
            tokens[part] = encoder.encode(frames[None])[0].cpu()
        return tokens

    def _describe(self, dim: int) -> None:
        """about.json: what the key stands for, and the error of what is here, of whichever process: one may have been killed."""
        about = self.folder / "about.json"
        with file_lock(self.folder / "about.lock"):
            known = json.loads(about.read_text(encoding="utf-8")) if about.is_file() else {}
            told: dict[str, float] = known.get("relative_errors", {})
            here = sorted(path.name for path in self.folder.glob("episode_*.safetensors"))
            each = {name: told[name] if name in told else _error(self.folder / name) for name in here}
            errors = {name: error for name, error in each.items() if error is not None}
            mean, worst = sum(errors.values()) / max(len(errors), 1), max(errors.values(), default=0.0)
            error = {"episodes": len(errors), "mean": mean, "worst": worst}
            write_json(about, {**self._facts, "dim": dim, "relative_error": error, "relative_errors": errors})


def _error(path: Path) -> float | None:
    """What a file tells of its error; None where it cannot be read."""
    try:
        return float(TensorFile(path).metadata["relative_error"])
    except (OSError, ValueError, KeyError):
        return None


def _content(tokens: np.ndarray) -> str:
    """Of the numbers as they are kept: what came over a network is compared with it."""
    return hashlib.blake2b(np.ascontiguousarray(tokens).data, digest_size=16).hexdigest()


def _parts(length: int, stride: int | None) -> list[slice]:
    """What the encoder is given at once: frames a stride apart, or neighbours, which bounds what is in memory."""
    if stride is not None:
        return [slice(phase, length, stride) for phase in range(min(stride, length))]
    return [slice(first, min(first + _FRAMES_AT_ONCE, length)) for first in range(0, length, _FRAMES_AT_ONCE)]


@lru_cache(maxsize=_OPEN_FILES)
def _opened(path: Path) -> StoredEpisode:
    """A process opens each file once; those read least recently are closed."""
    return StoredEpisode(TensorFile(path))
