"""Layers of path -> value maps, merged into one valid ExperimentConfig.

defaults < preset < spec < case < run < trial < CLI. Kinds are resolved first: a value that the final kind lacks is dropped
when it comes from a lower layer than the kind, and refused otherwise. Shared keys survive a change of kind.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, cast, get_args, get_origin

from pydantic import ValidationError

from wm.config.base import Config
from wm.config.errors import UserError, nearest
from wm.config.experiment import ExperimentConfig
from wm.config.faults import explain
from wm.config.yaml import read_yaml

PRESETS = Path(__file__).parent / "presets"


@dataclass(frozen=True)
class Layer:
    """One source of values, flat: `{"train.epochs": 20}`. `name` appears in errors."""

    name: str
    values: Mapping[str, Any]

    @staticmethod
    def from_tree(name: str, tree: Mapping[str, Any]) -> Layer:
        """From nested mappings and dotted keys, which may be mixed."""
        flat: dict[str, Any] = {}
        for path, value in _flatten(tree, ""):
            if path in flat:
                raise UserError(f"{path}: given twice in the {name}")
            flat[path] = value
        for path in flat:
            if f"{path}.kind" in flat:  # `model.proprio: none` says the kind already
                raise UserError(f"{path}.kind: given twice in the {name}")
        return Layer(name, flat)


class _Entry(NamedTuple):
    rank: int
    layer: str
    value: Any
    authority: (
        int  # as a kind: the rank below which it drops other values. A preset has that of the layer that named it
    )


_Entries = dict[str, list[_Entry]]  # path below the current node -> entries, lowest rank first


def preset_layer(variant: str) -> Layer:
    """The values of a shipped variant, or of a YAML file. Raises UserError for an unknown name."""
    path = Path(variant) if variant.endswith(".yaml") else PRESETS / f"{variant}.yaml"
    if not path.is_file():
        known = nearest(variant, variant_names())
        raise UserError(f"model.variant: unknown variant '{variant}' (a shipped one, or a .yaml file).{known}")
    return Layer.from_tree(f"preset '{variant}'", read_yaml(path))


def variant_names(kind: Literal["dino_wm", "shortcut"] | None = None) -> list[str]:
    """Every shipped variant, or those of one `model.kind`."""
    presets = {path.stem: path for path in PRESETS.glob("*.yaml")}
    return sorted(n for n, path in presets.items() if kind in (None, read_yaml(path).get("model.kind", "dino_wm")))


def resolve(layers: Iterable[Layer]) -> ExperimentConfig:
    """Merge layers, lowest first, over the preset they name, into a config. Raises UserError with one line per fault."""
    given = list(layers)
    variant: Any = "baseline"
    named_at = 0
    for rank, layer in enumerate(given, start=1):
        if "model.variant" in layer.values:
            variant, named_at = layer.values["model.variant"], rank
    return _merge([preset_layer(str(variant)), *given], named_at)


def _merge(layers: list[Layer], named_at: int) -> ExperimentConfig:
    """The preset first: its kinds have the authority of the layer that named it."""
    entries: _Entries = {}
    for rank, layer in enumerate(layers):
        for path, value in layer.values.items():
            entries.setdefault(path, []).append(_Entry(rank, layer.name, value, rank or named_at))
    tree = _build_section(ExperimentConfig, entries, "")
    try:
        return ExperimentConfig.model_validate(tree)
    except ValidationError as error:
        raise UserError("\n".join(explain(error, tree))) from error


_Section = TypeVar("_Section", bound=Config)


def resolve_section(cls: type[_Section], layers: Iterable[Layer], path: str) -> _Section:
    """Layers of paths below `path` ("" is the top), lowest first, as a config class of its own, by the rules of `resolve`."""
    entries: _Entries = {}
    for rank, layer in enumerate(layers, start=1):
        for key, value in layer.values.items():
            entries.setdefault(key, []).append(_Entry(rank, layer.name, value, rank))
    tree = _build_section(cls, entries, f"{path}." if path else "")
    try:
        return cls.model_validate(tree)
    except ValidationError as error:
        raise UserError("\n".join(explain(error, tree, path))) from error


def with_overrides(config: ExperimentConfig, overrides: Mapping[str, Any]) -> ExperimentConfig:
    """A resolved config with a few paths changed, by the rules of a top layer.

    Where a kind is changed, values that were only the old kind's defaults do not follow: the new kind has its own.
    """
    top = Layer.from_tree("command line", overrides)
    base = dict(Layer.from_tree("saved config", config.model_dump(mode="json")).values)
    for path in top.values:
        section = path.removesuffix(".kind")
        node: Any = config
        for step in section.split("."):
            node = cast(Mapping[str, Any], node).get(step) if isinstance(node, Mapping) else getattr(node, step, None)
        if isinstance(node, Config) and "kind" in type(node).model_fields:
            for name, info in type(node).model_fields.items():
                if name != "kind" and getattr(node, name) == info.default:
                    base = {key: value for key, value in base.items() if not _is_at(key, f"{section}.{name}")}
    saved = Layer("saved config", base)
    if "model.variant" in top.values:
        return resolve([saved, top])
    return _merge([Layer("no preset", {}), saved, top], 0)  # all that a preset said is in the saved config


def _is_at(path: str, section: str) -> bool:
    return path == section or path.startswith(f"{section}.")


def _flatten(tree: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flatten(cast(Mapping[str, Any], value), f"{path}.")
        else:
            yield path, value


def _below(entries: _Entries, name: str) -> tuple[list[_Entry], _Entries]:
    """(entries at `name` itself, entries under it with the prefix removed)."""
    prefix = f"{name}."
    under = {path[len(prefix) :]: found for path, found in entries.items() if path.startswith(prefix)}
    return entries.get(name, []), under


def _build_section(cls: type[Config], entries: _Entries, path: str) -> dict[str, Any]:
    """The explicit values of one config class, as nested dicts."""
    children = {key.split(".", 1)[0] for key in entries}
    for child in sorted(children - set(cls.model_fields)):
        layer = next(found[-1].layer for key, found in entries.items() if key.split(".", 1)[0] == child)
        valid = [f"{path}{name}" for name in cls.model_fields]
        raise UserError(f"{path}{child}: no such setting (in the {layer}).{nearest(f'{path}{child}', valid)}")
    return {
        name: value
        for name in cls.model_fields
        if name in children
        for value in [_build(_annotation(cls, name), *_below(entries, name), f"{path}{name}")]
        if value is not _ABSENT
    }


_ABSENT = object()


def _build(annotation: Any, own: list[_Entry], under: _Entries, path: str) -> Any:
    classes = _section_classes(annotation)
    if classes:
        return _build_kind(classes, own, under, path)
    item = _map_item(annotation)
    if item is not None:
        if own:
            raise UserError(f"{path}: expected named entries, got {own[-1].value!r} (in the {own[-1].layer})")
        if item is Any:  # plain values of whatever depth: `config` of a custom class
            return _nested(under, path)
        names = sorted({key.split(".", 1)[0] for key in under})
        return {name: _build(item, *_below(under, name), f"{path}.{name}") for name in names}
    if under:
        key, found = next(iter(under.items()))
        raise UserError(
            f"{path}.{key}: {path} is a single value and has no settings below it (in the {found[-1].layer})"
        )
    return _frozen(own[-1].value) if own else _ABSENT


def _build_kind(classes: dict[str, type[Config]], own: list[_Entry], under: _Entries, path: str) -> Any:
    for entry in own:  # `model.proprio: none` says the kind
        if "" in classes or not isinstance(entry.value, str):
            raise UserError(f"{path}: expected settings below it, got {entry.value!r} (in the {entry.layer})")
    if "" in classes:
        return _build_section(classes[""], under, f"{path}.")
    kinds = sorted([*under.get("kind", []), *own], key=lambda entry: entry.rank)
    authority = kinds[-1].authority if kinds else -1
    kind = kinds[-1].value if kinds else next(iter(classes))
    if not isinstance(kind, str) or kind not in classes:
        raise UserError(f"{path}.kind: unknown kind {kind!r} (in the {kinds[-1].layer}).{nearest(str(kind), classes)}")
    chosen = classes[kind]
    elsewhere = {name for cls in classes.values() for name in cls.model_fields}
    kept: _Entries = {}
    for key, found in under.items():
        name = key.split(".", 1)[0]
        if name in chosen.model_fields or name not in elsewhere:
            kept[key] = found
            continue
        refused = [entry for entry in found if entry.rank >= authority]
        if refused:
            raise UserError(
                f"{path}.{key}: kind '{kind}' has no such setting (in the {refused[-1].layer})."
                f"{nearest(name, chosen.model_fields)}"
            )
    kept["kind"] = [_Entry(0, "", kind, 0)]
    return _build_section(chosen, kept, f"{path}.")


def _nested(entries: _Entries, path: str) -> dict[str, Any]:
    """Flat paths as the tree they were."""
    tree: dict[str, Any] = {}
    for key, found in sorted(entries.items()):
        *parents, leaf = key.split(".")
        node = tree
        for step in parents:
            below: Any = node.setdefault(step, {})
            if not isinstance(below, dict):
                raise UserError(f"{path}.{key}: is set below a single value (in the {found[-1].layer})")
            node = cast(dict[str, Any], below)
        node[leaf] = found[-1].value
    return tree


@cache
def _hints(cls: type[Config]) -> dict[str, Any]:
    from typing import get_type_hints

    return get_type_hints(cls, include_extras=True)


def _annotation(cls: type[Config], name: str) -> Any:
    return _hints(cls)[name]


def _bare(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def _section_classes(annotation: Any) -> dict[str, type[Config]]:
    """kind -> class for a union or a class with a kind, {"": class} for a plain section, {} for anything else.

    The default kind comes first.
    """
    annotation = _bare(annotation)
    members = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    classes = [m for m in members if isinstance(m, type) and issubclass(m, Config)]
    if len(classes) != len(members):
        return {}
    if len(classes) == 1 and "kind" not in classes[0].model_fields:
        return {"": classes[0]}
    return {str(get_args(_bare(_annotation(cls, "kind")))[0]): cls for cls in classes}


def _map_item(annotation: Any) -> Any:
    annotation = _bare(annotation)
    return get_args(annotation)[1] if get_origin(annotation) is dict else None


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in cast(list[Any], value)) if isinstance(value, list) else value
