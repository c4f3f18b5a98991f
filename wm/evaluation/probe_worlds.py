"""Which world a source's episodes are from, so that it can measure distances and draw their states again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from wm.config.catalogue import choices
from wm.config.errors import UserError, nearest
from wm.config.probes import ProbesConfig
from wm.config.worlds import WorldConfig
from wm.contracts import World
from wm.data.dataset import Dataset
from wm.data.writers.writer import EPISODES, RECIPE
from wm.evaluation.state_targets import is_velocity

BuildWorld = Callable[[WorldConfig], World]  # wm.build.build_world


@dataclass(frozen=True)
class ProbeWorld:
    """The world of a source.

    Args:
        layouts: of each episode, as recorded beside the data; empty where the source's own tags must do.
    """

    config: WorldConfig
    layouts: Sequence[Mapping[str, float]] = ()

    @property
    def shifts(self) -> tuple[str, ...]:
        """The named shifts that it can be drawn under, but for its own."""
        own = getattr(self.config, "shift", "none")
        return tuple(shift for shift in choices(type(self.config), "shift") if shift not in ("none", own))

    def shifted(self, shift: str) -> WorldConfig:
        """The same world under a shift."""
        return self.config.model_copy(update={"shift": shift})

    def put_layout(self, world: World, episode: int, tags: Mapping[str, float]) -> None:
        """Sets an episode's layout: its tags, or what was recorded beside the data; where neither says one, as configured.

        Raises:
            ValueError: the world refuses it.
        """
        kinds = {key.rstrip("0123456789") for key in world.layout}
        recorded = {**(self.layouts[episode] if self.layouts else {}), **tags}
        layout = {key: value for key, value in recorded.items() if key.rstrip("0123456789") in kinds}
        if layout:
            world.set_layout(layout)


def probe_worlds(dataset: Dataset, config: ProbesConfig) -> tuple[dict[str, ProbeWorld], dict[str, str]]:
    """The world of each source, by `config.worlds` or the recipe beside the data; and why, where there is none.

    Raises:
        UserError: `config` names a source that the data set lacks.
    """
    for field, names in (("worlds", config.worlds), ("sources", config.sources)):
        unknown = next((name for name in names if name not in dataset.sources), None)
        if unknown is not None:
            raise UserError(f"probes.{field}: no source is named '{unknown}'.{nearest(unknown, dataset.sources)}")
    found: dict[str, ProbeWorld] = {}
    reasons: dict[str, str] = {}
    for name in dataset.sources:
        if name in config.worlds:
            found[name] = ProbeWorld(config.worlds[name])
            continue
        folder = dataset.folder_of(name)
        recipe = next((at / RECIPE for at in (folder, folder.parent) if (at / RECIPE).is_file()), None)
        if recipe is None:
            reasons[name] = f"no {RECIPE} beside the data; probes.worlds.{name}=KIND names its world"
            continue
        try:
            world: Any = TypeAdapter(WorldConfig).validate_json(
                json.dumps(json.loads(recipe.read_text(encoding="utf-8"))["world_config"])
            )
        except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
            first = str(error).strip().splitlines()[0][:120]
            reasons[name] = f"{recipe} cannot be read ({first}); probes.worlds.{name}=KIND names its world"
            continue
        found[name] = ProbeWorld(world, _recorded_layouts(recipe.with_name(EPISODES), len(dataset.sources[name])))
    return found, reasons


def world_columns(theirs: Sequence[str], world: World) -> list[int | None]:
    """Where the world's state is in the source's; None for a velocity that the source lacks (it is taken to be 0).

    Vectors of one size are the same by their order.

    Raises:
        ValueError: another entry is missing.
    """
    ours = world.state_names
    if len(theirs) == len(ours):
        return list(range(len(ours)))
    lacking = [name for name in ours if name not in theirs and not is_velocity(name)]
    if lacking:
        raise ValueError(f"its state has no {', '.join(lacking[:4])}, which world '{world.name}' needs")
    return [theirs.index(name) if name in theirs else None for name in ours]


def world_states(states: np.ndarray, columns: Sequence[int | None]) -> np.ndarray:
    """Rows of a source's state (n, S) as the world's, float64."""
    rows = [np.zeros(len(states)) if column is None else states[:, column] for column in columns]
    return np.stack(rows, axis=1).astype(np.float64)


def _recorded_layouts(file: Path, count: int) -> list[Mapping[str, float]]:
    """Of each episode; none where the file is not about as many."""
    try:
        episodes: Any = json.loads(file.read_text(encoding="utf-8"))["episodes"]
        found = {int(each["episode"]): dict(each["layout"]) for each in episodes}
        return [found[index] for index in range(count)] if len(found) >= count else []
    except (OSError, ValueError, KeyError, TypeError):
        return []
