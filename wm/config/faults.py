"""What pydantic found wrong, in words a person can act on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from pydantic import ValidationError

from wm.config.base import Config
from wm.config.errors import nearest


def explain(error: ValidationError, tree: Mapping[str, Any], section: str = "") -> list[str]:
    """One line per fault: the path, what was expected, the value.

    Args:
        tree: what was validated.
        section: the path of what was validated.
    """
    lines: list[str] = []
    for fault in error.errors():
        path = ".".join([*([section] if section else []), *_without_tags(fault["loc"], tree)])
        kind, context, shown = fault["type"], fault.get("ctx", {}), fault["input"]
        if kind == "union_tag_invalid":
            valid = str(context["expected_tags"]).replace("'", "").split(", ")
            lines.append(f"{path}.kind: unknown kind {context['tag']!r}.{nearest(str(context['tag']), valid)}")
            continue
        if kind in ("missing", "union_tag_not_found"):
            wanted = path if kind == "missing" else f"{path}.kind"
            lines.append(f"{wanted}: must be given")
            continue
        if kind == "extra_forbidden":
            lines.append(f"{path}: no such setting")
            continue
        message = fault["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:] if message.startswith("Input ") else message
        value = "" if isinstance(shown, Mapping | Config) else f" (got {shown!r})"
        lines.append(f"{path}: {message}{value}" if path else f"{message}{value}")
    return lines


def _without_tags(loc: tuple[int | str, ...], tree: Any) -> list[str]:
    """Pydantic puts the kind of a union into the location; a path has no such step."""
    steps: list[str] = []
    for step in loc:
        node: Any = tree
        if isinstance(node, Mapping) and step not in node and step == cast(Mapping[str, Any], node).get("kind"):
            continue
        steps.append(str(step))
        tree = cast(Mapping[str, Any], node).get(str(step)) if isinstance(node, Mapping) else None
    return steps
