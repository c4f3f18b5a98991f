"""A checkpoint opened again with the data it was trained on: what `wm plan` and `wm eval` start from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments.spec import RunPlan
from ray_jobs.runtime.runs import Run, storage_root
from wm.build import build_encoder
from wm.config.errors import UserError
from wm.config.experiment import ExperimentConfig
from wm.config.resolve import with_overrides
from wm.config.yaml import parse_override
from wm.data.normalization import DataStatistics
from wm.training.checkpoint import read_manifest
from wm.training_run import RunInputs
from wm.types import ClipRef

_DATA_PATH = re.compile(
    r"data\.sources\.[^.]+\.path"
)  # data may move; their fingerprint tells whether they are the same


def trained_config(
    checkpoint: Path, overrides: Sequence[str], command: str, changeable: Sequence[str]
) -> tuple[ExperimentConfig, Path]:
    """(what a checkpoint was trained with, some of its settings changed; storage.root). Opens no data.

    Args:
        changeable: branches of the config that `command` may change; where the data lie always may.

    Raises:
        UserError: an override that the checkpoint decides.
    """
    changes: dict[str, Any] = {}
    for key, value in map(parse_override, overrides):
        if key.split(".", 1)[0] not in changeable and not _DATA_PATH.fullmatch(key):
            raise UserError(
                f"{key}: the checkpoint decides this; `wm {command}` takes {', '.join(f'{c}.*' for c in changeable)} and "
                "data.sources.NAME.path"
            )
        changes[key] = value
    trained = ExperimentConfig.model_validate_json(json.dumps(read_manifest(checkpoint)["facts"]["config"]))
    root = storage_root(changes.get("storage.root") or trained.storage.root)
    return with_overrides(trained, {**changes, "storage.root": str(root)}), root


def open_trained(checkpoint: Path, overrides: Sequence[str], command: str, changeable: Sequence[str]) -> Run:
    """The run of a checkpoint folder, some of its settings changed.

    Args:
        changeable: as `trained_config`.

    Raises:
        UserError: an override that the checkpoint decides, or its data are not there or are others.
    """
    facts = read_manifest(checkpoint)["facts"]
    reason = facts.get("imported", {}).get(f"no_{command}")
    if reason:
        raise UserError(f"{checkpoint}: {reason}")
    config, root = trained_config(checkpoint, overrides, command, changeable)
    try:
        inputs = RunInputs(config, root, build_encoder(config.encoder))
    except UserError as error:
        raise UserError(f"{checkpoint}: what it was trained on is not here: {error}") from error
    if inputs.dataset.fingerprint != facts["data_fingerprint"]:
        raise UserError(
            f"{root}: its data are not those that {checkpoint} was trained on; the held-out episodes would differ"
        )
    # What the model was trained with: an imported one's program took them over all episodes.
    inputs.dataset.statistics = DataStatistics.from_json(facts["statistics"])
    return Run(RunPlan(config.model.variant, "", config.seed, config), inputs)


def encode_missing(inputs: RunInputs, refs: Iterable[ClipRef], progress: Callable[[int, int], None]) -> None:
    """Encode the episodes of these clips whose tokens are not stored yet; `progress` hears how many of how many are."""
    needed = {(ref.source, ref.episode) for ref in refs}
    missing = [
        (store, episode)
        for name, store in inputs.dataset.stores.items()
        for episode in store.missing()
        if (name, episode) in needed
    ]
    for number, (store, episode) in enumerate(missing, start=1):
        list(store.write(inputs.encoder, [episode]))
        progress(number, len(missing))


def beside(checkpoint: Path, name: str) -> Path:
    """Where what is made of a checkpoint lies: RUN/name/STEP for a run's own, FOLDER/name/CHECKPOINT for one that stands alone."""
    folder = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    return folder / name / checkpoint.name
