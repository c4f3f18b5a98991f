"""Demonstrations of a simulated world, written in the layout that the readers read.

python -m ray_jobs.make_data wall --out DIR --episodes 200      (or: wm data make wall ...)
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wm.build import build_world
from wm.config.errors import UserError, nearest
from wm.config.worlds import WallWorldConfig
from wm.data.atomic import write_json
from wm.data.wall_single import WallSingleWriter
from wm.envs.demonstrations import make_episodes
from wm.envs.policies import RandomPolicy, WanderPolicy

POLICIES = {"wander": WanderPolicy, "random": RandomPolicy}
RECIPE = "recipe.json"  # how the folder was made; without states.pth beside it, the job was interrupted


def make_wall(
    out: Path,
    *,
    episodes: int,
    steps: int,
    frame_size: int,
    layout: str = "fixed",
    policy: str = "wander",
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> bool:
    """Wall episodes in the wall_single layout. Goes on where an interrupted call with the same arguments stopped.

    Returns False when the data set was there already. Raises UserError when the folder holds anything else.
    """
    if policy not in POLICIES:
        raise UserError(f"--policy: unknown policy '{policy}'.{nearest(policy, POLICIES)}")
    if layout not in ("fixed", "random"):
        raise UserError(f"--layout: '{layout}'.{nearest(layout, ('fixed', 'random'))}")
    least_values = (("episodes", episodes, 2), ("steps", steps, 2), ("size", frame_size, 14), ("seed", seed, 0))
    for name, value, least in least_values:
        if value < least:
            raise UserError(f"--{name}: {value} is below {least}")
    recipe = {
        "world": "wall",
        "episodes": episodes,
        "steps": steps,
        "frame_size": frame_size,
        "layout": layout,
        "policy": policy,
        "seed": seed,
    }
    if not _prepare(out, recipe, episodes * steps * frame_size * frame_size * 3):
        return False
    writer = WallSingleWriter(out)
    world = build_world(WallWorldConfig(frame_size=frame_size, layout=layout))  # type: ignore[arg-type]
    states = np.zeros((episodes, steps, 2), np.float32)
    actions = np.zeros((episodes, steps, 2), np.float32)
    walls, doors = np.zeros(episodes, np.float32), np.zeros(episodes, np.float32)
    for index, episode in enumerate(make_episodes(world, POLICIES[policy](), episodes, steps, seed)):
        states[index], actions[index] = episode.states, episode.actions
        walls[index], doors[index] = episode.layout["wall_x"], episode.layout["door_y"]
        if not (out / "obses" / f"episode_{index:03d}.pth").is_file():
            writer.write_frames(index, episode.frames)
        progress(index + 1, episodes)
    writer.finish(states, actions, walls, doors)
    return True


def _prepare(out: Path, recipe: dict[str, object], frame_bytes: int) -> bool:
    """Whether there is work to do."""
    file = out / RECIPE
    if file.is_file():
        found = json.loads(file.read_text(encoding="utf-8"))
        if found != recipe:
            changed = ", ".join(sorted(k for k in recipe if found.get(k) != recipe[k]))
            raise UserError(f"{out}: already holds another data set ({changed} differ); give another --out")
        return not (out / "states.pth").is_file()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: not empty; give --out a new or an empty folder")
    _check_space(out, frame_bytes)
    write_json(file, recipe)
    return True


def _check_space(out: Path, needed: int) -> None:
    existing = next(p for p in (out, *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < needed * 1.05:
        raise UserError(f"{out}: {needed / 2**20:.0f} MiB needed, {free / 2**20:.0f} MiB free on that disk")
