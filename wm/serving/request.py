"""One request for a plan, checked: what the planner then reads cannot surprise it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn, cast

import numpy as np
from pydantic import Field, ValidationError

from wm.config.base import Config, PositiveFloat
from wm.config.errors import nearest
from wm.config.faults import explain
from wm.loaded import LoadedModel
from wm.serving.interface import Interface
from wm.serving.picture import decode_picture
from wm.serving.refused import malformed
from wm.types import Statistics

MAX_SEED = 2**63 - 1
MAX_TIMEOUT_S = 3600.0
MAX_NUMBER = 1e9  # still a float32 after division by the smallest standard deviation
FAR_STD = 10.0  # of the data's standard deviation: proprioception that a person should look at
_LINE = 300  # characters of an error: what was sent may be 16 MiB of text

_Number = Annotated[float, Field(ge=-MAX_NUMBER, le=MAX_NUMBER, allow_inf_nan=False)]


class Body(Config):
    """The JSON of a request, types alone; `request_schema` says what each key means."""

    start: str
    goal: str
    proprio: list[_Number] | None = None
    goal_proprio: list[_Number] | None = None
    warm_start: list[list[_Number]] | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    timeout_s: Annotated[PositiveFloat, Field(le=MAX_TIMEOUT_S)] | None = None


@dataclass(frozen=True)
class PlanRequest:
    """What to plan.

    Args:
        start, goal: frames, uint8 (H, W, 3), RGB.
        proprio, goal_proprio: raw, (Dp,), or None.
        warm_start: raw env actions (k F, A) that the search starts from, or None.
        seed: of the search's noise.
        timeout_s: how long the client waits; None: as long as the server says.
        warnings: what the client should know, a line each.
    """

    start: np.ndarray
    goal: np.ndarray
    proprio: np.ndarray | None
    goal_proprio: np.ndarray | None
    warm_start: np.ndarray | None
    seed: int
    timeout_s: float | None
    warnings: tuple[str, ...]


def read_request(body: bytes, interface: Interface, model: LoadedModel) -> PlanRequest:
    """The request that the bytes of a body make. Raises Refused, with one line, for anything that cannot be planned with."""
    given = _validated(_json_of(body))
    warnings: list[str] = []
    start, goal = (decode_picture(getattr(given, key), key, interface.frame_size) for key in ("start", "goal"))
    if start.shape != goal.shape:
        raise malformed(f"goal: {_size(goal)} pixels (width x height), but start has {_size(start)}")
    if interface.frame_size is None:
        warnings.append("the checkpoint does not say what size of picture it was trained on: nobody checked yours")
    return PlanRequest(
        start=start,
        goal=goal,
        proprio=_proprio(given, "proprio", True, interface, model.statistics.proprio, warnings),
        goal_proprio=_proprio(
            given, "goal_proprio", interface.needs_goal_proprio, interface, model.statistics.proprio, warnings
        ),
        warm_start=_warm_start(given.warm_start, interface),
        seed=given.seed,
        timeout_s=given.timeout_s,
        warnings=tuple(warnings),
    )


def _json_of(body: bytes) -> dict[str, Any]:
    try:
        tree = json.loads(body, parse_constant=_no_number, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        # The decoder's own words are short; those of others may hold what was sent.
        raise malformed(f"the body is not JSON: {_short(error)}") from error
    if not isinstance(tree, dict):
        raise malformed(f"the body must be a JSON object with keys {', '.join(Body.model_fields)}")
    return cast(dict[str, Any], tree)


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")


def _without_repeats(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key '{next(key for key in keys if keys.count(key) > 1)}' is given twice")
    return found


def _validated(tree: dict[str, Any]) -> Body:
    for key in tree:
        if key not in Body.model_fields:
            raise malformed(f"{_short(key, 60)}: no such key.{nearest(key[:60], Body.model_fields)}")
    try:
        return Body.model_validate(tree)
    except ValidationError as error:
        raise malformed(_short(explain(error, tree)[0])) from error


def _proprio(
    given: Body, key: str, is_needed: bool, interface: Interface, statistics: Statistics | None, warnings: list[str]
) -> np.ndarray | None:
    values, names = getattr(given, key), interface.proprio_names
    if not names or statistics is None:
        if values is not None:
            warnings.append(f"{key}: not used, this model takes no proprioception")
        return None
    if values is None:
        if is_needed:
            raise malformed(f"{key}: must be given; {len(names)} numbers, raw: {', '.join(names)}")
        return None
    if len(values) != len(names):
        raise malformed(f"{key}: {len(values)} numbers, expected {len(names)}: {', '.join(names)}")
    raw = np.asarray(values, np.float64)
    away = np.abs(statistics.normalize(raw))
    for number in np.flatnonzero(away > FAR_STD):
        warnings.append(
            f"{key}: {names[number]} = {raw[number]:g} is {away[number]:.0f} standard deviations from the training data's mean; "
            "are its units theirs?"
        )
    return raw


def _warm_start(rows: list[list[float]] | None, interface: Interface) -> np.ndarray | None:
    if not rows:  # a plan that was executed whole leaves nothing
        return None
    size, skip = len(interface.action_names), interface.frameskip
    for number, row in enumerate(rows):
        if len(row) != size:
            raise malformed(
                f"warm_start.{number}: {len(row)} numbers, expected {size}: {', '.join(interface.action_names)}"
            )
    if len(rows) % skip or len(rows) > interface.num_planned:
        raise malformed(
            f"warm_start: {len(rows)} actions, expected a multiple of the frameskip {skip}, at most {interface.num_planned}"
        )
    return np.asarray(rows, np.float64)


def _size(frame: np.ndarray) -> str:
    return f"{frame.shape[1]} x {frame.shape[0]}"


def _short(what: object, length: int = _LINE) -> str:
    text = " ".join(str(what).split())
    return text if len(text) <= length else text[:length] + "..."
