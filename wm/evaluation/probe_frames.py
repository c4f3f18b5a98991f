"""Pictures that encoders are judged on, prepared once: what is fitted, what is tested, and what is known of each."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from wm.config.errors import UserError
from wm.config.probes import ProbesConfig
from wm.contracts import Episode, Source
from wm.data.dataset import Dataset
from wm.evaluation.drawn_frames import DrawnFrames, StatesToDraw, draw_episodes, goal_distances, looks
from wm.evaluation.probe_worlds import BuildWorld, ProbeWorld, probe_worlds, world_columns, world_states
from wm.evaluation.state_targets import state_targets, varying

Progress = Callable[[int, int, str], None]  # sources done, sources in all, the one being read


@dataclass(frozen=True)
class HeldOutFrames:
    """Pictures of one held-out episode, evenly spread.

    Args:
        steps: (T,) env steps.
        frames: uint8 (T, H, W, 3).
        targets: (T, S) of the state probe, NaN where a picture cannot show one; None without states.
        goals: (G,) which of the frames are goals.
        distances: (G, T) as `goal_distances` has them; None where no world can say.
    """

    id: str
    steps: np.ndarray
    frames: np.ndarray
    targets: np.ndarray | None
    goals: np.ndarray
    distances: np.ndarray | None

    @cached_property
    def looks(self) -> np.ndarray:
        """(T,) a number for each picture; the same where they are the same to the pixel."""
        return looks(self.frames)


@dataclass(frozen=True)
class SourceFrames:
    """What is known of one source.

    Args:
        fit_frames: uint8 (N, H, W, 3) of training episodes; none without states.
        fit_targets: (N, S); None without states.
        fit_groups: (N,) which episode each is of.
        episodes: held out.
        drawn: of them, as the world draws their states again.
    """

    name: str
    fit_frames: np.ndarray
    fit_targets: np.ndarray | None
    fit_groups: np.ndarray
    target_names: tuple[str, ...]
    episodes: tuple[HeldOutFrames, ...]
    drawn: tuple[DrawnFrames, ...]

    @property
    def num_frames(self) -> int:
        """Pictures that an encoder is shown."""
        tested = sum(len(each.frames) for each in self.episodes)
        return len(self.fit_frames) + tested + sum(each.num_frames for each in self.drawn)


class ProbeFrames:
    """The pictures of every source of a data set.

    Args:
        notes: what was left out and why, a line each.
    """

    def __init__(self, sources: Sequence[SourceFrames], notes: Sequence[str], config: ProbesConfig) -> None:
        self.sources = tuple(sources)
        self.notes = tuple(notes)
        self.config = config

    @property
    def num_frames(self) -> int:
        """Pictures that an encoder is shown."""
        return sum(source.num_frames for source in self.sources)


def prepare_probes(
    dataset: Dataset,
    config: ProbesConfig,
    build_world: BuildWorld,
    progress: Progress = lambda done, total, source: None,
) -> ProbeFrames:
    """Reads and draws what encoders are judged on: the same for the same data and config.

    Training episodes are fitted on and held-out ones tested; `data.val_fraction` says how many there are. A source without
    states has the time probe alone, one without a known world the state and time probes.

    Args:
        build_world: `wm.build.build_world`.

    Raises:
        UserError: the data set has no pictures, or `config` names a source that it lacks.
    """
    if not dataset.has_pixels:
        raise UserError(f"probes: {', '.join(dataset.features)} holds features, and an encoder is judged on pictures")
    worlds, reasons = probe_worlds(dataset, config)
    notes: list[str] = []
    sources: list[SourceFrames] = []
    judged = config.sources or tuple(dataset.sources)
    for number, name in enumerate(judged):
        progress(number, len(judged), name)
        reading = _Reading(dataset.sources[name], *dataset.split[name], config)
        if reading.has_state and name in worlds:
            reading.look_at(worlds[name], build_world)
        elif reading.has_state:
            reading.notes.append(f"no goal and shift probes: {reasons[name]}")
        sources.append(reading.frames())
        notes += [f"{name}: {note}" for note in reading.notes]
    progress(len(judged), len(judged), "")
    return ProbeFrames(sources, notes, config)


@dataclass(frozen=True)
class _Pick:
    """Some frames of one episode."""

    index: int
    episode: Episode
    rows: np.ndarray

    @property
    def states(self) -> np.ndarray:
        states = self.episode.state
        assert states is not None  # only asked of sources that have them
        return states[self.rows]


@dataclass
class _Reading:
    """One source on its way to `SourceFrames`."""

    source: Source
    train: Sequence[int]
    held_out: Sequence[int]
    config: ProbesConfig
    notes: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        config = self.config
        self.rng = np.random.default_rng([config.seed, zlib.crc32(self.source.name.encode())])
        self.has_state = self.source.episode(self.held_out[0]).state is not None
        tested = sorted(int(index) for index in self.rng.permutation(self.held_out)[: config.test_episodes])
        self.test = [self._spread(index, config.frames_per_episode) for index in tested]
        self.goals = [self.rng.permutation(len(pick.rows))[: config.goals_per_episode] for pick in self.test]
        self.fit = self._fitted() if self.has_state else []
        self.world = ""
        self.distances: list[np.ndarray | None] = [None] * len(self.test)
        self.drawn: list[DrawnFrames] = []
        if not self.has_state:
            self.notes.append("no states: the time probe alone")

    def look_at(self, probe_world: ProbeWorld, build_world: BuildWorld) -> None:
        """Distances, and states drawn again, by the source's world; a note where it cannot."""
        self.world = probe_world.config.kind
        try:
            with closing(build_world(probe_world.config)) as world:
                columns = world_columns(self.source.state_names, world)
                states = [world_states(pick.states, columns) for pick in self.test]
                self.distances = [goal_distances(world, *each) for each in zip(states, self.goals, strict=True)]
                chosen = np.sort(self.rng.permutation(len(self.test))[: self.config.drawn_episodes])
                picks = [self._to_draw(self.test[number], states[number]) for number in chosen]
                self.drawn, notes = draw_episodes(world, probe_world, build_world, picks, self.config, self.rng)
                self.notes += notes
        except (UserError, ImportError, ValueError) as error:  # no OpenGL, no simulator, a state of another kind
            self.notes.append(f"goal and shift probes are not whole: {str(error).strip().splitlines()[0][:200]}")

    def frames(self) -> SourceFrames:
        """What was read."""
        targets, names = self._targets()
        fit = [] if targets is None else self.fit
        fitted = len(fit)
        tested = [
            HeldOutFrames(
                pick.episode.id,
                pick.rows,
                pick.episode.frames(pick.rows),
                None if targets is None else targets[fitted + number],
                self.goals[number],
                self.distances[number],
            )
            for number, pick in enumerate(self.test)
        ]
        seen = [pick.episode.frames(pick.rows) for pick in fit] or [tested[0].frames[:0]]
        return SourceFrames(
            name=self.source.name,
            fit_frames=np.concatenate(seen),
            fit_targets=None if targets is None else np.concatenate(targets[:fitted]),
            fit_groups=np.repeat(np.arange(fitted), [len(pick.rows) for pick in fit]),
            target_names=names,
            episodes=tuple(tested),
            drawn=tuple(self.drawn),
        )

    def _targets(self) -> tuple[list[np.ndarray] | None, tuple[str, ...]]:
        """Of each fitted and then each tested episode."""
        picks = [*self.fit, *self.test]
        if not self.has_state:
            return None, ()
        sizes = [len(pick.rows) for pick in picks]
        shapes = np.repeat([pick.episode.tags.get("shape", np.nan) for pick in picks], sizes)
        states = np.concatenate([pick.states for pick in picks])
        every = state_targets(self.source.state_names, states, self.world, None if np.isnan(shapes).any() else shapes)
        is_fitted = np.arange(len(states)) < sum(sizes[: len(self.fit)])
        found = varying(every, is_fitted, ~is_fitted)
        if not found.names:
            self.notes.append("no state probe: nothing that a picture could show varies")
            return None, ()
        return np.split(found.values, np.cumsum(sizes)[:-1]), found.names

    def _spread(self, index: int, count: int) -> _Pick:
        length = self.source.lengths[index]
        return _Pick(
            index,
            self.source.episode(index),
            np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(int)),
        )

    def _fitted(self) -> list[_Pick]:
        """`fit_frames` frames of as many training episodes as there are, as evenly as can be."""
        order = [int(index) for index in self.rng.permutation(self.train)]
        draws = {index: self.rng.permutation(self.source.lengths[index]) for index in order}
        turns = [(turn, index) for index in order for turn in range(len(draws[index]))]
        taken: dict[int, int] = {}
        for _, index in sorted(turns, key=lambda each: each[0])[: self.config.fit_frames]:
            taken[index] = taken.get(index, 0) + 1
        return [
            _Pick(index, self.source.episode(index), np.sort(draws[index][:count]))
            for index, count in sorted(taken.items())
        ]

    def _to_draw(self, pick: _Pick, states: np.ndarray) -> StatesToDraw:
        some = np.unique(
            np.linspace(0, len(states) - 1, min(self.config.drawn_states, len(states))).round().astype(int)
        )
        recorded = pick.episode.frames(pick.rows[some])
        return StatesToDraw(pick.episode.id, pick.index, pick.episode.tags, states[some], recorded)
