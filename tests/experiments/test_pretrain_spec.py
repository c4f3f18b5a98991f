"""Specs of encoders: what they say, what may be overridden, and the one line that a bad one gets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.pretrain_spec import ENCODERS, PretrainSpec, load_pretrain_spec
from ray_jobs.make_data import is_made
from tests.wm.data.samples import user_error
from wm.config.pretrain import PretrainConfig
from wm.data.clip_index import split_episodes
from wm.encoders.trained import SHIPPED

GOOD: dict[str, Any] = {
    "purpose": "to be read",
    "make": {"wall": {"world": "wall", "episodes": 10, "steps": 20, "size": 28}},
    "config": {"data.sources": {"wall": {"kind": "dino_wm", "path": "wall"}}, "train.epochs": 3},
}
Load = Callable[..., PretrainConfig]


def through_file(tmp_path: Path, changes: dict[str, Any], overrides: tuple[str, ...]) -> tuple[PretrainSpec, Any]:
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps({**GOOD, **changes}))
    return load_pretrain_spec(file, overrides)


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """(changes, overrides) -> the good spec with some keys changed, through a file, resolved."""

    def make(changes: dict[str, Any] | None = None, *overrides: str) -> PretrainConfig:
        spec, top = through_file(tmp_path, changes or {}, overrides)
        return spec.resolve(top)

    return make


@pytest.mark.parametrize("name", sorted(file.stem for file in ENCODERS.glob("*.yaml")))
def test_every_shipped_spec_resolves_and_its_recipes_can_be_made(name: str, tmp_path: Path) -> None:
    spec, overrides = load_pretrain_spec(name)
    config = spec.resolve(overrides)
    assert spec.licence
    assert PretrainConfig.model_validate_json(config.model_dump_json()) == config, "so it reaches the workers"
    reads = config.as_experiment
    assert type(reads).model_validate_json(reads.model_dump_json()).model_dump() == reads.model_dump()
    for recipe in spec.make.values():
        arguments = recipe.model_dump(exclude={"world", "size", "settings"})
        # Bad arguments are refused before anything is looked at.
        assert not is_made(recipe.world, tmp_path, **arguments, frame_size=recipe.size, overrides=recipe.settings)
    if spec.make:
        assert spec.make.keys() == config.data.sources.keys()
        fewest = min(recipe.episodes for recipe in spec.make.values())
        assert all(split_episodes(fewest, config.data.val_fraction, config.data.split_seed)), "one is held out"
    assert len({source.path for source in config.data.sources.values()}) == len(config.data.sources)


def test_an_empty_config_is_that_of_the_class(load: Load) -> None:
    found = load({"config": {"data.sources": {"wall": {"path": "wall"}}}})
    assert found.model_copy(update={"data": PretrainConfig().data}) == PretrainConfig()
    assert found.data.tokens == "online"


def test_the_command_line_stands_above_the_file(load: Load) -> None:
    assert load().train.epochs == 3
    config = load(None, "train.epochs=7", "views.crop=[0.5, 1]", "train.best_metric=null", "encoder.hidden_size=32")
    assert (config.train.epochs, config.views.crop, config.train.best_metric) == (7, (0.5, 1.0), None)
    assert (config.encoder.hidden_size, config.encoder.pretrained) == (32, "none")


def test_recipes_may_be_overridden(tmp_path: Path) -> None:
    spec, _ = through_file(tmp_path, {}, ("make.wall.episodes=4", "make.wall.settings=[policy.std=0.5]"))
    assert spec.make["wall"].episodes == 4
    assert spec.make["wall"].settings == ("policy.std=0.5",)
    assert spec.make["wall"].steps == 20
    assert spec.name == "mine"


@pytest.mark.parametrize(
    ("changes", "overrides", "words"),
    [
        ({"porpose": "x"}, (), "'porpose' is not part of an encoder's spec. Did you mean 'purpose'?"),
        ({"purpose": ""}, (), "purpose: String should have at least 1 character"),
        (
            {"config": {"train.epoch": 3}},
            (),
            "train.epoch: no such setting (in the spec). Did you mean 'train.epochs'?",
        ),
        ({}, ("train.epoch=3",), "train.epoch: no such setting (in the command line). Did you mean 'train.epochs'?"),
        ({}, ("train.epochs=three",), "train.epochs: input should be a valid integer (got 'three')"),
        ({}, ("distillation.teacher_decay.kind=cosin",), "unknown kind 'cosin'"),
        ({}, ("data.sources.wal.path=x", "data.mixture.groups.all=[wall]"), "mixture"),
        ({"config": {}}, (), "data.sources: empty; name at least one"),
        ({"config": "x"}, (), "config: expected settings below it, got 'x'"),
        ({"make": {"wal": GOOD["make"]["wall"]}}, (), "make.wal: data.sources has no 'wal'. Did you mean 'wall'?"),
        ({"make": {"wall": "x"}}, (), "make.wall: expected settings below it"),
        ({"make": {"wall": {"world": "wall", "steps": 3}}}, (), "make.wall.episodes: must be given"),
        ({"make": {"wall": {**GOOD["make"]["wall"], "sise": 3}}}, (), "make.wall.sise: no such setting"),
        ({}, ("make.wal.episodes=3",), "make.wal.episodes: the spec makes no 'wal'. Did you mean 'wall'?"),
        ({}, ("make.wall=3",), "make.wall: expected settings below it"),
        ({}, ("make.wall.episodes=1",), "make.wall.episodes: input should be greater than or equal to 2 (got 1)"),
        ({}, ("purpose=x",), "purpose: a spec's own; change the file"),
        ({}, ("probes.sources=[wal]",), "probes: no source is named 'wal'. Did you mean 'wall'?"),
        ({}, ("encoder.pretrained=shipped",), "encoder.pretrained: shipped, but training starts from random weights"),
        ({}, ("data.tokens=store",), "data.tokens=store reads tokens, and an encoder learns from pictures"),
    ],
)
def test_a_bad_spec_is_one_line(load: Load, changes: dict[str, Any], overrides: tuple[str, ...], words: str) -> None:
    message = user_error(lambda: load(changes, *overrides))
    assert words in message
    assert len(message.splitlines()) == 1


def test_no_such_spec() -> None:
    assert user_error(lambda: load_pretrain_spec("tinny")) == "tinny: no such encoder spec. Did you mean 'tiny'?"


def test_the_shipped_weights_are_of_the_shipped_spec() -> None:
    """Whoever changes the spec trains anew; what is new in the config has a default since."""
    card = (SHIPPED / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "```sh\nwm pretrain-encoder tiny\n```" in card
    said = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", card, re.DOTALL)[0])
    spec, overrides = load_pretrain_spec("tiny")
    now = spec.resolve(overrides).model_dump(mode="json")

    def compare(there: Any, here: Any, path: str) -> None:
        if isinstance(there, dict):
            for key, value in there.items():
                assert key in here, f"{path}{key}"
                compare(value, here[key], f"{path}{key}.")
        else:
            assert here == there, path

    compare(said, now, "")
