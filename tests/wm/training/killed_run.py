"""Trains a run until it fetches the batch of a step, and is killed there: python -m tests.wm.training.killed_run CONFIG ROOT STEP."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from wm.config.experiment import ExperimentConfig
from wm.training.reporter import NullReporter
from wm.training_run import RunInputs
from wm.types import Batch


def main(config: Path, root: Path, step: int) -> None:
    run = RunInputs(ExperimentConfig.model_validate_json(config.read_text()), root)

    def batches(start: int) -> Iterator[Batch]:
        for number, batch in enumerate(run.local_batches(start), start):
            if number == step:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    run.training(NullReporter(), batches).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
