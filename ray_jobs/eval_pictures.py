"""The pictures of `wm eval`: rollout strips, patch colours, and futures beside each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from experiments.figures import rollout_strip
from experiments.pictures import encode_mp4, side_by_side
from ray_jobs.runtime.progress import Stage
from ray_jobs.runtime.runs import Run
from wm.data.atomic import atomic_file
from wm.data.clip_reader import to_batch
from wm.evaluation.decoded import decoded_frames, decoded_strip
from wm.evaluation.futures import imagined_futures, spread_map
from wm.evaluation.latent import imagine
from wm.evaluation.patch_pca import patch_colours
from wm.evaluation.quality import ClipGroup
from wm.evaluation.retrieval import FrameBank, imagined_strip
from wm.loaded import LoadedModel
from wm.training_run import encoded
from wm.types import Batch, ClipRef

_STRIPS = 3
_BANK_CLIPS = 256
_PICTURE_SIDE = 112  # about, px
_FUTURES, _SHOWN = 8, 3  # whose spread is drawn; of these so many are drawn themselves
_FILM_FPS = 4


def draw_pictures(
    run: Run, loaded: LoadedModel, groups: Mapping[str, ClipGroup], target: Path, stage: Stage
) -> list[Path]:
    """A few clips of each kind: a rollout strip, the patch colours, and futures with their spread where a model samples them.

    Args:
        groups: held-out clips, labelled and not.
        target: the folder to write into.

    Returns:
        The files.
    """
    pictures = _Pictures(run, loaded, target)
    chosen = [
        (f"{name}_" if len(groups) > 1 else "", ref)
        for name, group in groups.items()
        for ref in group.refs[:: max(1, len(group.refs) // _STRIPS)][:_STRIPS]
    ]
    for number, (kind, ref) in enumerate(chosen):
        pictures.draw(ref, f"{kind}{number}")
        stage.update(number + 1, len(chosen))
    return pictures.files


def clips_here(run: Run, loaded: LoadedModel, refs: list[ClipRef], images: bool) -> Batch:
    """Clips where the model is, on request with their frames beside their tokens."""
    batch = to_batch(run.inputs.dataset.reader.read(refs, images=images))
    return encoded(run.inputs.encoder, batch, keep_images=images).to(next(loaded.model.parameters()).device)


class _Pictures:
    """Of clips, into a folder.

    Args:
        target: the folder.
    """

    def __init__(self, run: Run, loaded: LoadedModel, target: Path) -> None:
        self._run, self._loaded, self._model, self._target = run, loaded, loaded.model, target
        self._bank: FrameBank | None = None
        self.files: list[Path] = []

    def draw(self, ref: ClipRef, name: str) -> None:
        """All that there is to see of one clip."""
        model = self._model
        has_frames = ref.source not in self._run.inputs.dataset.features
        batch = clips_here(self._run, self._loaded, [ref], images=has_frames and model.decoder is not None)
        is_grid = model.tokens_per_frame == math.isqrt(model.tokens_per_frame) ** 2 > 1
        if has_frames:
            strip = (
                imagined_strip(model, self._run.inputs.dataset, ref, batch, self._frames())
                if model.decoder is None
                else decoded_strip(model, model.decoder, batch)
            )
            self._write(f"rollout_strip_{name}.png", rollout_strip(strip))
        if is_grid:
            self._write(f"patch_pca_{name}.png", rollout_strip(self._colours(ref, batch, has_frames)))
        if has_frames and is_grid and model.sampling_steps is not None:
            rows = self._futures(ref, batch)
            self._write(f"futures_{name}.png", rollout_strip(rows))
            panels = {label: _bytes(images) for label, images in rows.items()}
            self._write(f"futures_{name}.mp4", encode_mp4(side_by_side(panels), _FILM_FPS))

    @torch.no_grad()
    def _colours(self, ref: ClipRef, batch: Batch, has_frames: bool) -> dict[str, np.ndarray]:
        """Rows: the frames, their patch latents as colours, and the imagined ones' (the context is not imagined: its own)."""
        model, history = self._model, self._model.history_len
        content, imagined = imagine(model, batch, batch.num_frames - history)
        visual, dreamt = (model.visual(latent)[0] for latent in (content, imagined))
        truth, predicted = patch_colours(visual, torch.cat([visual[:history], dreamt]))
        side = truth.shape[1] * max(1, round(_PICTURE_SIDE / truth.shape[1]))
        rows = {"true latents": _resized(truth, side), "predicted latents": _resized(predicted, side)}
        if not has_frames:
            return rows
        return {"true": _resized(self._recorded(ref) / np.float32(255), side), **rows}

    @torch.no_grad()
    def _futures(self, ref: ClipRef, batch: Batch) -> dict[str, np.ndarray]:
        """Rows: the frames, some futures of the context, and how far all of them differ, patch by patch.

        White is as far as the clip's own frames differ from its last context frame where they differ most.
        """
        model, history, truth = self._model, self._model.history_len, self._recorded(ref)
        latents, futures = imagined_futures(model, batch, batch.num_frames - history, _FUTURES)
        moved = (latents[0, history:] - latents[0, history - 1]).square().mean(dim=-1).sqrt()
        side = math.isqrt(model.tokens_per_frame)
        side *= max(1, round(_PICTURE_SIDE / side))
        rows = {"true": _resized(truth / np.float32(255), side)}
        shown = _resized(truth[:history] / np.float32(255), side)
        for number, visual in enumerate(futures[:_SHOWN, 0]):
            frames = self._frames().nearest(visual) if model.decoder is None else decoded_frames(model.decoder, visual)
            rows[f"future {number + 1}"] = np.concatenate([shown, _resized(frames / np.float32(255), side)])
        spread = _resized(spread_map(futures[:, 0], float(moved.max())), side)
        return {**rows, f"spread of {_FUTURES}": np.concatenate([np.zeros_like(shown), spread])}

    def _recorded(self, ref: ClipRef) -> np.ndarray:
        return self._run.inputs.dataset.sources[ref.source].episode(ref.episode).frames(ref.frame_indices)

    def _frames(self) -> FrameBank:
        if self._bank is None:
            inputs, model = self._run.inputs, self._model
            seed = self._run.config.evaluate.seed
            refs = inputs.dataset.training_clips(model.history_len + 1).spread(_BANK_CLIPS, seed)
            held = inputs.batch(refs).to(next(model.parameters()).device)
            self._bank = FrameBank(model, inputs.dataset, refs, held)
        return self._bank

    def _write(self, name: str, content: bytes) -> None:
        file = self._target / name
        with atomic_file(file) as partial:
            partial.write_bytes(content)
        self.files.append(file)


def _resized(images: np.ndarray, side: int) -> np.ndarray:
    """(T, H, W, 3) floats to side x side: patches become blocks, larger frames are averaged."""
    import cv2

    how = cv2.INTER_AREA if images.shape[1] > side else cv2.INTER_NEAREST
    return np.stack([cv2.resize(image, (side, side), interpolation=how) for image in images])


def _bytes(images: np.ndarray) -> np.ndarray:
    return (255 * images.clip(0, 1)).round().astype(np.uint8)
