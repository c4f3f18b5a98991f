"""A pickled module's record as the state dict that it would have had."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from wm.config.errors import UserError
from wm.interop.pickles import Record, StoredTensor


def module_state(record: Record, where: Path, part: str) -> dict[str, Tensor]:
    """Parameters and persistent buffers by their dotted names, read from the file.

    Raises UserError for attributes that no module has, or tensors that add up to more than the file.
    """
    stored = _stored(record, f"{where}: {part}")
    claimed = sum(prod(tensor.size) * tensor.storage.dtype.itemsize for tensor in stored.values())
    if claimed > where.stat().st_size:
        raise UserError(f"{where}: refused: the tensors of '{part}' add up to more bytes than the file has")
    return {name: tensor.load() for name, tensor in stored.items()}


def attribute(record: Record, path: str, where: str) -> Any:
    """An attribute below a module's record, as `transformer.layers.0.0.heads`. Raises UserError when it is not there."""
    node = record
    *parents, last = path.split(".")
    for step in parents:
        node = _children(node).get(step)
        if node is None:
            raise UserError(f"{where}: its {record.name} has no '{path}'")
    if last not in node.state:
        raise UserError(f"{where}: its {record.name} has no '{path}'")
    return node.state[last]


def _stored(record: Record, where: str) -> dict[str, StoredTensor]:
    """Walks the tree of modules; each is visited once, as a crafted file may share them without end."""
    found: dict[str, StoredTensor] = {}
    seen: set[int] = set()
    waiting = [("", record)]
    while waiting:
        prefix, module = waiting.pop(0)
        if id(module) in seen:
            continue
        seen.add(id(module))
        hidden = module.state.get("_non_persistent_buffers_set", set())
        for group in ("_parameters", "_buffers"):
            for name, value in _mapping(module, group).items():
                if value is None or (group == "_buffers" and name in hidden):
                    continue
                if not isinstance(value, StoredTensor):
                    raise UserError(f"{where}: {prefix}{name} is no tensor")
                found[f"{prefix}{name}"] = value
        waiting += [(f"{prefix}{name}.", child) for name, child in _children(module).items()]
    return found


def _children(module: Record) -> dict[str, Record]:
    """Its submodules; a missing one (None) has no parameters."""
    return {name: child for name, child in _mapping(module, "_modules").items() if isinstance(child, Record)}


def _mapping(module: Record, group: str) -> dict[str, Any]:
    value = module.state.get(group, {})
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}
