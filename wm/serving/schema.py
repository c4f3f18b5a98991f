"""What `GET /schema` says: sizes, names and units, and request and response as JSON Schema."""

from __future__ import annotations

from typing import Any

from wm.serving.interface import Interface
from wm.serving.picture import MAX_SIDE
from wm.serving.request import MAX_NUMBER, MAX_SEED, MAX_TIMEOUT_S

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def interface_schema(interface: Interface) -> dict[str, Any]:
    """Everything that a client must know of the model, as plain values."""
    height, width = interface.frame_size or (None, None)
    takes_proprio = bool(interface.proprio_names)
    return {
        "frame": {"height": height, "width": width, "channels": "RGB, 8 bits each", "formats": ["png", "jpeg"]},
        "proprio": {
            "needed": takes_proprio,
            "goal_needed": interface.needs_goal_proprio,
            "size": len(interface.proprio_names),
            "names": list(interface.proprio_names),
            "units": "raw, as in the training data",
        },
        "action": {
            "size": len(interface.action_names),
            "names": list(interface.action_names),
            "units": "raw env units, as in the training data",
        },
        "frameskip": interface.frameskip,
        "planner": interface.planner,
        "horizon": interface.horizon,
        "execute_steps": interface.execute_steps,
        "num_actions": interface.num_planned,
        "execute": interface.num_executed,
        "request": request_schema(interface),
        "response": response_schema(interface),
        "error": _object({"error": _text("one line"), "status": {"type": "integer"}}, ["error", "status"]),
    }


def request_schema(interface: Interface) -> dict[str, Any]:
    """JSON Schema of the body of `POST /plan`."""
    size = interface.frame_size
    of = f"at most {MAX_SIDE} a side" if size is None else f"{size[1]} x {size[0]} (width x height)"
    names = list(interface.proprio_names)
    proprio: dict[str, Any] = {"type": ["array", "null"], "items": _number()}
    if names:
        proprio |= {"minItems": len(names), "maxItems": len(names), "description": f"raw: {', '.join(names)}"}
    needed = ["start", "goal", *(["proprio"] if names else []), *(["goal_proprio"] * interface.needs_goal_proprio)]
    given = {key: {**proprio, "type": "array"} if key in needed else proprio for key in ("proprio", "goal_proprio")}
    return _object(
        {
            "start": _picture(f"base64 of a PNG or JPEG, RGB, {of}: what the robot sees now"),
            "goal": _picture("the same: what it shall see"),
            **given,
            "warm_start": {
                "type": ["array", "null"],
                "items": _action(interface),
                "maxItems": interface.num_planned,
                "description": f"what is left of the last plan, raw env actions, a multiple of {interface.frameskip}",
            },
            "seed": {"type": "integer", "minimum": 0, "maximum": MAX_SEED, "default": 0},
            "timeout_s": {
                "type": ["number", "null"],
                "exclusiveMinimum": 0,
                "maximum": MAX_TIMEOUT_S,
                "description": "seconds from when the request has been read; default: the server's",
            },
        },
        needed,
        additionalProperties=False,
    )


def response_schema(interface: Interface) -> dict[str, Any]:
    """JSON Schema of the answer to `POST /plan`."""
    unknown = {"type": ["number", "null"]}
    fields: dict[str, Any] = {
        "actions": {
            "type": "array",
            "items": _action(interface),
            "minItems": interface.num_planned,
            "maxItems": interface.num_planned,
            "description": "raw env actions, one for each env step",
        },
        "execute": {"type": "integer", "description": "env steps to execute before asking again"},
        "cost": {**unknown, "description": "of the plan's imagined end against the goal; lower is better; no unit"},
        "cost_per_iteration": {"type": "array", "items": unknown, "description": "of the plan held at each iteration"},
        "start_cost": {**unknown, "description": "the same of the start frame itself: 0 at the goal"},
        "plan_s": {"type": "number", "description": "seconds that the search took, without decoding and encoding"},
        "seed": {"type": "integer"},
        "warnings": {"type": "array", "items": {"type": "string"}},
    }
    return _object(fields, list(fields))


def _object(properties: dict[str, Any], required: list[str], **more: Any) -> dict[str, Any]:
    return {"$schema": _DRAFT, "type": "object", "properties": properties, "required": required, **more}


def _picture(description: str) -> dict[str, Any]:
    return {"type": "string", "contentEncoding": "base64", "description": description}


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


def _number() -> dict[str, Any]:
    return {"type": "number", "minimum": -MAX_NUMBER, "maximum": MAX_NUMBER}


def _action(interface: Interface) -> dict[str, Any]:
    size = len(interface.action_names)
    return {"type": "array", "items": _number(), "minItems": size, "maxItems": size}
