"""Losses over several workers are those of the joined batch, and so are their mean gradients."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from wm.losses.alignment import infonce_loss, state_mse_loss
from wm.losses.dynamics import mean_latent_loss, vector_loss
from wm.losses.prediction import prediction_loss
from wm.losses.ranks import ALONE, Alone, current_ranks, weighted_mean
from wm.losses.reconstruction import reconstruction_loss

N, S = 6, 3


class Half(Alone):
    """One of two workers, told what the other holds."""

    def __init__(self, rank: int, whole: dict[tuple[int, ...], Tensor]) -> None:
        self.rank, self.whole = rank, whole

    def mean_total(self, weights: Tensor) -> Tensor:
        return self.whole[(2 * len(weights),)].sum() / 2

    def gather(self, rows: Tensor) -> tuple[Tensor, int]:
        return self.whole[(2 * len(rows), *rows.shape[1:])], self.rank * len(rows)


def rows() -> tuple[Tensor, Tensor, Tensor]:
    """W z, the state, and weights that lie unevenly over the two halves."""
    generator = torch.Generator().manual_seed(0)
    latent, state = (torch.randn(2 * N, S, generator=generator) for _ in range(2))
    return latent, state, torch.tensor([1.0, 1, 0, 0, 0, 0, 2, 1, 1, 1, 1, 0.5])


Loss = Callable[[Tensor, Tensor, Tensor, Alone], Tensor]
LOSSES: dict[str, Loss] = {
    "infonce cosine": lambda z, s, w, ranks: infonce_loss(z, s, w, 0.2, "cosine", ranks),
    "infonce neg_l2": lambda z, s, w, ranks: infonce_loss(z, s, w, 0.2, "neg_l2", ranks),
    "state_mse": state_mse_loss,
    "prediction": lambda z, s, w, ranks: prediction_loss(z[:, None, None], s[:, None, None], w, "mse", ranks),
    "reconstruction": lambda z, s, w, ranks: reconstruction_loss(z[:, None, None], s[:, None, None], w, ranks),
    "vector": lambda z, s, w, ranks: vector_loss(z[:, None], s[:, None], w, ranks),
    "mean latent": lambda z, s, w, ranks: mean_latent_loss(z[:, None, None], s[:, None, None], w, ranks),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_mean_of_two_workers_gradients_is_the_joined_batch_s(name):
    loss, (latent, state, weights) = LOSSES[name], rows()
    head = torch.randn(S, S, generator=torch.Generator().manual_seed(1)).requires_grad_()
    joined = loss(latent @ head, state, weights, ALONE)
    (expected,) = torch.autograd.grad(joined, [head])
    values: list[Tensor] = []
    gradients: list[Tensor] = []
    for rank in range(2):
        mine = slice(rank * N, (rank + 1) * N)
        half = Half(rank, {(2 * N,): weights, (2 * N, S): state})
        values.append(loss(latent[mine] @ head, state[mine], weights[mine], half))
        gradients.append(torch.autograd.grad(values[-1], [head])[0])
    torch.testing.assert_close(torch.stack(values).mean(), joined)
    torch.testing.assert_close(torch.stack(gradients).mean(dim=0), expected)
    # Without the others' share, unevenly labelled workers would weigh their rows wrongly.
    alone = [
        loss(latent[r * N : (r + 1) * N] @ head, state[r * N : (r + 1) * N], weights[r * N : (r + 1) * N], ALONE)
        for r in range(2)
    ]
    assert not torch.allclose(torch.stack(alone).mean(), joined, rtol=1e-3)


def _worker(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    latent, state, weights = rows()
    mine = slice(rank * N, (rank + 1) * N)
    values = [loss(latent[mine], state[mine], weights[mine], current_ranks()) for loss in LOSSES.values()]
    torch.save(torch.stack(values), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_real_workers_agree_with_the_joined_batch(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_worker, args=(rank, str(tmp_path))) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    found = torch.stack([torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]).mean(dim=0)
    expected = torch.stack([loss(*rows(), ALONE) for loss in LOSSES.values()])
    torch.testing.assert_close(found, expected)


def test_alone_is_the_whole_batch():
    assert current_ranks() is ALONE
    assert weighted_mean(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 3.0])).item() == pytest.approx(2.5)
