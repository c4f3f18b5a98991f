"""How long the parts of a run take here: measured for a few seconds, in as many processes as will run side by side.

python -m ray_jobs.runtime.probe CONFIG_JSON_FILE OUT
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

_STEPS, _WARM_UP, _BATCHES = 14, 4, 2
_TIMEOUT_S = 300.0


class Timings(NamedTuple):
    """Seconds of one process among its like.

    Args:
        import_s: until a fresh process can train.
        setup_s: opening the data and reading the held-out clips.
        step_s, validate_s, problem_s: one training step, one validation, one planning problem.
        encode_frame_s: one frame through the encoder; 0 when all tokens are stored.
        checkpoint_bytes: of one checkpoint on disk.
    """

    import_s: float
    setup_s: float
    step_s: float
    validate_s: float
    problem_s: float
    encode_frame_s: float
    checkpoint_bytes: float


def probe(config_json: str, problems_file: Path | None, at_once: int) -> Timings:
    """The mean over `at_once` processes that run together, since what runs side by side slows each other down.

    Raises RuntimeError with the reason when a process fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "config.json"
        given.write_text(json.dumps({"config": config_json, "problems": str(problems_file or "")}), encoding="utf-8")
        outs = [Path(folder) / f"{number}.json" for number in range(at_once)]
        command = [sys.executable, "-m", __spec__.name, str(given)]
        began = [time.time() for _ in outs]
        processes = [
            subprocess.Popen(
                [*command, str(out), str(start)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            for out, start in zip(outs, began, strict=True)
        ]
        try:
            for process in processes:
                _, errors = process.communicate(timeout=_TIMEOUT_S)
                if process.returncode:
                    raise RuntimeError((errors.strip().splitlines() or ["the probe died"])[-1])
        finally:
            for process in processes:
                process.kill()
        found = [json.loads(out.read_text(encoding="utf-8")) for out in outs]
    return Timings(**{name: mean(each[name] for each in found) for name in Timings._fields})


def measure(config_json: str, problems: str, started: float) -> dict[str, Any]:
    """The timings of this process, which was started at Unix time `started`."""
    import torch

    from wm.build import build_world
    from wm.build_planning import planning_evaluation
    from wm.config.experiment import ExperimentConfig
    from wm.config.resolve import with_overrides
    from wm.data.normalization import DataStatistics
    from wm.evaluation.problems import load_problems
    from wm.loaded import LoadedModel
    from wm.training.reporter import NullReporter
    from wm.training_run import RunInputs

    config = ExperimentConfig.model_validate_json(config_json)
    root = Path(str(config.storage.root))
    import_s = time.time() - started
    began = time.monotonic()
    stored = RunInputs(config, root)
    missing = bool(stored.missing_tokens())
    online = {"data.tokens": "online", "data.token_format": "float16"}
    whole = RunInputs(with_overrides(config, online), root, stored.encoder) if missing else stored
    stretches = whole.clips.stretches(0)  # of one size of pictures each
    steps = _STEPS * len(stretches)
    short = with_overrides(whole.config, {"train.epochs": 1, "train.steps_per_epoch": steps, "train.resolution": []})
    inputs = RunInputs(short, root, stored.encoder)
    opened_s = time.monotonic() - began
    began = time.monotonic()
    validator = inputs.validator()
    clips_s = time.monotonic() - began
    # Where tokens are missing, reading the held-out clips is encoding them; with tokens it takes next to nothing.
    frames = (config.evaluate.clips + config.evaluate.probe_clips) * (config.model.history_len + config.longest_horizon)
    setup_s, encode_frame_s = (opened_s, clips_s / frames) if missing else (opened_s + clips_s, 0.0)
    batches = [
        [next(whole.local_batches(min(first + number, stop - 1))) for number in range(_BATCHES)]
        for first, stop in stretches
    ]
    ticks: list[float] = []

    def timed(start: int) -> Any:
        for step in range(start, steps):
            ticks.append(time.monotonic())
            yield batches[step // _STEPS][step % _BATCHES]

    with tempfile.TemporaryDirectory() as folder:
        training = inputs.training(NullReporter(), timed)
        training.folder, training.validate = Path(folder), None
        training.run()
        checkpoint_bytes = max(sum(f.stat().st_size for f in c.rglob("*")) for c in Path(folder).iterdir())
    model = training.model.eval().requires_grad_(False)
    began = time.monotonic()
    validator.metrics(model)
    validate_s = time.monotonic() - began
    problem_s = 0.0
    if problems:
        loaded = LoadedModel(
            config, inputs.encoder, model, DataStatistics.from_json(training.facts["statistics"]), training.facts
        )
        torch.set_num_threads(1)
        judge = planning_evaluation(config.plan, loaded, [build_world(config.plan.world)])
        first = load_problems(Path(problems))[0]
        began = time.monotonic()
        judge.solve(first)
        problem_s = time.monotonic() - began
    seconds = [after - before for before, after in pairwise(ticks)]
    step_s = sum(
        (stop - first) / whole.total_steps * median(seconds[_STEPS * number + _WARM_UP : _STEPS * (number + 1)])
        for number, (first, stop) in enumerate(stretches)
    )
    timings = Timings(import_s, setup_s, step_s, validate_s, problem_s, encode_frame_s, float(checkpoint_bytes))
    return timings._asdict()


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    result = measure(asked["config"], asked["problems"], float(sys.argv[3]))
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")
