"""Two workers of a shortcut model compute what one does on the joined batch: real processes, gloo, no Ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.wm.shortcut.test_model import KINDS, built, clips
from wm.config.train import OptimizerConfig, TrainConfig
from wm.losses.ranks import current_ranks
from wm.shortcut.model import BackboneModel
from wm.training.loss_module import LossModule
from wm.training.micro_batch import MicroBatch
from wm.training.optimizer import build_optimizer
from wm.training.precision import Precision
from wm.training.step import Step
from wm.types import Batch

CPU = torch.device("cpu")
STEPS = 3


def after_steps(model: BackboneModel, batch: Batch, wrap: bool, size: int) -> dict[str, Tensor]:
    """Gradients of the last of a few steps, weights and running scales after it."""
    model.train()
    config = TrainConfig(optimizer=OptimizerConfig(grad_clip_norm=1.0))
    losses = LossModule(model, Precision("fp32", CPU))
    wrapped: nn.Module = DistributedDataParallel(losses, find_unused_parameters=True) if wrap else losses
    optimizer = build_optimizer(model, config.optimizer)
    take = Step(config, losses, wrapped, optimizer, MicroBatch(size, None, None), CPU).take
    for number in range(STEPS):
        parts, _ = take(replace(batch, seeds=None if batch.seeds is None else batch.seeds + 1000 * number), 0.5, False)
        model.after_step(0.5, parts, current_ranks())
    gradients = {f"gradient/{name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {**gradients, **{f"state/{name}": value.contiguous() for name, value in model.state_dict().items()}}


def worker(rank: int, root: str) -> None:
    torch.set_num_threads(1)
    folder = Path(root)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    part = clips(8).map(lambda values: values[rank::2])
    for kind in KINDS:
        save_file(after_steps(built(kind), part, wrap=True, size=4), folder / f"{kind}_{rank}.safetensors")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(worker, (str(folder),), nprocs=2)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("size", [8, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_are_one_on_the_joined_batch(results: Path, kind: str, size: int) -> None:
    expected = after_steps(built(kind), clips(8), wrap=False, size=size)
    for rank in (0, 1):
        found = load_file(results / f"{kind}_{rank}.safetensors")
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-7, atol=1e-10, msg=name)
