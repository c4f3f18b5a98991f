"""Clip references to arrays, and arrays to a Batch: the one place where a batch is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from wm.contracts import Source, TokenStore
from wm.data.normalization import DataStatistics
from wm.types import Batch, ClipRef, Observation, Statistics

Arrays = dict[str, np.ndarray]


class ClipReader:
    """Reads clips of named sources: tokens from their stores, or pixels where a source has no store."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        stores: Mapping[str, TokenStore],
        statistics: DataStatistics,
    ) -> None:
        self.sources = sources
        self.stores = stores
        self.statistics = statistics

    def read(self, refs: Sequence[ClipRef], images: bool = False) -> Arrays:
        """`visual` (B, T, ...), `actions` (B, T, A F), `proprio`, `state` (B, T, .), `has_actions`, `has_state` (B,).

        Vectors are normalised; absent ones are zeros (proprio and state are left out when no source has them).

        Args:
            images: where tokens are read, also read the frames themselves: `images` (B, T, H, W, 3) uint8.
        """
        clips = [self._read_one(ref, images) for ref in refs]
        return {key: np.stack([clip[key] for clip in clips]) for key in clips[0]}

    def _read_one(self, ref: ClipRef, images: bool) -> Arrays:
        episode = self.sources[ref.source].episode(ref.episode)
        frames = ref.frame_indices
        store = self.stores.get(ref.source)
        visual = episode.frames(frames) if store is None else store.read(ref.episode, frames)
        clip: Arrays = {"visual": visual}
        if images and store is not None:
            clip["images"] = episode.frames(frames)
        clip["actions"], clip["has_actions"] = self._actions(ref, episode.actions)
        for key, values, statistics in (
            ("proprio", episode.proprio, self.statistics.proprio),
            ("state", episode.state, self.statistics.state),
        ):
            if statistics is not None:
                clip[key], present = _vectors(values, frames, statistics)
                clip[f"has_{key}"] = present
        return clip

    def _actions(self, ref: ClipRef, actions: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        statistics = self.statistics.action
        size = 0 if statistics is None else statistics.size
        grouped = np.zeros((ref.num_frames, ref.frameskip * size), np.float32)
        if actions is None or statistics is None:
            return grouped, np.asarray(False)
        # Past an episode's end there is nothing to follow: zeros, and no model step reads them.
        window = actions[ref.start : ref.start + ref.num_frames * ref.frameskip]
        normalized = statistics.normalize(window).astype(np.float32)
        grouped.reshape(-1, size)[: len(normalized)] = normalized
        return grouped, np.asarray(True)


def _vectors(values: np.ndarray | None, frames: np.ndarray, statistics: Statistics) -> tuple[np.ndarray, np.ndarray]:
    if values is None:
        return np.zeros((len(frames), statistics.size), np.float32), np.asarray(False)
    return statistics.normalize(values[frames]).astype(np.float32), np.asarray(True)


def to_batch(arrays: Mapping[str, np.ndarray]) -> Batch:
    """Arrays of `ClipReader.read` as a Batch; float16 tokens become float32."""
    visual = torch.from_numpy(np.ascontiguousarray(arrays["visual"]))
    actions = torch.from_numpy(np.ascontiguousarray(arrays["actions"]))
    clips = len(actions)

    def tensor(key: str) -> torch.Tensor | None:
        return torch.from_numpy(np.ascontiguousarray(arrays[key])) if key in arrays else None

    has_state = tensor("has_state")
    return Batch(
        obs=Observation(
            visual if visual.dtype == torch.uint8 else visual.float(), tensor("proprio"), tensor("has_proprio")
        ),
        actions=actions,
        has_actions=torch.from_numpy(np.ascontiguousarray(arrays["has_actions"])),
        state=tensor("state"),
        has_state=torch.zeros(clips, dtype=torch.bool) if has_state is None else has_state,
        weights=torch.ones(clips),
        images=tensor("images"),
    )
