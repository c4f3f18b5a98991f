"""Clip references to arrays, and arrays to a Batch: the one place where a batch is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from wm.config.errors import UserError
from wm.contracts import Source, TokenStore
from wm.data.labels import LabelGroups
from wm.data.normalization import DataStatistics
from wm.types import Batch, ClipRef, Observation, Statistics, adapter_columns

Arrays = dict[str, np.ndarray]


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

    def _read_one(self, ref: ClipRef, images: bool) -> Arrays:
        episode = self.sources[ref.source].episode(ref.episode)
        frames = ref.frame_indices
        store = self.stores.get(ref.source)
        visual = episode.frames(frames) if store is None else store.read(ref.episode, frames)
        clip: Arrays = {"visual": visual}
        if images and store is not None:
            clip["images"] = episode.frames(frames)
        clip["actions"], clip["has_actions"] = self._actions(ref, episode.actions)
        for key, values, statistics, owners in (
            ("proprio", episode.proprio, self.statistics.proprio, self.groups.proprio),
            ("state", episode.state, self.statistics.state, self.groups.state),
        ):
            if statistics is not None:
                own = values if ref.source in owners else None
                clip[key], present = _vectors(own, frames, statistics)
                clip[f"has_{key}"] = present
        return clip

    def _actions(self, ref: ClipRef, actions: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        own, others = self.statistics.action, self.statistics.adapters
        size = 0 if own is None else own.size * ref.frameskip
        columns = adapter_columns(size, {name: other.statistics.size * ref.frameskip for name, other in others.items()})
        width = max((part.stop for part in columns.values()), default=size)
        grouped = np.zeros((ref.num_frames, width), np.float32)
        adapter = self.groups.adapter_of(ref.source)
        if actions is not None and adapter is not None:
            part = grouped[:, columns[adapter]]
            part[:, 0] = 1
            part[:, 1:] = _model_actions(actions, ref, others[adapter].statistics)
        elif actions is not None and own is not None and ref.source in self.groups.actions:
            grouped[:, :size] = _model_actions(actions, ref, own)
        else:
            return grouped, np.asarray(False)
        return grouped, np.asarray(True)


def _model_actions(actions: np.ndarray, ref: ClipRef, statistics: Statistics) -> np.ndarray:
    """(T, A F) normalised. Past an episode's end there is nothing to follow: zeros, and no model step reads them."""
    window = actions[ref.start : ref.start + ref.num_frames * ref.frameskip]
    grouped = np.zeros((ref.num_frames, ref.frameskip * statistics.size), np.float32)
    normalized = statistics.normalize(window).astype(np.float32)
    grouped.reshape(-1, statistics.size)[: len(normalized)] = normalized
    return grouped


def _check_sizes(refs: Sequence[ClipRef], clips: Sequence[Arrays]) -> None:
    for key in ("visual", "images"):
        found = {clip[key].shape[1:]: ref.source for ref, clip in zip(refs, clips, strict=True) if key in clip}
        if len(found) > 1:
            sizes = ", ".join(f"{source} {' x '.join(map(str, shape))}" for shape, source in found.items())
            cure = "data.tokens=store mixes them" if key == "visual" else "an image decoder needs one size"
            raise UserError(f"data.sources: frames of several sizes in one batch ({sizes}); {cure}")


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
