"""The recorded episodes that `wm plan --offline` plans on: a checkpoint's own held-out ones, or a folder that it never saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ray_jobs.runtime.trained import encode_missing, open_trained, trained_config
from wm.config.data import SourceConfig
from wm.config.encoder import PrecomputedEncoderConfig
from wm.config.errors import UserError, nearest
from wm.config.experiment import ExperimentConfig
from wm.config.model import EmbeddedProprio
from wm.contracts import Source
from wm.data.clip_reader import ClipReader, to_batch
from wm.data.dataset import open_source
from wm.data.labels import LabelGroups
from wm.data.normalization import DataStatistics
from wm.data.sources.file_source import FileSource
from wm.data.sources.precomputed import PrecomputedSource
from wm.evaluation.offline_clips import DrawnClip, OfflineClip, clip_refs, labelled_episodes
from wm.training.checkpoint import read_manifest
from wm.training_run import RunInputs
from wm.types import ClipRef, Statistics

CHANGEABLE = ("plan", "evaluate", "storage")


@dataclass
class Recorded:
    """Labelled episodes that the checkpoint was not trained on, and how they are read.

    Args:
        config: the checkpoint's, its plan and evaluate changed.
        reader: gives what the model saw in training: stored tokens, or frames; normalised as then.
        episodes: of the source.
        notes: a line each.
        inputs: where the tokens of missing episodes go; None: nothing is stored.
    """

    config: ExperimentConfig
    source: Source
    reader: ClipReader
    episodes: list[int]
    notes: list[str] = field(default_factory=list[str])
    inputs: RunInputs | None = None

    @property
    def action(self) -> Statistics:
        """Of the actions that the model plans."""
        return _planned(self.reader.statistics)

    def encode(self, clips: Sequence[tuple[DrawnClip, int]], progress: Callable[[int, int], None]) -> None:
        """Store the tokens that these clips, with their goal horizons, lack."""
        if self.inputs is not None:
            encode_missing(self.inputs, [self._refs(*each)[0] for each in clips], progress)

    def read(self, clip: DrawnClip, goal_horizon: int) -> OfflineClip:
        """One clip as the model takes it."""
        ref, other_ref = self._refs(clip, goal_horizon)
        size = self.action.size * ref.frameskip  # columns of other action vectors follow
        batch = to_batch(self.reader.read([ref]))
        other = torch.from_numpy(self.reader.actions(other_ref))
        return OfflineClip(
            clip.id,
            self.source.episode(clip.episode).id,
            batch.obs,
            batch.actions[0, :-1, :size],
            ref.num_frames - 1 - goal_horizon,
            other[:-1, :size],
        )

    def _refs(self, clip: DrawnClip, goal_horizon: int) -> tuple[ClipRef, ClipRef]:
        config = self.config
        return clip_refs(clip, self.source.name, goal_horizon, config.data.clip.frameskip, config.model.history_len)


def open_recorded(checkpoint: Path, dataset: str, overrides: Sequence[str]) -> Recorded:
    """The labelled episodes of a source of the checkpoint, by its name, or of a folder of the same layout as one of them.

    Raises:
        UserError: there is no such source or folder, nothing in it is held out or labelled, or its vectors are not the model's.
    """
    config, root = trained_config(checkpoint, overrides, "plan --offline", CHANGEABLE)
    if dataset in config.data.sources:
        return _own(checkpoint, dataset, overrides)
    for folder in (Path(dataset), root / "data" / dataset):
        if folder.exists():
            return _folder(checkpoint, config, root, folder)
    raise UserError(
        f"--offline: '{dataset}' is neither a source of this checkpoint nor a folder.{nearest(dataset, config.data.sources)}"
    )


def _own(checkpoint: Path, name: str, overrides: Sequence[str]) -> Recorded:
    """A source that the checkpoint was trained on: its held-out episodes."""
    run = open_trained(checkpoint, overrides, "plan", CHANGEABLE)
    data = run.inputs.dataset
    if name not in data.labels.actions:
        planned = ", ".join(data.labels.actions)
        why = "its actions are not those that the model plans" if name in data.labels.with_actions else "no actions"
        raise UserError(f"--offline {name}: {why}; nothing to compare a plan with. With them: {planned}")
    source = data.sources[name]
    episodes, unlabelled = labelled_episodes(source, data.split[name][1])
    return Recorded(run.config, source, data.reader, episodes, _skipped(unlabelled), run.inputs)


def _folder(checkpoint: Path, config: ExperimentConfig, root: Path, folder: Path) -> Recorded:
    """A folder from outside: all of its episodes. The data that the checkpoint was trained on are not needed."""
    for name, known in config.data.sources.items():
        if (root / "data" / known.path).resolve() == folder.resolve():
            raise UserError(
                f"--offline {folder}: the checkpoint was trained on it; --offline {name} takes its held-out episodes"
            )
    statistics = DataStatistics.from_json(read_manifest(checkpoint)["facts"]["statistics"])
    source = _open_as_known(config, folder)
    notes = _check_vectors(config, statistics, source, folder)
    usable = [index for index in range(len(source)) if index not in source.faults]
    episodes, unlabelled = labelled_episodes(source, usable)
    tokens = {source.name: source} if isinstance(source, PrecomputedSource) else {}
    has_proprio = isinstance(config.model.proprio, EmbeddedProprio) and bool(source.proprio_names)
    groups = LabelGroups((source.name,), proprio=(source.name,) if has_proprio else ())
    reader = ClipReader({source.name: source}, tokens, statistics, groups)
    return Recorded(config, source, reader, episodes, [*notes, *_skipped(unlabelled)])


def _open_as_known(config: ExperimentConfig, folder: Path) -> FileSource:
    """The folder in the layout of the first source of the checkpoint that it opens as: camera, keys and names are that source's."""
    refused: list[str] = []
    reads_proprio = isinstance(config.model.proprio, EmbeddedProprio)
    for name, known in config.data.sources.items():
        try:
            return open_source(_whole(known, folder, reads_proprio), folder.stem, folder, config.data.max_faulty)
        except UserError as error:
            refused.append(f"as '{name}': {error}")
    raise UserError(f"--offline {folder}: cannot be read as a source of the checkpoint ({'; '.join(refused)})")


