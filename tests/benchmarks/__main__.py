"""`make bench`: ratios within one run, as a table. Absolute figures are of this machine and this moment.

python -m tests.benchmarks [name ...]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from tests.benchmarks import planning, predictors, reports, shortcut_cache, stores, streams, sweeps, worlds
from tests.benchmarks.row import Row


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """The median of some calls after one that warms up."""
    work()
    taken: list[float] = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))


def token_store() -> Row:
    """A training batch: frames through the encoder at every step against stored tokens."""
    from experiments.spec import load_spec
    from ray_jobs.make_data import make_wall
    from wm.data.clip_reader import to_batch
    from wm.training_run import RunInputs

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_wall(root / "data" / "wall", episodes=20, steps=60, frame_size=84)
        batches: dict[str, float] = {}
        for tokens in ("online", "store"):
            spec, overrides = load_spec("align_vs_align_recon", [f"data.tokens={tokens}", f"storage.root={root}"])
            inputs = RunInputs(spec.resolve_runs(overrides)[0].config, root)
            for store in inputs.dataset.stores.values():
                list(store.write(inputs.encoder, store.missing()))
            batches[tokens] = seconds(lambda i=inputs: i.encode(to_batch(i.clips.read(3))), 5)
    return Row(
        "a batch of 32 clips ready to train on", "encoded online", batches["online"], "token store", batches["store"]
    )


_ONE = (token_store,)
_SEVERAL = (
    predictors.training_step,
    reports.reports,
    planning.planning,
    sweeps.trial_start,
    sweeps.mlflow_rows,
    sweeps.control_plane_memory,
    worlds.worlds,
    streams.stream,
    stores.token_files,
)
BENCHMARKS: dict[str, Callable[[], list[Row]]] = {
    **{work.__name__: lambda work=work: [work()] for work in _ONE},
    **{work.__name__: work for work in _SEVERAL},
    "shortcut_cache": shortcut_cache.rows,
}


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all."""
    torch.set_num_threads(1)
    console = Console()
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        console.print(
            f"error: no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}", style="red"
        )
        return 2
    table = Table(title=f"torch {torch.__version__}, one thread")
    for column in ("what", "base", "", "ours", " ", "base / ours"):
        table.add_column(column, justify="right" if column in ("", " ", "base / ours") else "left")
    for name in names or BENCHMARKS:
        for row in BENCHMARKS[name]():
            values = [f"{value:.4g} {row.unit}" for value in (row.base_value, row.ours_value)]
            table.add_row(row.name, row.base, values[0], row.ours, values[1], f"{row.base_value / row.ours_value:.2f}")
    console.print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
