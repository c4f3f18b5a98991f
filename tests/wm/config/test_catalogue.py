"""Kinds by name, settings by path, and configs that survive the JSON beside a checkpoint."""

from __future__ import annotations

import json

import pytest

from wm.config.catalogue import choices, config_of, policy_kinds, split_overrides, world_kinds
from wm.config.errors import UserError
from wm.config.policies import ExpertNoisyPolicyConfig
from wm.config.worlds import WallWorldConfig

KINDS = {**world_kinds(), **policy_kinds()}
NEEDED = {"custom": {"target": "my_lab.world:MyWorld"}}


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_default_comes_back_from_its_json(kind: str) -> None:
    config = config_of(KINDS, kind, NEEDED.get(kind, {}), "x", "x")
    assert config.kind == kind
    assert KINDS[kind].model_validate_json(json.dumps(config.model_dump(mode="json"))) == config


def test_settings_by_path() -> None:
    made = config_of(world_kinds(), "wall", {"layout": "random", "shift": "light"}, "world", "WORLD: unknown world")
    assert made == WallWorldConfig(layout="random", shift="light")
    nested = config_of(world_kinds(), "custom", {"target": "a:B", "config.x.y": 2}, "world", "WORLD")
    assert nested.config == {"x": {"y": 2}}


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("wal", {}, "WORLD: unknown world 'wal'. Did you mean 'wall'?"),
        ("wall", {"frame_size": 0}, "world.frame_size: input should be greater than or equal to 1 (got 0)"),
        ("wall", {"frame_size": "big"}, "world.frame_size: input should be a valid integer (got 'big')"),
        ("linear", {"layout": "fixed"}, "world.layout: no such setting (in the command line). Valid: "),
        ("custom", {}, "world.target: must be given"),
    ],
)
def test_mistakes_get_one_line(kind: str, values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as raised:
        config_of(world_kinds(), kind, values, "world", "WORLD: unknown world")
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_choices_and_overrides() -> None:
    assert choices(WallWorldConfig, "shift") == ("none", "light", "colours", "background", "agent_size")
    assert choices(WallWorldConfig, "frame_size") == choices(ExpertNoisyPolicyConfig, "shift") == ()
    given = [("world.config.x", 1), ("policy.std", 0.5)]
    assert split_overrides(given, ("world", "policy")) == {"world": {"config.x": 1}, "policy": {"std": 0.5}}
    for wrong in ("std", "plan.x", "world.", "world"):
        with pytest.raises(UserError, match=r"expected world\.FIELD=VALUE or policy\.FIELD=VALUE"):
            split_overrides([(wrong, 1)], ("world", "policy"))
