"""Progressive resolution: training that begins on smaller pictures and ends, like everything that judges it, at the full size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.wm.data.samples import config, encoder, inputs, train, user_error
from wm.build import encoder_at
from wm.training.checkpoint import find_checkpoint, load_checkpoint
from wm.training.reporter import ListReporter, NullReporter
from wm.training_run import RunInputs

STAGES = [{"size": 14, "until": 0.4}]  # of six steps, three are on one patch a frame instead of four


def staged(root: Path, **values: Any) -> RunInputs:
    return inputs(root, "align_recon", train__resolution=STAGES, **values)


def fill_stores(run: RunInputs) -> list[tuple[str, int | None, int]]:
    found = run.missing_tokens()
    for missing in found:
        list(missing.store.write(run.encoders[missing.size], missing.episodes))
    return [(missing.source, missing.size, len(missing.episodes)) for missing in found]


# -- runs -------------------------------------------------------------------------------------------------------------


def test_the_size_follows_the_schedule(tmp_path):
    run = staged(tmp_path)
    assert run.total_steps == 6
    assert [run.clips.size_at(step) for step in range(6)] == [14, 14, 14, None, None, None]
    assert run.clips.stretches(0) == [(0, 3), (3, 6)]
    assert run.clips.stretches(2) == [(2, 3), (3, 6)]
    assert run.clips.stretches(4) == [(4, 6)]
    assert run.clips.stretches(6) == []
    assert [batch.obs.visual.shape[2] for batch in run.local_batches(0)] == [1, 1, 1, 4, 4, 4]
    assert run.validator().held_out.obs.visual.shape[2] == 4


def test_tokens_of_each_size_have_a_store_of_their_own(tmp_path):
    """And held-out episodes are encoded at the full size alone."""
    online, stored = staged(tmp_path), staged(tmp_path, data__tokens="store")
    trained_on = len(stored.dataset.split["wall"][0])
    assert fill_stores(stored) == [("wall", None, 12), ("wall", 14, trained_on)]
    assert stored.missing_tokens() == []
    folders = {store["wall"].folder for store in stored.clips.stores.values()}
    assert len(folders) == 2
    for first, second in zip(online.local_batches(0), stored.local_batches(0), strict=True):
        torch.testing.assert_close(first.obs.visual, second.obs.visual, rtol=0, atol=2e-3)  # float16
    train(stored, NullReporter())


def test_a_run_that_stops_on_either_side_of_the_switch_resumes_as_itself(tmp_path):
    whole = staged(tmp_path / "whole", train__checkpoint_every_steps=1)
    train(whole, ListReporter())
    weights = load_checkpoint(find_checkpoint(whole.folder.path)).model

    class StopError(Exception):
        pass

    for stop in (2, 4):
        run = staged(tmp_path / str(stop), train__checkpoint_every_steps=1)

        def cut(start: int, run: RunInputs = run, stop: int = stop) -> Any:
            for step, batch in enumerate(run.local_batches(start), start=start):
                if step == stop:
                    raise StopError
                yield batch

        with pytest.raises(StopError):
            run.training(NullReporter(), cut).run()
        again = staged(tmp_path / str(stop), train__checkpoint_every_steps=1)
        train(again, NullReporter())
        resumed = load_checkpoint(find_checkpoint(again.folder.path)).model
        assert all(torch.equal(resumed[name], weights[name]) for name in weights)


def test_it_is_another_run(tmp_path):
    assert staged(tmp_path).hash != inputs(tmp_path, "align_recon").hash


@pytest.mark.parametrize("variant", ["baseline", "align_recon"])
def test_without_stages_nothing_changes(variant, tmp_path):
    run = inputs(tmp_path, variant)
    assert run.clips.stretches(0) == [(0, 6)]
    assert list(run.encoders) == [None]


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"train__resolution": [{"size": 14, "until": 0.5}, {"size": 28, "until": 0.2}]},
            "must end after the one before",
        ),
        ({"train__resolution": [{"size": 14, "until": 1.0}]}, "less than 1"),
        ({"train__resolution": [{"size": 0, "until": 0.5}]}, "greater than"),
        ({"train__resolution": STAGES, "model__decoder__kind": "transposed_conv"}, "vqvae takes any number"),
        (
            {
                "train__resolution": STAGES,
                "data__sources__wall__kind": "precomputed",
                "encoder": {"kind": "precomputed", "provenance": "x", "dim": 3},
            },
            "an encoder that sees pictures",
        ),
    ],
)
def test_what_cannot_be_scheduled_is_refused(values, words):
    assert words in user_error(lambda: config(**values))


class OneSize:
    dim, grid, fingerprint = 3, (2, 2), "one size"

    def encode(self, frames: Tensor) -> Tensor:
        return torch.zeros(*frames.shape[:2], 4, 3)


class Oblong(OneSize):
    grid = (2, 3)

    def at_size(self, size: int) -> Oblong:
        return self


def test_encoders_that_cannot_follow_are_refused_by_name():
    assert "OneSize' has no at_size" in user_error(lambda: encoder_at(OneSize(), 14))
    assert "only square grids of patches can be resized, not [2, 3]" in user_error(lambda: encoder_at(Oblong(), 14))
    assert "15 is not a multiple of the patch size 14" in user_error(lambda: encoder_at(encoder(), 15))
    assert "42 pixels are [3, 3] patches, more than the encoder's own [2, 2]" in user_error(
        lambda: encoder_at(encoder(), 42)
    )
    assert np.prod(encoder_at(encoder(), 14).grid) == 1
