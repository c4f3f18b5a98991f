"""What `wm pretrain-encoder` reads: what an encoder is for, how it is trained, and how its data are made where they are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from wm.config.base import Config, NonNegativeInt, PositiveInt
from wm.config.errors import UserError, nearest
from wm.config.faults import explain
from wm.config.pretrain import PretrainConfig
from wm.config.resolve import Layer, resolve_section
from wm.config.yaml import find_yaml, parse_override, read_yaml

ENCODERS = Path(__file__).parent / "encoders"
_AtLeastTwo = Annotated[int, Field(ge=2)]


class WorldRecipe(Config):
    """Demonstrations of one of our worlds: the arguments of `wm data make`.

    Args:
        settings: `world.FIELD=VALUE`, `policy.FIELD=VALUE`.
    """

    world: str
    episodes: _AtLeastTwo
    steps: _AtLeastTwo
    policy: str | None = None
    layout: str | None = None
    shift: str | None = None
    size: PositiveInt | None = None
    seed: NonNegativeInt = 0
    format: str | None = None
    settings: Annotated[tuple[str, ...], Field(strict=False)] = ()


class PretrainSpec(Config):
    """The file format of experiments/encoders.

    Args:
        purpose: what the encoder is for, in a line.
        config: paths and values of wm.config.pretrain.PretrainConfig.
        make: source -> how to make it where it is not there; sources without a recipe must be there.
        licence: of the weights, for the card.
        limits: what is known to be wrong with the encoder or its data, a line each, for the card.
    """

    name: str
    purpose: Annotated[str, Field(min_length=1)]
    config: dict[str, Any] = {}
    make: dict[str, WorldRecipe] = {}
    licence: str = ""
    limits: Annotated[tuple[str, ...], Field(strict=False)] = ()

    def resolve(self, overrides: Mapping[str, Any] | None = None) -> PretrainConfig:
        """The config, with `overrides` as the top layer. Raises UserError with one line per fault."""
        layers = [Layer.from_tree("spec", self.config), Layer.from_tree("command line", overrides or {})]
        config = resolve_section(PretrainConfig, layers, "")
        sources = config.data.sources
        if not sources:
            raise UserError("data.sources: empty; name at least one, as in data.sources.wall.path=wall")
        for name in self.make:
            if name not in sources:
                raise UserError(f"make.{name}: data.sources has no '{name}'.{nearest(name, sources)}")
        return config


def load_pretrain_spec(path: str | Path, overrides: Sequence[str] = ()) -> tuple[PretrainSpec, dict[str, Any]]:
    """A spec file or a shipped spec's name, and the path=value overrides that belong to the config.

    `make.SOURCE.FIELD=VALUE` overrides a recipe.
    """
    file = find_yaml(path, ENCODERS, "encoder spec")
    tree = read_yaml(file)
    config_overrides: dict[str, Any] = {}
    recipes: dict[str, Any] = {}
    for key, value in map(parse_override, overrides):
        of, _, rest = key.partition(".")
        if of == "make" and rest:
            recipes[rest] = value
        elif of in PretrainSpec.model_fields:
            raise UserError(f"{key}: a spec's own; change the file. Settings are given as in train.epochs=20")
        else:
            config_overrides[key] = value
    unknown = sorted(set(tree) - (set(PretrainSpec.model_fields) - {"name"}))
    if unknown:
        known = [name for name in PretrainSpec.model_fields if name != "name"]
        raise UserError(f"{file}: '{unknown[0]}' is not part of an encoder's spec.{nearest(unknown[0], known)}")
    for key in ("config", "make"):
        if tree.get(key) is None:
            tree[key] = {}
        elif not isinstance(tree[key], Mapping):
            raise UserError(f"{file}: {key}: expected settings below it, got {tree[key]!r}")
    tree["make"] = _recipes(file, tree["make"], recipes)
    try:
        return PretrainSpec.model_validate({"name": file.stem, **tree}), config_overrides
    except ValidationError as error:
        raise UserError("\n".join(f"{file}: {fault}" for fault in explain(error, tree))) from error


def _recipes(file: Path, given: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, WorldRecipe]:
    """Each by the rules of a config section."""
    found = {name: Layer.from_tree("spec", _settings(file, name, recipe)) for name, recipe in given.items()}
    tops: dict[str, dict[str, Any]] = {}
    for key, value in overrides.items():
        name, _, field = key.partition(".")
        if name not in found:
            raise UserError(f"make.{key}: the spec makes no '{name}'.{nearest(name, found)}")
        if not field:
            raise UserError(f"make.{name}: expected settings below it, as in make.{name}.episodes=10")
        tops.setdefault(name, {})[field] = value
    return {
        name: resolve_section(WorldRecipe, [layer, Layer("command line", tops.get(name, {}))], f"make.{name}")
        for name, layer in found.items()
    }


def _settings(file: Path, name: str, recipe: Any) -> Mapping[str, Any]:
    if not isinstance(recipe, Mapping):
        raise UserError(
            f"{file}: make.{name}: expected settings below it, as in {{world: wall, episodes: 100, steps: 50}}"
        )
    return recipe
