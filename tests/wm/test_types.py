"""The nouns that travel."""

from __future__ import annotations

import torch

from tests.wm.data.samples import trained
from wm.types import Batch


def test_chunks_are_the_batch_again() -> None:
    run = trained("align")
    batch: Batch = run.batch(run.dataset.train_clips(3)[""].spread(7, seed=0))
    pieces = batch.chunks(3)
    assert [piece.num_clips for piece in pieces] == [3, 3, 1]
    assert torch.equal(torch.cat([piece.obs.visual for piece in pieces]), batch.obs.visual)
    for name in ("actions", "has_actions", "state", "has_state", "weights"):
        assert torch.equal(torch.cat([getattr(piece, name) for piece in pieces]), getattr(batch, name)), name
    assert batch.obs.proprio is not None
    assert torch.equal(torch.cat([p.obs.proprio for p in pieces if p.obs.proprio is not None]), batch.obs.proprio)
