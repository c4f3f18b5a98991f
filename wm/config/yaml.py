"""YAML in, plain values out. OmegaConf reads it, so that 1e-3 is a number and a repeated key is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from wm.config.errors import UserError, nearest


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file whose top level is a mapping. Raises UserError with the file's name."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not YAML: it is not even text") from error


def find_yaml(path: str | Path, shipped: Path, what: str) -> Path:
    """A file, or the one in the folder `shipped` that has this name. Raises UserError; `what` says of which kind there is none."""
    direct = Path(path)
    if direct.is_file():
        return direct
    known = {file.stem: file for file in shipped.glob("*.yaml")}
    if direct.name == str(path) and direct.stem in known:
        return known[direct.stem]
    raise UserError(f"{path}: no such {what}.{nearest(direct.stem, known)}")


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """YAML text whose top level is a mapping; `where` names it in errors."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        tree = OmegaConf.to_container(OmegaConf.create(text), resolve=True)
    except (YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{where}: not valid YAML: {_one_line(error)}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{where}: expected a mapping of keys to values at the top")
    keyed = cast(dict[Any, Any], tree)
    bad: list[Any] = [key for key in keyed if not isinstance(key, str)]
    if bad:
        raise UserError(f"{where}: key {bad[0]!r} must be text")
    return keyed


def parse_override(text: str) -> tuple[str, Any]:
    """`path=value` -> (path, value); the value is YAML."""
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise UserError(f"'{text}': expected path=value, as in train.epochs=20")
    return path.strip(), parse_yaml(f"value: {value}", f"'{text}'")["value"]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).replace('in "<unicode string>", ', "at ").split())[:300]
