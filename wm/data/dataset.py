"""Sources, split, statistics, clips and tokens of one data config, opened together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import assert_never

from wm.config.data import (
    DataConfig,
    DinoWmLayout,
    DinoWmSourceConfig,
    LerobotSourceConfig,
    PrecomputedSourceConfig,
    RobomimicSourceConfig,
    SourceConfig,
)
from wm.config.errors import UserError, nearest
from wm.config.mixture import LABELLED, UNLABELLED
from wm.contracts import Source, TokenStore
from wm.data.clip_index import ClipIndex, split_episodes, split_last
from wm.data.clip_reader import ClipReader
from wm.data.faults import FaultyEpisode, check_share, find_faults
from wm.data.kept import check_vectors, unit_notes
from wm.data.labels import LabelGroups, label_groups
from wm.data.normalization import DataStatistics, data_statistics
from wm.data.public_sets import bringing
from wm.data.sources.deformable import DeformableSource
from wm.data.sources.file_source import FileSource
from wm.data.sources.franka import FrankaSource
from wm.data.sources.lerobot import LerobotSource
from wm.data.sources.point_maze import PointMazeSource
from wm.data.sources.precomputed import PrecomputedSource
from wm.data.sources.pusht_noise import PushTNoiseSource
from wm.data.sources.robomimic import RobomimicSource
from wm.data.sources.robomimic_hdf5 import RobomimicHdf5Source
from wm.data.sources.wall_single import WallSingleSource
from wm.data.token_files import TokenFiles
from wm.data.token_mirror import TokenMirror

_LAYOUTS: Mapping[DinoWmLayout, Callable[[DinoWmSourceConfig, str, Path], FileSource]] = {
    "wall_single": WallSingleSource,
    "point_maze": PointMazeSource,
    "pusht_noise": PushTNoiseSource,
    "deformable": DeformableSource,
    "robomimic": RobomimicSource,
    "franka": FrankaSource,
}


_UNFORESEEN = (ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)


def open_source(config: SourceConfig, name: str, folder: Path, max_faulty: float = 0) -> FileSource:
    """The data set in a folder.

    Raises:
        UserError: it is not what the config says, or more than `max_faulty` of its episodes cannot be used.
    """
    try:
        source = _open(config, name, folder)
    except _UNFORESEEN as error:  # what others' files hold knows no bounds
        text = (str(error).strip().splitlines() or [""])[0][:160]
        raise UserError(f"{folder}: damaged, or not what its config says ({type(error).__name__}: {text})") from error
    check_share(source, source.faults, max_faulty)
    return source


def _open(config: SourceConfig, name: str, folder: Path) -> FileSource:
    match config:
        case DinoWmSourceConfig():
            return _LAYOUTS[config.layout](config, name, folder)
        case PrecomputedSourceConfig():
            return PrecomputedSource(config, name, folder)
        case RobomimicSourceConfig():
            return RobomimicHdf5Source(config, name, folder)
        case LerobotSourceConfig():
            return LerobotSource(config, name, folder)
        case _:
            assert_never(config)


def _place(file: Path, part: str) -> tuple[int | str, int, str]:
    """The same for links to one file."""
    try:
        facts = file.stat()
    except OSError:
        return str(file), 0, part
    return facts.st_dev, facts.st_ino, part


def need_public(config: DataConfig, folder: Path) -> None:
    """Raises UserError, with the command that brings it, for a source that is missing and known to be public. Opens nothing.

    Args:
        folder: as `Dataset` takes it.
    """
    for source in config.sources.values():
        found = folder / "data" / source.path
        command = None if found.exists() else bringing(source.path)
        if command is not None:
            raise UserError(f"{found}: no such data set; {command}")


class Dataset:
    """What training and evaluation read from.

    Args:
        folder: `storage.root`; relative source paths lie under `folder/data`, tokens under `folder/tokens`.
        encoder_fingerprint: whose tokens are read; None reads pixels. A source that holds tokens itself needs no store.
        token_stride: env steps between the frames that such an encoder sees together; None when it looks at each alone.
        mirror: where tokens are kept, too.
        kept: gives the statistics of the run that this one starts from, instead of those of these episodes.
    """

    def __init__(
        self,
        config: DataConfig,
        folder: Path,
        encoder_fingerprint: str | None,
        token_stride: int | None = None,
        mirror: TokenMirror | None = None,
        kept: Callable[[], DataStatistics] | None = None,
    ) -> None:
        self.config = config
        self._kept = kept
        need_public(config, folder)
        self._data = folder / "data"
        sources = {
            name: open_source(source, name, self._data / source.path, config.max_faulty)
            for name, source in config.sources.items()
        }
        self.sources: Mapping[str, Source] = sources
        self.features = {name: source for name, source in sources.items() if isinstance(source, PrecomputedSource)}
        self.faulty = [each for source in sources.values() for each in self._find_faulty(source, folder / "faults")]
        self.split = {name: self._split(len(source)) for name, source in self.sources.items()}
        for name, (train, held_out) in self.split.items():
            if not train or not held_out:
                count = len(self.sources[name])
                raise UserError(f"data.sources.{name}: {count} episodes cannot be split by {self._split_rule}")
            self.split[name] = self._usable(name, train), self._usable(name, held_out)
        self._check_apart(sources)
        self._folder, self._token_stride, self._mirror = folder / "tokens", token_stride, mirror
        self.stores = {} if encoder_fingerprint is None else self.open_stores(encoder_fingerprint)

    def open_stores(self, encoder_fingerprint: str) -> dict[str, TokenFiles]:
        """Where an encoder's tokens of each source are, or will be; a source that holds tokens itself has none."""
        return {
            name: TokenFiles(
                self._folder, source, encoder_fingerprint, self._token_stride, self.config.token_format, self._mirror
            )
            for name, source in self.sources.items()
            if name not in self.features
        }

    def folder_of(self, name: str) -> Path:
        """Where a source's files are: a folder, or one file."""
        return self._data / self.config.sources[name].path

    @cached_property
    def statistics(self) -> DataStatistics:
        """Of the training episodes, or the kept ones. Raises UserError for a source with another vector than theirs."""
        if self._kept is None:
            return self._own_statistics()
        kept = self._kept()
        check_vectors(kept, self.sources, self.labels)
        return kept

    def _own_statistics(self) -> DataStatistics:
        return data_statistics(self.sources, self._train, self.labels)

    @cached_property
    def labels(self) -> LabelGroups:
        """Which sources carry which vectors. Raises UserError where data.primary has no actions."""
        return label_groups(self.sources, self._train, self.config.primary)

    @property
    def _train(self) -> dict[str, list[int]]:
        return {name: train for name, (train, _) in self.split.items()}

    @cached_property
    def reader(self) -> ClipReader:
        """Reads clips by reference."""
        return self.reader_of(self.stores)

    def reader_of(self, stores: Mapping[str, TokenStore]) -> ClipReader:
        """Reads clips by reference, their tokens (or frames) from these stores, or from the source itself where it holds some."""
        both: dict[str, TokenStore] = {**stores, **self.features}
        return ClipReader(self.sources, both, self.statistics, self.labels)

    @cached_property
    def fingerprint(self) -> str:
        """Of everything that decides which numbers come out: sources and split."""
        config = self.config
        split = f"{config.val_fraction}/{config.split_seed}" if config.held_out_last is None else self._split_rule
        digest = hashlib.sha256(split.encode())
        for name, source in sorted(self.sources.items()):
            digest.update(f"{name}:{source.fingerprint}".encode())
            faulty = [each.episode for each in self.faulty if each.source == name]
            if faulty:
                digest.update(f"without {faulty}".encode())
            if self._ranges(name):
                digest.update(repr(sorted(self._ranges(name).items())).encode())
        return digest.hexdigest()[:16]

    @property
    def notes(self) -> list[str]:
        """What a person should know before training on it: a line each."""
        units = [] if self._kept is None else unit_notes(self.statistics, self._own_statistics())
        return [*self.labels.notes, *units, *self.faulty_notes]

    @property
    def faulty_notes(self) -> list[str]:
        """What was left out for being faulty: a line a source."""
        lines = []
        for name, source in self.sources.items():
            reasons = [each.reason for each in self.faulty if each.source == name]
            if reasons:
                lines.append(f"{name}: {len(reasons)} of {len(source)} episodes are left out; the first: {reasons[0]}")
        return lines

    @property
    def action_dim(self) -> int:
        """A F of one model action: what is planned."""
        action = self.statistics.action
        return 0 if action is None else action.size * self.config.clip.frameskip

    @property
    def action_adapters(self) -> dict[str, int]:
        """A F of the other action vectors, by adapter."""
        vectors = self.statistics.adapters
        return {name: vector.statistics.size * self.config.clip.frameskip for name, vector in vectors.items()}

    @property
    def has_pixels(self) -> bool:
        """False when a source holds features only: nothing can be drawn from it, or planned in a world."""
        return not self.features

    @property
    def frame_size(self) -> tuple[int, int] | None:
        """Height and width, px, of the frames that have the model's own actions; None where they differ or cannot be read."""
        sizes: set[tuple[int, int]] = set()
        for name in self.labels.actions if self.has_pixels else ():
            try:
                height, width = self.sources[name].episode(self.split[name][0][0]).frames([0]).shape[1:3]
            except UserError:  # with stored tokens nothing else asks for frames, and they may be gone
                return None
            sizes.add((height, width))
        return sizes.pop() if len(sizes) == 1 else None

    def train_clips(self, num_frames: int) -> dict[str, ClipIndex]:
        """Every training clip, its actions whole, by group of `data.mixture`.

        Raises UserError for a source that gives its group none, or belies the name of the group `labelled` or `unlabelled`.
        """
        pools = self.config.mixture.pools(self.sources)
        for group, labelled in ((LABELLED, True), (UNLABELLED, False)):
            for name in pools.get(group, ()):
                if (name in self.labels.with_actions) != labelled:
                    mend = f"data.sources.{name}.labels=none hides them" if not labelled else "put it in another group"
                    raise UserError(f"data.mixture.groups.{group}: '{name}' has {'no ' * labelled}actions; {mend}")
        for name in self.sources if self.config.mixture.is_given else ():
            clips = self._clips(num_frames, held_out=False, whole_actions=True, of=(name,))
            if len(clips) == 0:
                longest = max(self.sources[name].lengths[index] for index in self.split[name][0])
                raise UserError(
                    f"data.sources.{name}: no clip for data.mixture: {num_frames} frames at frameskip {clips.frameskip} need "
                    f"{clips.window} env steps, but its longest training episode has {longest}"
                )
        return {
            group: self._clips(num_frames, held_out=False, whole_actions=True, of=names)
            for group, names in pools.items()
        }

    def held_out_clips(self, num_frames: int) -> ClipIndex:
        """Clips of held-out episodes for latent evaluation. Raises UserError when no episode is long enough."""
        return self._held_out(num_frames, self.sources)

    def held_out_kinds(self, num_frames: int) -> list[ClipIndex]:
        """The same, those of sources with actions and of sources without apart, so that neither is lost beside the other."""
        labelled = self.labels.with_actions
        kinds = [[name for name in self.sources if (name in labelled) == wanted] for wanted in (True, False)]
        return [self._held_out(num_frames, kind) for kind in kinds if kind]

    def training_clips(self, num_frames: int) -> ClipIndex:
        """Clips of training episodes, cut like held-out ones."""
        return self._clips(num_frames, held_out=False, whole_actions=False)

    def probe_clips(self, num_frames: int) -> ClipIndex:
        """Those of the sources that have the state, where one does: what probes are fitted on."""
        return self._clips(num_frames, held_out=False, whole_actions=False, of=self.labels.state or None)

    def held_out_episodes(self) -> list[tuple[str, int]]:
        """(source, episode) of each held-out episode."""
        return [(name, index) for name, (_, held_out) in self.split.items() for index in held_out]

    def planned_episodes(self) -> list[tuple[str, int]]:
        """Those whose state and actions are the model's own: where planning problems can come from."""
        own = set(self.labels.actions) & set(self.labels.state)
        return [(name, index) for name, index in self.held_out_episodes() if name in own]

    @property
    def _split_rule(self) -> str:
        last = self.config.held_out_last
        return f"val_fraction {self.config.val_fraction}" if last is None else f"held_out_last {last}"

    def _split(self, num_episodes: int) -> tuple[list[int], list[int]]:
        config = self.config
        if config.held_out_last is not None:
            return split_last(num_episodes, config.held_out_last)
        return split_episodes(num_episodes, config.val_fraction, config.split_seed)

    def _ranges(self, name: str) -> Mapping[str, tuple[float, float]]:
        return getattr(self.config.sources[name], "tags", {})

    def _check_apart(self, sources: Mapping[str, FileSource]) -> None:
        """Raises UserError when two sources read the same episodes, and what one trains on the other holds out."""
        if len(sources) < 2:
            return
        halves = {
            name: [{_place(*source.origin(index)) for index in half} for half in self.split[name]]
            for name, source in sources.items()
        }
        for (one, (trained, held_out)), (other, (trained_too, held_out_too)) in combinations(halves.items(), 2):
            both = (trained & held_out_too) | (trained_too & held_out)
            if both:
                raise UserError(
                    f"data.sources.{other}: reads episodes of '{one}' too, and {len(both)} of them are trained on in one and "
                    "held out in the other; give both the same episodes"
                )

    def _find_faulty(self, source: FileSource, folder: Path) -> list[FaultyEpisode]:
        if not self.config.max_faulty:  # opening it was enough, and damage that decoding shows stops the run
            return []
        faults = find_faults(source, folder, one_size=self.config.tokens == "online")
        check_share(source, faults, self.config.max_faulty)
        return [FaultyEpisode(source.name, index, source.episode(index).id, why) for index, why in faults.items()]

    def _usable(self, name: str, episodes: list[int]) -> list[int]:
        """Those that are whole and have the source's tags. Raises UserError when none is left."""
        faulty = {each.episode for each in self.faulty if each.source == name}
        whole = [index for index in episodes if index not in faulty]
        if not whole:
            raise UserError(f"data.sources.{name}: all {len(episodes)} episodes of a split are faulty")
        return self._tagged(name, whole)

    def _tagged(self, name: str, episodes: list[int]) -> list[int]:
        """Those whose tags are in the source's ranges. Raises UserError when none is, or none has such a tag."""
        ranges = self._ranges(name)
        if not ranges:
            return episodes
        tags = {index: self.sources[name].episode(index).tags for index in episodes}
        for tag in ranges:
            if not any(tag in found for found in tags.values()):
                known = {key for found in tags.values() for key in found}
                raise UserError(f"data.sources.{name}.tags.{tag}: no episode has this tag.{nearest(tag, known)}")
        kept = [
            index
            for index, found in tags.items()
            if all(tag in found and low <= found[tag] <= high for tag, (low, high) in ranges.items())
        ]
        if not kept:
            raise UserError(
                f"data.sources.{name}.tags: {dict(ranges)} leaves none of {len(episodes)} episodes of a split"
            )
        return kept

    def _clips(
        self, num_frames: int, held_out: bool, whole_actions: bool, of: Iterable[str] | None = None
    ) -> ClipIndex:
        episodes: list[tuple[str, int, int]] = [
            (name, index, self.sources[name].lengths[index])
            for name in (self.sources if of is None else of)
            for index in self.split[name][int(held_out)]
        ]
        return ClipIndex(episodes, num_frames, self.config.clip.frameskip, whole_actions)

    def _held_out(self, num_frames: int, names: Iterable[str]) -> ClipIndex:
        names = list(names)
        clips = self._clips(num_frames, held_out=True, whole_actions=False, of=names)
        if len(clips) == 0:
            longest = max(self.sources[name].lengths[i] for name, i in self.held_out_episodes() if name in names)
            which = "" if len(names) == len(self.sources) else f" of {', '.join(names)}"
            raise UserError(
                f"evaluate.horizons: {num_frames} frames at frameskip {clips.frameskip} need {clips.window} env steps, but the "
                f"longest held-out episode{which} has {longest}"
            )
        return clips
