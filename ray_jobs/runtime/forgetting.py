"""What a run that started from another learnt and forgot: both checkpoints on old and on new held-out clips, in this process."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

from ray_jobs.runtime.runs import Run
from ray_jobs.runtime.trained import encode_missing, open_trained
from wm.build import load
from wm.config.errors import UserError
from wm.config.mixture import MixtureConfig
from wm.data.atomic import write_json
from wm.evaluation.forgetting import Forgetting, Judged, Metrics, judge
from wm.models.latent_model import LatentModel
from wm.training.start import Start
from wm.training_run import RunInputs, pick_device

FILE = "forgetting.json"
_CHANGEABLE = ("storage",)

Progress = Callable[[int, int], None]


def measure_forgetting(run: Run, progress: Progress) -> Forgetting:
    """Of a complete run with `train.start`; kept in its folder, and measured again only where the old data were not here.

    Args:
        progress: hears of episodes whose tokens had to be encoded.
    """
    file = run.inputs.folder.path / FILE
    if file.is_file():
        known = Forgetting.from_json(json.loads(file.read_text(encoding="utf-8")))
        if known.missing is None:
            return known
    start = run.inputs.start
    if start is None:
        raise ValueError(f"{run.title}: starts from no run")
    device = str(pick_device(run.config.train.device))
    before, after = (load(path, device).model for path in (start.checkpoint, run.inputs.folder.path))
    old: Judged | None = None
    missing: str | None = None
    try:
        trained = open_trained(start.checkpoint, [f"storage.root={run.inputs.root}"], "finetune", _CHANGEABLE).inputs
        old = _judged(trained, before, after, progress)
    except UserError as error:
        missing = str(error)
    new = _new_inputs(run, start)
    found = Forgetting(start.run, old, None if new is None else _judged(new, before, after, progress), missing)
    write_json(file, found.to_json())
    return found


def _judged(inputs: RunInputs, before: LatentModel, after: LatentModel, progress: Progress) -> Judged:
    held_out, probe = inputs.validation_clips()
    encode_missing(inputs, [*held_out, *probe], progress)
    judged = judge(inputs.validator(), before, after)
    return Judged(_finite(judged.before), _finite(judged.after))


def _new_inputs(run: Run, start: Start) -> RunInputs | None:
    """The run's sources that the one before did not have, read in its units; None where it has them all."""
    data, known = run.config.data, start.config.data.sources
    new = {name: source for name, source in data.sources.items() if known.get(name) != source}
    if not new:
        return None
    primary = data.primary if data.primary in new else None
    alone = data.model_copy(update={"sources": new, "mixture": MixtureConfig(), "primary": primary})
    return RunInputs(run.config.model_copy(update={"data": alone}), run.inputs.root, run.inputs.encoder)


def _finite(metrics: Metrics) -> dict[str, float]:
    """JSON has no infinity."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
