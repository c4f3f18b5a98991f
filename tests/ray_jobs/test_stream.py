"""The Ray Data stream is the schedule: exact, in order, for any number of ranks, from any step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from experiments.spec import load_spec
from ray_jobs.runtime.runs import open_runs
from ray_jobs.runtime.stream import FIRST_STEPS, ClipSource, stream_batches
from ray_jobs.runtime.tokens import encode_missing
from tests.integration.conftest import SPEC, make_data
from wm.config.resolve import with_overrides
from wm.data.clip_reader import to_batch
from wm.training_run import RunInputs

CPU = torch.device("cpu")
pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, ray_cluster: Any) -> Any:
    root = tmp_path_factory.mktemp("stream")
    make_data(root)
    spec = root / "small.yaml"
    spec.write_text(SPEC, encoding="utf-8")
    resolution = "train.resolution=[{size: 14, until: .45}]"  # 27 steps: in the middle of a block
    loaded, overrides = load_spec(spec, [f"storage.root={root}", "train.steps_per_epoch=30", resolution])
    runs = open_runs(loaded, overrides)
    assert encode_missing(runs, lambda done, total: None) == 12 + 9  # of held-out episodes no smaller pictures are read
    assert encode_missing(runs, lambda done, total: None) == 0
    return runs[0]


@pytest.mark.parametrize(("rank", "num_ranks", "start"), [(0, 1, 0), (1, 2, 0), (0, 1, FIRST_STEPS + 7)])
def test_stream_is_the_schedule(run: Any, rank: int, num_ranks: int, start: int) -> None:
    fingerprints = tuple(run.inputs.fingerprints.items())
    source = ClipSource(run.config.model_dump_json(), str(run.inputs.root), fingerprints, rank, num_ranks)
    total = run.inputs.total_steps
    streamed = list(stream_batches(source, start, cpus_per_task=0.2))
    assert len(streamed) == total - start
    for step, batch in enumerate(streamed, start=start):
        expected = to_batch(run.inputs.clips.read(step, rank, num_ranks))
        assert torch.equal(batch.to(CPU).obs.visual, expected.obs.visual)
        assert batch.obs.visual.shape[2] == (1 if step < 27 else 4)
        assert torch.equal(batch.actions, expected.actions)
        assert batch.state is not None
        assert expected.state is not None
        assert torch.equal(batch.state, expected.state)


def test_tokens_are_what_the_encoder_gives(run: Any) -> None:
    episode = run.inputs.dataset.sources["wall"].episode(3)
    frames = torch.from_numpy(episode.frames(np.arange(5)))
    tokens = run.inputs.encoder.encode(frames[None])[0].numpy().astype(np.float16)
    assert np.array_equal(run.inputs.dataset.stores["wall"].read(3, np.arange(5)), tokens)


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_every_batch_of_the_stream_has_its_share(run: Any, num_ranks: int) -> None:
    """One labelled clip in twenty, counted as the workers get them; the ranks take turns with it."""
    video = {"kind": "dino_wm", "path": "wall", "labels": "none"}
    mixture = {"groups": {"labelled": ["wall"], "unlabelled": ["video"]}}
    changes = {"data.sources.video": video, "data.mixture": mixture, "data.tokens": "online", "train.batch_size": 20}
    augment = {"brightness": [0.5, 1.5], "crop": [0.5, 1.0]}
    config = with_overrides(run.config, {**changes, "train.resolution": [], "data.augment": augment})
    mixed = RunInputs(config, run.inputs.root)
    start = FIRST_STEPS + 7
    counts = []
    for rank in range(num_ranks):
        fingerprints = tuple(mixed.fingerprints.items())
        source = ClipSource(config.model_dump_json(), str(mixed.root), fingerprints, rank, num_ranks)
        batches = list(stream_batches(source, start, cpus_per_task=0.2))
        assert {batch.num_clips for batch in batches} == {20 // num_ranks}
        expected = mixed.clips.read(start + 3)["visual"][rank::num_ranks]
        assert np.array_equal(batches[3].obs.visual.numpy(), expected)  # pixels, each clip changed by a draw of its own
        counts.append([int(batch.has_actions.sum()) for batch in batches])
    turns = [(1,)] if num_ranks == 1 else [(1, 0), (0, 1)]
    shares = [turns[step % num_ranks] for step in range(start, mixed.total_steps)]
    assert list(zip(*counts, strict=True)) == shares
