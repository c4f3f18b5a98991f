"""Clip references to arrays, and arrays to a Batch: the one place where a batch is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from wm.config.errors import UserError
from wm.contracts import Source, TokenStore
from wm.data.labels import LabelGroups
from wm.data.normalization import DataStatistics
from wm.types import Batch, ClipRef, Observation, Statistics, adapter_columns

Arrays = dict[str, np.ndarray]
_EPISODES_KEPT = 1024  # whose normalised vectors a reader keeps: every clip would normalise its own again


class _Vectors(NamedTuple):
    """Of an episode, normalised, float32 (length, n); None where the model uses none of it."""

    actions: np.ndarray | None
    proprio: np.ndarray | None
    state: np.ndarray | None


class ClipReader:
    """Reads clips of named sources: tokens from their stores, or pixels where a source has no store.

    Args:
        groups: which source carries which vectors; None: all carry the same.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        stores: Mapping[str, TokenStore],
        statistics: DataStatistics,
        groups: LabelGroups | None = None,
    ) -> None:
        self.sources = sources
        self.stores = stores
        self.statistics = statistics
        everyone = tuple(sources)
        self.groups = LabelGroups(everyone, proprio=everyone, state=everyone) if groups is None else groups
        self._columns = lru_cache(maxsize=8)(self._columns_of)
        self._vectors = lru_cache(maxsize=_EPISODES_KEPT)(self._normalized)

    def read(self, refs: Sequence[ClipRef], images: bool = False) -> Arrays:
        """As a Batch has them: `visual` (B, T, ...), `actions`, `proprio`, `state` (B, T, .), `has_actions`, `has_state` (B,).

        Vectors are normalised; absent ones are zeros (proprio and state are left out when no source has them).

        Args:
            images: where tokens are read, also read the frames themselves: `images` (B, T, H, W, 3) uint8.

        Raises:
            UserError: frames of two sizes, where a batch must hold them side by side.
        """
        clips = [self._read_one(ref, images) for ref in refs]
        _check_sizes(refs, clips)
        return {key: np.stack([clip[key] for clip in clips]) for key in clips[0]}

    def actions(self, ref: ClipRef) -> np.ndarray:
        """The `actions` (T, .) of one clip, as `read` gives them: no frame is read. Zeros for a clip without any."""
        return self._actions(ref, self._vectors(ref.source, ref.episode).actions)[0]

    def _read_one(self, ref: ClipRef, images: bool) -> Arrays:
        episode = self.sources[ref.source].episode(ref.episode)
        frames = ref.frame_indices
        store = self.stores.get(ref.source)
        visual = episode.frames(frames) if store is None else store.read(ref.episode, frames)
        clip: Arrays = {"visual": visual}
        if images and store is not None:
            clip["images"] = episode.frames(frames)
        vectors = self._vectors(ref.source, ref.episode)
        clip["actions"], clip["has_actions"] = self._actions(ref, vectors.actions)
        for key, values, statistics in (
            ("proprio", vectors.proprio, self.statistics.proprio),
            ("state", vectors.state, self.statistics.state),
        ):
            if statistics is not None:
                clip[key], clip[f"has_{key}"] = _rows(values, frames, statistics.size)
        return clip

    def _normalized(self, source: str, index: int) -> _Vectors:
        """The vectors of an episode that the model uses."""
        episode, own, groups = self.sources[source].episode(index), self.statistics, self.groups
        adapter = groups.adapter_of(source)
        action = own.adapters[adapter].statistics if adapter is not None else own.action
        has_actions = adapter is not None or source in groups.actions
        return _Vectors(
            _as_float32(episode.actions if has_actions else None, action),
            _as_float32(episode.proprio if source in groups.proprio else None, own.proprio),
            _as_float32(episode.state if source in groups.state else None, own.state),
        )

    def _columns_of(self, frameskip: int) -> tuple[int, dict[str, slice], int]:
        """How many columns the model's own actions have, which are each adapter's, and how many there are."""
        own, others = self.statistics.action, self.statistics.adapters
        size = 0 if own is None else own.size * frameskip
        columns = adapter_columns(size, {name: other.statistics.size * frameskip for name, other in others.items()})
        return size, columns, max((part.stop for part in columns.values()), default=size)

    def _actions(self, ref: ClipRef, actions: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        size, columns, width = self._columns(ref.frameskip)
        grouped = np.zeros((ref.num_frames, width), np.float32)
        adapter = self.groups.adapter_of(ref.source)
        if actions is None:
            return grouped, np.asarray(False)
        if adapter is None:
            grouped[:, :size] = _model_actions(actions, ref)
        else:
            part = grouped[:, columns[adapter]]
            part[:, 0] = 1
            part[:, 1:] = _model_actions(actions, ref)
        return grouped, np.asarray(True)


def _as_float32(values: np.ndarray | None, statistics: Statistics | None) -> np.ndarray | None:
    """Normalised; None where there is nothing to normalise, or by."""
    return None if values is None or statistics is None else statistics.normalize(values).astype(np.float32)


def _model_actions(actions: np.ndarray, ref: ClipRef) -> np.ndarray:
    """(T, A F). Past an episode's end there is nothing to follow: zeros, and no model step reads them."""
    window = actions[ref.start : ref.start + ref.num_frames * ref.frameskip]
    grouped = np.zeros((ref.num_frames, ref.frameskip * actions.shape[1]), np.float32)
    grouped.reshape(-1, actions.shape[1])[: len(window)] = window
    return grouped


def _check_sizes(refs: Sequence[ClipRef], clips: Sequence[Arrays]) -> None:
    for key in ("visual", "images"):
        found = {clip[key].shape[1:]: ref.source for ref, clip in zip(refs, clips, strict=True) if key in clip}
        if len(found) > 1:
            sizes = ", ".join(f"{source} {' x '.join(map(str, shape))}" for shape, source in found.items())
            cure = "data.tokens=store mixes them" if key == "visual" else "an image decoder needs one size"
            raise UserError(f"data.sources: frames of several sizes in one batch ({sizes}); {cure}")


def _rows(values: np.ndarray | None, frames: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    if values is None:
        return np.zeros((len(frames), size), np.float32), np.asarray(False)
    return values[frames], np.asarray(True)


def to_batch(arrays: Mapping[str, np.ndarray], as_stored: bool = False) -> Batch:
    """Arrays of `ClipReader.read` as a Batch.

    Args:
        as_stored: leave float16 tokens to `Batch.to`; else they become float32 here.
    """
    visual = torch.from_numpy(np.ascontiguousarray(arrays["visual"]))
    actions = torch.from_numpy(np.ascontiguousarray(arrays["actions"]))
    clips = len(actions)

    def tensor(key: str) -> torch.Tensor | None:
        return torch.from_numpy(np.ascontiguousarray(arrays[key])) if key in arrays else None

    has_state = tensor("has_state")
    return Batch(
        obs=Observation(
            visual if as_stored or visual.dtype == torch.uint8 else visual.float(),
            tensor("proprio"),
            tensor("has_proprio"),
        ),
        actions=actions,
        has_actions=torch.from_numpy(np.ascontiguousarray(arrays["has_actions"])),
        state=tensor("state"),
        has_state=torch.zeros(clips, dtype=torch.bool) if has_state is None else has_state,
        weights=torch.ones(clips),
        images=tensor("images"),
        seeds=tensor("seeds"),
    )
