"""Two workers compute what one does: real processes, gloo, no Ray."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from safetensors.torch import load_file, save_file
from torch.nn.parallel import DistributedDataParallel

from tests.wm.data.samples import same
from tests.wm.training.steps import CPU, OneStep, uneven
from wm.training.meter import Meter
from wm.training.micro_batch import MicroBatch
from wm.training.step import Step
from wm.types import Batch

# name -> (what is done to the batch, clips at once, measure)
CASES: dict[str, tuple[Any, int, bool]] = {
    "plain": (lambda batch: batch, 3, False),
    "uneven": (uneven, 3, False),
    "in_pieces": (uneven, 2, False),
    "measured": (uneven, 2, True),
}


def part(batch: Batch, rank: int) -> Batch:
    """Every second clip, as the schedule deals them out."""
    return batch.map(lambda values: values[rank::2])


def worker(rank: int, root: str) -> None:
    torch.set_num_threads(1)
    folder = Path(root)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    for name, (change, size, measure) in CASES.items():
        step = OneStep(folder, size=size)
        wrapped = DistributedDataParallel(step.losses, find_unused_parameters=True)
        take = Step(step.config, step.losses, wrapped, step.optimizer, step.micro_batch, CPU).take
        meter = Meter()
        for _ in range(2):  # a second step: the wrapper must be whole after the first
            parts, _ = take(part(change(step.batch), rank), 0.5, measure)
            meter.add(parts)
        logged = {f"logged/{key}": torch.tensor(value) for key, value in meter.take().items()}
        gradients = {key: value.contiguous() for key, value in step.gradients.items()}
        save_file({**gradients, **logged}, folder / f"{name}_{rank}.safetensors")
    micro_batch = MicroBatch(8, unsplittable=None, folder=folder / "run")
    torch.distributed.barrier()  # as in a run: every rank has read the size before any of them leaves a smaller one
    with pytest.raises(RuntimeError, match=r"going on with 4 at once .* from the newest checkpoint"):
        micro_batch.shrink(8, "CUDA out of memory")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.wm.data.samples import wall_folder

    folder = tmp_path_factory.mktemp("ranks")
    wall_folder()
    torch.multiprocessing.spawn(worker, (str(folder),), nprocs=2)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_mean_gradient_of_two_ranks_is_that_of_the_joined_batch(results: Path, tmp_path: Path, name: str) -> None:
    one = OneStep(tmp_path, size=6)
    meter = Meter()
    for _ in range(2):
        meter.add(one.take(CASES[name][0](one.batch))[0])
    expected = {**one.gradients, **{f"logged/{key}": torch.tensor(value) for key, value in meter.take().items()}}
    ranks = [load_file(results / f"{name}_{rank}.safetensors") for rank in (0, 1)]
    assert same(ranks[0], ranks[1])
    assert ranks[0].keys() == expected.keys()
    largest = max(float(value.abs().max()) for value in one.gradients.values())
    for key, value in expected.items():
        torch.testing.assert_close(ranks[0][key], value, rtol=1e-3, atol=1e-4 * largest, msg=key)


@pytest.mark.slow
def test_looking_at_gradients_does_not_disturb_the_ranks(results: Path) -> None:
    for rank in (0, 1):
        looked, did_not = (load_file(results / f"{name}_{rank}.safetensors") for name in ("measured", "in_pieces"))
        assert same(looked, did_not)


@pytest.mark.slow
def test_workers_out_of_memory_leave_the_size_to_their_successors(results: Path) -> None:
    assert json.loads((results / "run" / "micro_batch.json").read_text()) == {"size": 4}
    assert MicroBatch(8, unsplittable=None, folder=results / "run").size == 4
    assert MicroBatch(2, unsplittable=None, folder=results / "run").size == 2
