"""How a frozen encoder is judged: what is read, and how much of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from wm.config.base import Config, NonNegativeInt, PositiveInt
from wm.config.worlds import WorldConfig

_AtLeastTwo = Annotated[int, Field(ge=2)]


class ProbesConfig(Config):
    """The probes of an encoder, per source of a data set. Defaults: some 800 pictures a source, a second or two each on a core.

    Args:
        seed: of every draw; the same data and seed are the same pictures.
        fit_frames: training frames that the state probe is fitted on, spread over the training episodes.
        test_episodes: held-out episodes, at most.
        frames_per_episode: evenly spread over each of them.
        goals_per_episode: frames of each that are taken for a goal.
        time_window: how many of the frames before and after one count as its neighbours in time. They are those of
            `frames_per_episode`: length / frames_per_episode env steps apart.
        drawn_episodes: held-out episodes whose states the world draws again, at most: those of the shift and fresh probes.
        drawn_states: of each of them, evenly spread, under every shift.
        fresh_states: that the world samples afresh in the layout of each of them; 0 for none (a rope takes a second for two).
        sources: whose pictures are judged; empty for all.
        worlds: the world of a source by the source's name, where no recipe.json of `wm data make` lies beside the data.
    """

    seed: NonNegativeInt = 0
    fit_frames: _AtLeastTwo = 600
    test_episodes: _AtLeastTwo = 20
    frames_per_episode: Annotated[int, Field(ge=4)] = 16
    goals_per_episode: PositiveInt = 4
    time_window: PositiveInt = 1
    drawn_episodes: PositiveInt = 4
    drawn_states: _AtLeastTwo = 12
    fresh_states: Annotated[int, Field(ge=0)] = 12
    sources: Annotated[tuple[str, ...], Field(strict=False)] = ()
    worlds: dict[str, WorldConfig] = {}
