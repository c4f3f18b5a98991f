"""How good one checkpoint is as a world model, measured on held-out episodes in this process.

python -m ray_jobs.eval wm_home/runs/HASH [path=value ...]      (or: wm eval ...)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ray_jobs.eval_pictures import clips_here, draw_pictures
from ray_jobs.eval_table import render_quality
from ray_jobs.runtime.progress import Narrator, Stage
from ray_jobs.runtime.runs import Run
from ray_jobs.runtime.storage import make_out
from ray_jobs.runtime.trained import beside, encode_missing, open_trained
from wm.build import load
from wm.config.decoder import LpipsConfig
from wm.config.errors import UserError
from wm.data.atomic import write_json
from wm.data.clip_index import ClipIndex
from wm.evaluation.decoded import decoded_quality
from wm.evaluation.futures import futures_quality
from wm.evaluation.quality import CLIPS_AT_ONCE, ClipGroup, by_labels, rollout_quality
from wm.evaluation.readout import health_quality, probe_quality
from wm.loaded import LoadedModel
from wm.models.perceptual import NOT_AVAILABLE, PerceptualDistance
from wm.training.checkpoint import find_checkpoint, read_manifest
from wm.training_run import pick_device
from wm.types import Batch, ClipRef

CHANGEABLE = ("evaluate", "storage")
HORIZONS = (1, 5, 10, 20)  # SCIENCE section 5; those that fit, unless evaluate.horizons is given
_FUTURES = 8  # that are compared with their spread, of models that sample futures


class _Clips(NamedTuple):
    """Everything that is read before anything is computed."""

    groups: dict[str, ClipGroup]
    held_out: ClipGroup  # both kinds
    probe: ClipGroup


def evaluate_checkpoint(
    path: Path,
    overrides: Sequence[str],
    out: Path | None,
    narrator: Narrator,
    which: Literal["latest", "best"] = "latest",
) -> dict[str, Any]:
    """Measure, print the table, write eval.json and pictures; returns what eval.json holds.

    Args:
        which: of a run folder's checkpoints.

    Raises UserError for a missing checkpoint, other data than it was trained on, or a horizon that no held-out episode has.
    """
    checkpoint = find_checkpoint(path, which)
    run = open_trained(checkpoint, overrides, "eval", CHANGEABLE)
    horizons = _horizons(run, any(given.startswith("evaluate.horizons") for given in overrides), narrator)
    perceptual = _perceptual(run)
    step = read_manifest(checkpoint)["step"]
    target = out or beside(checkpoint, "evaluation")
    make_out(target)
    loaded = load(checkpoint, device=str(pick_device(run.config.train.device)))
    with narrator.step("Read held-out clips", "episodes encoded") as stage:
        clips = _read(run, max(horizons), stage)
        counts = {name: len(group.refs) for name, group in clips.groups.items()}
        narrator.say(", ".join(f"{count} {name} clips" for name, count in counts.items()))
    found: dict[str, Any] = {
        "checkpoint": str(checkpoint),
        "step": step,
        "variant": run.config.model.variant,
        "train_hash": run.inputs.hash,
        "horizons": list(horizons),
        "clips": counts,
    }
    with narrator.step("Roll out", "clips") as stage:
        for name, group in clips.groups.items():
            done = partial(_tell, stage, name, len(group.refs))
            found[name] = rollout_quality(loaded.model, group.batch, horizons, run.config.evaluate.seed, done)
    if loaded.model.sampling_steps is not None:
        with narrator.step(f"Roll out {_FUTURES} futures", "clips") as stage:
            for name, group in clips.groups.items():
                done = partial(_tell, stage, name, len(group.refs))
                found[name] |= futures_quality(loaded.model, group.batch, horizons, _FUTURES, done)
    with narrator.step("Fit state probes"):
        found["latent"] = health_quality(loaded.model, clips.held_out.batch)
        names = loaded.statistics.state_names
        found["state"] = probe_quality(loaded.model, clips.probe.batch, clips.held_out.batch, names, horizons)
    found["images"] = _images(run, loaded, clips.held_out.refs, horizons, perceptual, narrator)
    found["lpips"] = NOT_AVAILABLE if perceptual is None else "available"
    with narrator.step("Draw", "pictures") as stage:
        pictures = draw_pictures(run, loaded, clips.groups, target, stage)
        if not pictures:
            narrator.say("No pictures: the data holds features, no frames")
    for renderable in render_quality(found):
        narrator.console.print(renderable)
    write_json(target / "eval.json", _finite(found))
    written = ", ".join(["eval.json", *(picture.name for picture in pictures)])
    narrator.console.print(f"{target}: {written}", highlight=False, soft_wrap=True)
    return found


def _tell(stage: Stage, kind: str, total: int, clips: int) -> None:
    stage.update(clips, total, kind)


def _horizons(run: Run, given: bool, narrator: Narrator) -> tuple[int, ...]:
    """Those asked for, or those of HORIZONS that held-out episodes are long enough for."""
    config, dataset = run.config, run.inputs.dataset
    frameskip, history = config.data.clip.frameskip, config.model.history_len
    steps = max(dataset.sources[name].lengths[index] for name, index in dataset.held_out_episodes())
    longest = (steps - 1) // frameskip + 1 - history
    facts = f"held-out episodes of {steps} env steps at frameskip {frameskip}, after {history} context frames"
    asked = config.evaluate.horizons if given else HORIZONS
    fitting = tuple(h for h in asked if h <= longest)
    if given and fitting != asked:
        raise UserError(
            f"evaluate.horizons: {max(asked)} is too long; the longest possible is {max(longest, 0)} ({facts})"
        )
    if not fitting:
        raise UserError(f"evaluate.horizons: not one model step fits ({facts})")
    if fitting != asked:
        left = ", ".join(str(h) for h in asked if h > longest)
        narrator.say(f"horizons {left} left out: the longest possible is {longest} ({facts})")
    return fitting


def _perceptual(run: Run) -> PerceptualDistance | None:
    config = run.config.evaluate.perceptual
    return PerceptualDistance(config) if isinstance(config, LpipsConfig) else None


def _read(run: Run, horizon: int, stage: Stage) -> _Clips:
    """Held-out clips of every source, and training clips for the probes; missing tokens are encoded first.

    Each source gives its own `evaluate.clips`, so that a small one is not lost beside a large one.
    """
    inputs, evaluate = run.inputs, run.config.evaluate
    dataset, history = inputs.dataset, run.config.model.history_len
    held_out: list[ClipRef] = []
    for name in dataset.sources:
        episodes = [(name, i, dataset.sources[name].lengths[i]) for i in dataset.split[name][1]]
        index = ClipIndex(episodes, history + horizon, run.config.data.clip.frameskip, whole_actions=False)
        held_out += index.spread(evaluate.clips, evaluate.seed)
    probe = dataset.probe_clips(history + 1).spread(evaluate.probe_clips, evaluate.seed)
    encode_missing(inputs, [*held_out, *probe], stage.update)
    whole, fit = (ClipGroup(refs, inputs.batch(refs)) for refs in (held_out, probe))
    return _Clips(by_labels(whole.refs, whole.batch), whole, fit)


def _images(
    run: Run,
    loaded: LoadedModel,
    refs: list[ClipRef],
    horizons: Sequence[int],
    perceptual: PerceptualDistance | None,
    narrator: Narrator,
) -> dict[str, float]:
    decoder = loaded.model.decoder
    if decoder is None:
        return {}
    with narrator.step("Decode", "clips") as stage:

        def batches() -> Iterator[Batch]:
            for first in range(0, len(refs), CLIPS_AT_ONCE):
                yield clips_here(run, loaded, refs[first : first + CLIPS_AT_ONCE], images=True)
                stage.update(min(first + CLIPS_AT_ONCE, len(refs)), len(refs))

        return decoded_quality(loaded.model, decoder, batches(), horizons, perceptual)


def _finite(value: Any) -> Any:
    """JSON has no infinity: null stands for a number that is none."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def main() -> None:
    """python -m ray_jobs.eval CHECKPOINT [path=value ...]: as `wm eval`."""
    import sys

    from ray_jobs.cli import main as cli

    sys.argv[1:1] = ["eval"]
    cli()


if __name__ == "__main__":
    main()
