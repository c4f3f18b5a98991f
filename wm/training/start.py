"""The finished run that another one starts from: its weights, its units, and what must stay as it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from wm.config.errors import UserError, nearest
from wm.config.experiment import ExperimentConfig
from wm.config.resolve import Layer
from wm.config.shortcut import ShortcutConfig, check_network
from wm.data.normalization import DataStatistics
from wm.training.checkpoint import find_checkpoint, load_checkpoint, read_manifest

_KEPT = ({"model"}, {"data": {"clip"}})  # what weights mean nothing without


@dataclass(frozen=True)
class Start:
    """The last checkpoint of a finished run.

    Args:
        run: its hash.
    """

    run: str
    checkpoint: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Of the checkpoint."""
        return read_manifest(self.checkpoint)

    @cached_property
    def config(self) -> ExperimentConfig:
        """That the run was trained with."""
        return ExperimentConfig.model_validate_json(json.dumps(self.manifest["facts"]["config"]))

    @property
    def statistics(self) -> DataStatistics:
        """The units in which its model reads actions, proprio and state."""
        return DataStatistics.from_json(self.manifest["facts"]["statistics"])

    @property
    def facts(self) -> dict[str, Any]:
        """What a checkpoint keeps of where it came from."""
        weights = "ema.safetensors" if "ema.safetensors" in self.manifest["sha256"] else "model.safetensors"
        return {"run": self.run, "step": self.manifest["step"], "sha256": self.manifest["sha256"][weights]}

    def weights(self) -> dict[str, Tensor]:
        """The averaged ones where the run keeps some: what planning uses."""
        return load_checkpoint(self.checkpoint).weights

    def check(self, config: ExperimentConfig, encoder_fingerprint: str) -> None:
        """Raises UserError, naming the first setting, where a run cannot go on from these weights."""
        for section in _KEPT:
            new, old = (_flat(each.model_dump(mode="json", include=section)) for each in (config, self.config))
            for path in sorted({*new, *old}):
                if new.get(path) != old.get(path):
                    raise UserError(
                        f"{path}: {_shown(new, path)}, but run {self.run}, which train.start names, has {_shown(old, path)}; "
                        "a run that starts from another keeps its model and its clips"
                    )
        if isinstance(config.model, ShortcutConfig):
            check_network(self.manifest["facts"])
        trained = self.manifest["facts"]["encoder_fingerprint"]
        if encoder_fingerprint != trained:
            raise UserError(
                f"encoder: '{config.encoder.kind}' here is {encoder_fingerprint}, but run {self.run}, which train.start names, was "
                f"trained on {trained}"
            )


def open_start(root: Path, run: str) -> Start:
    """The run with this hash under a storage.root. Raises UserError where there is none, or it is not finished."""
    folder = root / "runs" / run
    if not folder.is_dir():
        known = [path.name for path in (root / "runs").glob("*") if (path / "result.json").is_file()]
        raise UserError(f"train.start={run}: no such run under {root / 'runs'}.{nearest(run, known)}")
    if not (folder / "result.json").is_file():
        raise UserError(f"train.start={run}: this run is not finished; repeat the command that trains it first")
    return Start(run, find_checkpoint(folder))


def _flat(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    return Layer.from_tree("config", tree).values


def _shown(values: Mapping[str, Any], path: str) -> str:
    return json.dumps(values[path]) if path in values else "no such setting"