def _whole(known: SourceConfig, folder: Path, reads_proprio: bool) -> SourceConfig:
    """A source's settings for another folder: all episodes, with their labels; of vectors only those that the model reads."""
    wanted: dict[str, object] = {
        "path": str(folder.absolute()),
        "episodes": None,
        "labels": "all",
        "tags": {},
        "filter": None,
    }
    for vector in ("state",) if reads_proprio else ("state", "proprio"):
        wanted |= {f"{vector}_keys": (), f"{vector}_names": ()}
    return known.model_copy(update={key: value for key, value in wanted.items() if key in type(known).model_fields})


def _check_vectors(config: ExperimentConfig, statistics: DataStatistics, source: FileSource, folder: Path) -> list[str]:
    """Notes on names that differ. Raises UserError for vectors or tokens of another size."""
    notes: list[str] = []
    kinds = [("action", "actions", _planned(statistics), statistics.action_names)]
    if isinstance(config.model.proprio, EmbeddedProprio) and statistics.proprio is not None:
        kinds.append(("proprio", "proprio", statistics.proprio, statistics.proprio_names))
    for kind, what, known, names in kinds:
        found: tuple[str, ...] = getattr(source, f"{kind}_names")
        if found and len(found) != known.size:
            raise UserError(
                f"--offline {folder}: {what} of {len(found)} numbers ({', '.join(found)}), but the checkpoint's are {known.size} "
                f"({', '.join(names)})"
            )
        if found and tuple(found) != tuple(names):
            notes.append(
                f"{what} are called {', '.join(found)} there and {', '.join(names)} here: taken by their order"
            )
    if isinstance(source, PrecomputedSource) and isinstance(config.encoder, PrecomputedEncoderConfig):
        down, across = config.encoder.grid
        if source.token_shape != (down * across, config.encoder.dim):
            tokens, dim = source.token_shape
            raise UserError(
                f"--offline {folder}: {tokens} tokens of {dim} channels a frame, but the checkpoint's are {down * across} of "
                f"{config.encoder.dim}"
            )
    return notes


def _planned(statistics: DataStatistics) -> Statistics:
    if statistics.action is None:
        raise UserError("this model was trained without actions: it cannot plan")
    return statistics.action


def _skipped(unlabelled: int) -> list[str]:
    return [f"{unlabelled} held-out episodes without actions are left out"] if unlabelled else []
