"""Features recorded as files: each frame's tokens, and no pixels.

features.npz, or one .npy file for each of its arrays (these are mapped, not read):
features (N, T, D) or (N, T, P, D) float, actions (N, T, A), and optionally states (N, T, S), proprio (N, T, Dp) and
lengths (N,), for episodes shorter than T
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from wm.config.data import PrecomputedSourceConfig
from wm.config.errors import UserError
from wm.data.sources.file_source import FileSource, Kind

ARCHIVE = "features.npz"
FILES: Mapping[Kind, str] = {"action": "actions", "proprio": "proprio", "state": "states"}
FPS = 10.0  # nothing records it; only videos would use it


class PrecomputedSource(FileSource):
    """Episodes and, in place of a token store, their tokens. Raises UserError for a bad folder."""

    fps = FPS

    def __init__(self, config: PrecomputedSourceConfig, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self._arrays = _read(folder)
        features = self._arrays["features"]
        if features.ndim == 3:
            features = features[:, :, None]
        if features.ndim != 4 or not features.size or not np.issubdtype(features.dtype, np.floating):
            raise UserError(
                f"{folder}: features must be floats (episodes, T, D) or (episodes, T, P, D), found {features.dtype} "
                f"{self._arrays['features'].shape}"
            )
        self.features = features
        self.labelled = config.labels == "all"
        count = min(config.episodes or len(features), len(features))
        self.lengths: Sequence[int] = self._lengths(count)
        self.tags: Sequence[Mapping[str, float]] = [{}] * count
        self.action_names = self._names("action", config.action_names)
        self.proprio_names = self._names("proprio", config.proprio_names)
        self.state_names = self._names("state", config.state_names)
        self.note_faults(folder, {})
        self.fingerprint: str = self._fingerprint()

    @property
    def token_shape(self) -> tuple[int, int]:
        """(P, D) of a frame."""
        return self.features.shape[2], self.features.shape[3]

    def label(self, index: int) -> str:
        return f"{index:03d}"

    def frame_file(self, index: int) -> Path:
        archive = self.folder / ARCHIVE
        return archive if archive.is_file() else self.folder / "features.npy"

    def frames(self, index: int, rows: np.ndarray) -> np.ndarray:
        """Raises UserError: features cannot be turned back into pixels."""
        raise UserError(
            f"data.sources.{self.name}: holds features, no frames: planning in a world, rollout strips and contact sheets "
            "need a source with pixels"
        )

    def read(self, episode: int, indices: np.ndarray) -> np.ndarray:
        """Tokens (n, P, D) float16 of some frames of an episode, as a token store gives them."""
        if len(indices) and not 0 <= min(indices) <= max(indices) < self.lengths[episode]:
            raise IndexError(f"frames {min(indices)}..{max(indices)} of {self.lengths[episode]}")
        with np.errstate(over="ignore"):
            tokens = self.features[episode, indices].astype(np.float16)
        if not np.isfinite(tokens).all():
            raise UserError(
                f"{self.folder}: features of episode {episode} hold NaN or infinity, or numbers too large for float16"
            )
        return tokens

    def vector(self, kind: Kind, index: int) -> np.ndarray | None:
        if FILES[kind] not in self._arrays:
            return None
        return np.asarray(self._arrays[FILES[kind]][index, : self.lengths[index]], np.float32)

    def _lengths(self, count: int) -> list[int]:
        longest = self.features.shape[1]
        given = self._arrays.get("lengths")
        if given is None:
            return [longest] * count
        is_whole = np.issubdtype(given.dtype, np.number) and bool((given == np.floor(given)).all())
        if given.shape != self.features.shape[:1] or not is_whole or given.min() < 1 or given.max() > longest:
            raise UserError(f"{self.folder}: lengths must be ({len(self.features)},) within 1..{longest}")
        return [int(length) for length in given[:count]]

    def _names(self, kind: Kind, given: tuple[str, ...]) -> tuple[str, ...]:
        key, path = FILES[kind], f"data.sources.{self.name}.{kind}_names"
        if key not in self._arrays:
            if given:
                raise UserError(f"{path}: given, but {self.folder} has no {key}")
            return ()
        values = self._arrays[key]
        if values.ndim != 3 or values.shape[:2] != self.features.shape[:2]:
            raise UserError(
                f"{self.folder}: {key} {values.shape} do not fit features {self.features.shape[:2]} (episodes, T)"
            )
        size = values.shape[2]
        if given and len(given) != size:
            raise UserError(f"{path}: {len(given)} names for the {size} columns of {key}")
        return given or tuple(f"{kind}_{column}" for column in range(size))

    def _fingerprint(self) -> str:
        """Of names, lengths and vectors whole, and of three frames' features of each episode: files may be large."""
        names = (self.action_names, self.proprio_names, self.state_names)
        digest = hashlib.sha256(f"{self.token_shape}/{self.lengths}/{self.labelled}/{names}".encode())
        for key in FILES.values():
            if key in self._arrays:
                digest.update(np.ascontiguousarray(self._arrays[key][: len(self)]).tobytes())
        for episode, length in enumerate(self.lengths):
            digest.update(np.ascontiguousarray(self.features[episode, [0, length // 2, length - 1]]).tobytes())
        return digest.hexdigest()[:16]


def _read(folder: Path) -> dict[str, np.ndarray]:
    """Every array that is there. Raises UserError when features are not, or a file is damaged."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such data folder")
    keys = ("features", *FILES.values(), "lengths")
    archive = folder / ARCHIVE
    try:
        if archive.is_file():
            with np.load(archive, allow_pickle=False) as saved:
                return _with_features({key: saved[key] for key in keys if key in saved.files}, archive)
        files = {key: folder / f"{key}.npy" for key in keys}
        return _with_features(
            {key: np.load(file, mmap_mode="r", allow_pickle=False) for key, file in files.items() if file.is_file()},
            folder,
        )
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise UserError(f"{folder}: unreadable features ({str(error).splitlines()[0][:160]})") from error


def _with_features(arrays: dict[str, np.ndarray], where: Path) -> dict[str, np.ndarray]:
    if "features" not in arrays:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise UserError(
            f"{where}: no features (found {found}); expected {ARCHIVE} or features.npy, (episodes, T, [P,] D)"
        )
    return arrays
