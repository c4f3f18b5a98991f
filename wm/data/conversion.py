"""What a layout can hold of a source, and what it has no place for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from wm.config.errors import UserError
from wm.data.sources.deformable import DeformableSource, particle_names
from wm.data.sources.point_maze import PointMazeSource
from wm.data.sources.pusht_noise import PROPRIO, STATE_NAMES, PushTNoiseSource
from wm.data.sources.robomimic import ARM_NAMES
from wm.data.sources.robomimic_hdf5 import DEMO_TAG, MASK_TAG
from wm.data.sources.wall_single import WallSingleSource
from wm.data.writers.deformable import PARTICLE_SIZE
from wm.data.writers.writer import DatasetFacts

ANY = ("",)  # what every name begins with


class Holds(NamedTuple):
    """What a layout keeps beside frames, actions, proprio and state.

    Args:
        name: for a person.
        tags: of an episode; `mask_` stands for all that begin so, ANY for all.
        fps: the rate; None where the layout tells it, else what its readers take.
        is_exact: whether frames are kept to the bit.
        has_names: of the columns; a robosuite file's follow from its keys and its controller.
        has_tasks: in words.
        has_cameras: more than one.
    """

    name: str
    tags: Collection[str] = ()
    fps: float | None = None
    is_exact: bool = False
    has_names: bool = True
    has_tasks: bool = False
    has_cameras: bool = False


HOLDS = {  # the layouts of given vectors have given names
    "robomimic": Holds("dino_wm's robomimic layout"),
    "wall_single": Holds("wall_single", ("wall_x", "door_y"), WallSingleSource.fps, is_exact=True),
    "point_maze": Holds("point_maze", fps=PointMazeSource.fps, is_exact=True),
    "pusht_noise": Holds("pusht_noise", ("shape",), PushTNoiseSource.fps),
    "deformable": Holds("deformable", fps=DeformableSource.fps, is_exact=True),
    "lerobot": Holds("lerobot", ANY, has_tasks=True, has_cameras=True),
    "robomimic_hdf5": Holds(
        "robomimic's HDF5", ("success", MASK_TAG), is_exact=True, has_names=False, has_cameras=True
    ),
}
_Names = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]  # of actions, proprio, state


def need_layout(layout: str, facts: DatasetFacts) -> None:
    """Raises UserError unless the vectors and tags are exactly those of a layout that has its own.

    Args:
        layout: of HOLDS.
    """
    expected = _expected(layout, facts)
    if expected is None:
        return
    found: _Names = (facts.action_names, facts.proprio_names, facts.state_names)
    for what, wanted, there in zip(("actions", "proprio", "state"), expected, found, strict=True):
        if wanted != there:
            raise UserError(
                f"--layout {layout}: its {what} are ({_listed(wanted)}), those of '{facts.world}' ({_listed(there)})"
            )
    absent = [tag for tag in HOLDS[layout].tags if tag not in facts.layout_names]
    if absent:
        raise UserError(f"--layout {layout}: holds {' and '.join(absent)}, which '{facts.world}' does not tell")


def lost(layout: str, facts: DatasetFacts, has_task: bool, beside: Collection[str]) -> str:
    """What a layout has no place for of this source, as one line.

    Args:
        has_task: whether episodes say in words what is done.
        beside: what else is on disk that was not read, in words.
    """
    holds = HOLDS[layout]
    known = {*holds.tags, DEMO_TAG, "task"}
    begin = tuple({MASK_TAG, *ANY} & known)
    gone = [tag for tag in facts.layout_names if tag not in known and not tag.startswith(begin)]
    if has_task and not holds.has_tasks:
        gone.append("the task in words")
    if not holds.has_names and (facts.proprio_names != ARM_NAMES or facts.env_info is None):
        gone.append("names of columns")
    if holds.fps is not None and holds.fps != facts.fps:
        gone.append(f"the frame rate ({facts.fps} a second; its readers take {holds.fps:g})")
    if not holds.is_exact:
        gone.append("exact frames (its videos are lossy)")
    line = f"{holds.name} has no place for: {', '.join(gone) or 'nothing that is lost'}"
    return line + (f"; not converted: {', '.join(beside)}" if beside else "")


def missing(layout: str, facts: DatasetFacts, has_states: bool) -> list[str]:
    """What readers of the layout look for and this source has not: a line each. Nothing is put in its place."""
    lines: list[str] = []
    if layout == "robomimic":
        if not facts.state_names:
            lines.append("the source has no state: states.pth holds the proprio again")
        elif not facts.proprio_names:
            lines.append("the source has no proprio: there is no proprios.pth, and readers take the state")
    if layout == "robomimic_hdf5":
        lines.append(
            "no rewards, dones, next_obs: robomimic takes the first two as zeros and needs train.hdf5_load_next_obs=false"
        )
        if not has_states:
            lines.append("no simulator states: no rollouts, playback or dataset_states_to_obs in robomimic")
    if layout == "lerobot":
        vectors = {
            "action": facts.action_names,
            "observation.state": facts.proprio_names,
            "observation.environment_state": facts.state_names,
        }
        absent = [name for name, names in vectors.items() if not names]
        if absent:
            lines.append(f"the source has no {', '.join(absent)}: there is no such feature")
    return lines


def _expected(layout: str, facts: DatasetFacts) -> _Names | None:
    classes: dict[str, Any] = {"wall_single": WallSingleSource, "point_maze": PointMazeSource}
    if layout in classes:
        its = classes[layout]
        return its.action_names, its.proprio_names, its.state_names
    if layout == "pusht_noise":
        return PushTNoiseSource.action_names, tuple(STATE_NAMES[index] for index in PROPRIO), STATE_NAMES
    if layout == "deformable":
        particles = particle_names(max(1, len(facts.state_names) // PARTICLE_SIZE))
        return DeformableSource.action_names, DeformableSource.proprio_names, particles
    return None


def _listed(names: Collection[str]) -> str:
    shown = list(names)[:8]
    return ", ".join(shown) + (f", ... {len(names)} in all" if len(names) > len(shown) else "") or "none"
