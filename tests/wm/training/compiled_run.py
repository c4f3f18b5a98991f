"""Trains a run in a process without the test run's shape checks, which a compiler cannot see through; prints the graphs compiled.

python -m tests.wm.training.compiled_run CONFIG ROOT
"""

from __future__ import annotations

import sys
from pathlib import Path

from torch._dynamo.utils import counters

from wm.config.experiment import ExperimentConfig
from wm.training.reporter import NullReporter
from wm.training_run import RunInputs


def main(config: Path, root: Path) -> None:
    run = RunInputs(ExperimentConfig.model_validate_json(config.read_text()), root)
    run.training(NullReporter(), run.local_batches).run()
    sys.stdout.write(f"{counters['stats']['unique_graphs']}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
