"""Planning problems: drawn once, saved, and shared by every checkpoint and planner."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from wm.config.errors import UserError
from wm.contracts import Source, World
from wm.data.atomic import atomic_file
from wm.types import Problem

_DRAWS_PER_PROBLEM = 200


def dataset_problems(
    world: World,
    sources: Mapping[str, Source],
    held_out: Sequence[tuple[str, int]],
    *,
    count: int,
    goal_horizon: int,
    frameskip: int,
    seed: int,
) -> list[Problem]:
    """Starts from held-out episodes; the goal is where their own actions lead in the world, goal_horizon model steps later.

    The actions are replayed in the simulator, as the reference does, so that the goal is reachable. A start that already
    satisfies its goal is drawn again: it would measure nothing (the reference keeps those).
    """
    steps = goal_horizon * frameskip
    episodes = [(name, index) for name, index in held_out if sources[name].episode(index).state is not None]
    if not episodes:
        raise UserError("plan.problems: no held-out episode has states; say plan.problems=random")
    starts = [(name, index, start) for name, index in episodes for start in range(sources[name].lengths[index] - steps)]
    if not starts:
        longest = max(sources[name].lengths[index] for name, index in episodes)
        raise UserError(
            f"evaluate.grid.goal_horizons: {goal_horizon} model steps at frameskip {frameskip} need {steps + 1} env steps, but the "
            f"longest held-out episode has {longest}"
        )
    rng = np.random.default_rng([seed, goal_horizon])
    problems: list[Problem] = []
    for position in rng.permutation(len(starts))[: count * _DRAWS_PER_PROBLEM]:
        name, index, start = starts[int(position)]
        episode = sources[name].episode(index)
        if episode.state is None or episode.actions is None:
            continue
        actions = episode.actions[start : start + steps].astype(np.float64)
        state = episode.state[start, _columns(sources[name], world)]
        layout = _layout(world, episode.tags) or world.layout  # data that record none leave it as configured
        try:
            world.set_layout(layout)
            problem = _replay(world, f"{episode.id}@{start}", layout, state, actions, goal_horizon)
        except ValueError as error:
            raise UserError(
                f"plan.problems: world '{world.name}' cannot take up {episode.id} at step {start} ({error}); say plan.problems=random"
            ) from error
        if not world.success(problem.state_0, problem.state_g):
            problems.append(problem)
        if len(problems) == count:
            return problems
    if not problems:
        tried = min(len(starts), count * _DRAWS_PER_PROBLEM)
        raise UserError(
            f"plan.problems: in none of {tried} starts of held-out episodes do the recorded actions lead away from where they "
            "began; record data in which something moves, or say plan.problems=random"
        )
    raise UserError(
        f"plan.episodes: the held-out episodes give only {len(problems)} problems, not {count}; plan.episodes={len(problems)}"
    )


def random_problems(world: World, *, count: int, goal_horizon: int, seed: int) -> list[Problem]:
    """Two states drawn by the world, each rendered after a reset; `goal_horizon` only names the budget."""
    problems: list[Problem] = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        layout = world.sample_layout(rng)
        world.set_layout(layout)
        start, goal = world.sample_problem(rng)
        frames, proprios = zip(*(_look(world, state) for state in (start, goal)), strict=True)
        problems.append(
            Problem(
                id=f"{world.name}/random/{number}",
                layout=dict(layout),
                state_0=start,
                state_g=goal,
                frame_0=frames[0],
                frame_g=frames[1],
                goal_horizon=goal_horizon,
                proprio_0=proprios[0],
                proprio_g=proprios[1],
            )
        )
    return problems


def save_problems(path: Path, problems: Sequence[Problem]) -> None:
    """One npz without pickles, atomically."""
    arrays: dict[str, np.ndarray] = {}
    heads: list[dict[str, object]] = []
    for number, problem in enumerate(problems):
        heads.append({"id": problem.id, "layout": dict(problem.layout), "goal_horizon": problem.goal_horizon})
        for key in ("state_0", "state_g", "frame_0", "frame_g", "proprio_0", "proprio_g", "gt_actions"):
            value = getattr(problem, key)
            if value is not None:
                arrays[f"{number}/{key}"] = value
    arrays["problems"] = np.frombuffer(json.dumps(heads).encode(), dtype=np.uint8)
    with atomic_file(path) as partial, partial.open("wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **arrays)


def load_problems(path: Path) -> list[Problem]:
    """The inverse of `save_problems`. Raises UserError when the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as saved:
            heads = json.loads(saved["problems"].tobytes().decode())
            return [
                Problem(
                    **head, **{key.split("/", 1)[1]: saved[key] for key in saved.files if key.startswith(f"{number}/")}
                )
                for number, head in enumerate(heads)
            ]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: unreadable problems ({error}); delete the file and run again") from error


def _columns(source: Source, world: World) -> list[int]:
    """Where the world's state is in the source's; data may record more of it (the inverse masses of particles).

    Vectors of one size are the same by their order. Raises UserError naming what the source lacks.
    """
    theirs, ours = source.state_names, world.state_names
    if len(theirs) == len(ours):
        return list(range(len(ours)))
    lacking = [name for name in ours if name not in theirs]
    if lacking:
        raise UserError(
            f"plan.problems: data.sources.{source.name} has no {', '.join(lacking[:6])}, which world '{world.name}' needs; "
            f"say plan.problems=random"
        )
    return [theirs.index(name) for name in ours]


def _layout(world: World, tags: Mapping[str, float]) -> dict[str, float]:
    """The tags that are the world's layout; others tell of the demonstration. `row_12` is one with the world's `row_3`."""
    kinds = {key.rstrip("0123456789") for key in world.layout}
    return {key: value for key, value in tags.items() if key.rstrip("0123456789") in kinds}


def _replay(
    world: World, name: str, layout: Mapping[str, float], state: np.ndarray, actions: np.ndarray, goal_horizon: int
) -> Problem:
    state_0 = state.astype(np.float64)
    frame_0, proprio_0 = _look(world, state_0)
    for action in actions:
        world.step(action)
    return Problem(
        id=name,
        layout=dict(layout),
        state_0=state_0,
        state_g=world.state.copy(),
        frame_0=frame_0,
        frame_g=world.render(),
        goal_horizon=goal_horizon,
        proprio_0=proprio_0,
        proprio_g=world.proprio.copy(),
        gt_actions=actions,
    )


def _look(world: World, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(frame, proprio) at a state; the world stays there."""
    world.reset_to(state)
    return world.render(), world.proprio.copy()
