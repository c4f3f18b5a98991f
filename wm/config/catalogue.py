"""The kinds of a union of config classes, and one of them from its name and some overrides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

from wm.config.base import Config
from wm.config.data import SourceConfig
from wm.config.errors import UserError, nearest
from wm.config.policies import PolicyConfig
from wm.config.resolve import Layer, resolve_section
from wm.config.worlds import WorldConfig


def kinds_of(union: Any) -> dict[str, type[Config]]:
    """kind -> class, in the order of the union.

    Args:
        union: `Annotated[A | B, ...]` of config classes with a `kind`.
    """
    members = get_args(get_args(union)[0]) or (get_args(union)[0],)
    return {member.model_fields["kind"].default: member for member in members}


def world_kinds() -> dict[str, type[Config]]:
    """Every kind of world."""
    return kinds_of(WorldConfig)


def policy_kinds() -> dict[str, type[Config]]:
    """Every kind of policy."""
    return kinds_of(PolicyConfig)


def source_kinds() -> dict[str, type[Config]]:
    """Every kind of episode source."""
    return kinds_of(SourceConfig)


def choices(cls: type[Config], field: str) -> tuple[str, ...]:
    """What a `Literal` field of a config class may be; empty when there is no such field or it is no list of words."""
    info = cls.model_fields.get(field)
    if info is None or get_origin(info.annotation) is not Literal:
        return ()
    return tuple(str(value) for value in get_args(info.annotation))


def config_of(kinds: Mapping[str, type[Config]], kind: str, values: Mapping[str, Any], path: str, what: str) -> Any:
    """The config of a kind with some of its settings changed.

    Args:
        values: settings by their path below `path`.
        path: of the section, for messages: `world`.
        what: how a person was asked for the kind: `--policy: unknown policy`.

    Raises:
        UserError: unknown kind, unknown setting, impossible value; with the nearest name.
    """
    if kind not in kinds:
        raise UserError(f"{what} '{kind}'.{nearest(kind, kinds)}")
    return resolve_section(kinds[kind], [Layer.from_tree("command line", {**values, "kind": kind})], path)


def split_overrides(given: Iterable[tuple[str, Any]], sections: Iterable[str]) -> dict[str, dict[str, Any]]:
    """`world.shift`, `policy.std` -> section -> path below it -> value. Raises UserError for another section."""
    found: dict[str, dict[str, Any]] = {section: {} for section in sections}
    for path, value in given:
        section, _, rest = path.partition(".")
        if section not in found or not rest:
            raise UserError(f"{path}: expected {' or '.join(f'{name}.FIELD=VALUE' for name in found)}")
        found[section][rest] = value
    return found
