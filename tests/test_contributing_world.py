"""CONTRIBUTING's world, as it stands on the page: written to a folder outside, held to the contract, recorded."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from ray_jobs.make_data import make_data
from tests.contracts import test_world as contract
from tests.wm.data.samples import user_error
from wm.build import build_env, build_policy, build_world
from wm.config.experiment import ExperimentConfig
from wm.config.resolve import Layer, resolve
from wm.config.worlds import CustomWorldConfig
from wm.config.yaml import read_yaml
from wm.contracts import World

PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
CODE = re.findall(r"<!-- run world: (\S+) -->\n```python\n(.*?)```", PAGE, re.DOTALL)
SPEC = re.findall(r"<!-- run world -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's module, in a package on the Python path."""
    ((place, code),) = CODE
    file = tmp_path / place
    file.parent.mkdir()
    file.write_text(code, encoding="utf-8")
    (tmp_path / "my_lab" / "__init__.py").touch()  # torch.package cannot look into a namespace
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("my_lab", "my_lab.world"):  # of another test, and not for the next
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]
    return file


@pytest.fixture
def config(module: Path, tmp_path: Path) -> CustomWorldConfig:
    (text,) = SPEC
    (tmp_path / "spec.yaml").write_text(text, encoding="utf-8")
    resolved: ExperimentConfig = resolve([Layer.from_tree("page", read_yaml(tmp_path / "spec.yaml"))])
    assert isinstance(resolved.plan.world, CustomWorldConfig)
    return resolved.plan.world


def test_it_keeps_the_contract(config: CustomWorldConfig) -> None:
    def make() -> World:
        return build_world(config)

    assert isinstance(make(), World)
    assert make().friction == 0.02  # type: ignore[attr-defined]
    asked = 0
    for name, check in vars(contract).items():
        if not name.startswith("test_"):
            continue
        needs = check.__code__.co_varnames[: check.__code__.co_argcount]
        given: dict[str, Any] = {"make": make, "world": _ready(make), "sample": contract.Sample(make)}
        for bad in (np.nan, np.inf) if "bad" in needs else (None,):
            check(**{need: bad if need == "bad" else given[need] for need in needs})
            asked += 1
    assert asked >= 18


def _ready(make: Callable[[], World]) -> World:
    world = make()
    world.reset_to(world.sample_problem(np.random.default_rng(0))[0])
    return world


def test_gymnasium_takes_it(config: CustomWorldConfig) -> None:
    check_env(build_env(config), skip_render_check=True)


def test_its_expert_solves_it(config: CustomWorldConfig) -> None:
    world, expert = build_world(config), build_policy("expert", config)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        expert.reset(world, rng)
        for _ in range(80):
            world.step(expert.act(world, rng))
        assert world.success(world.state, expert.goal)  # type: ignore[attr-defined]


def test_a_layout_of_other_sizes_is_refused(config: CustomWorldConfig, tmp_path: Path) -> None:
    overrides = [f"world.target={config.target}", f"world.expert={config.expert}", "world.config.friction=0.02"]
    given: dict[str, Any] = {"episodes": 2, "steps": 60, "frame_size": 64, "policy": "expert", "overrides": overrides}
    message = user_error(lambda: make_data("custom", tmp_path / "out", **given, format="point_maze", actors=0))
    assert message == "--format point_maze: holds 2 actions and 4 state entries, but world 'custom' has 1 and 2"


@pytest.mark.slow
def test_it_is_recorded_for_lerobot(config: CustomWorldConfig, tmp_path: Path) -> None:
    overrides = [f"world.target={config.target}", f"world.expert={config.expert}", "world.config.friction=0.02"]
    made = make_data(
        "custom", tmp_path / "rail", episodes=2, steps=80, frame_size=64, policy="expert", overrides=overrides, actors=0
    )
    assert "success of policy 'expert': 2 of 2 (100%)" in made.notes
    info = json.loads((tmp_path / "rail" / "meta" / "info.json").read_text())
    assert info["features"]["action"]["names"] == ["acceleration"]
    assert (info["total_episodes"], info["total_frames"], info["fps"]) == (2, 160, 10)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("    def restore(", "    def restored(", "is no world: it has no restore"),
        ("class RailWorld", "class Rail", "has no 'RailWorld'"),
        ("import numpy", "import numpie", "cannot be imported"),
        ("frame_size, friction=0.0", "size, friction=0.0", "failed: TypeError"),
        ("self.frame_size = frame_size", "self.frame_size = 32", "frame_size must be the 64 it was made with, got 32"),
        (
            'proprio_names = ("x", "v")',
            'proprio_names = ("x",)',
            "start must be float64 (1,), as its names say, got float64 (2,)",
        ),
        ("not np.isfinite(array).all()", "False", "step must raise ValueError for NaN"),
        (
            "np.array([-2.0]), np.array([2.0])",
            "-2.0, 2.0",
            "action_low must be float64 (1,), as its names say, got float",
        ),
        ("255, np.uint8)", "1.0)", "render must give uint8 (64, 64, 3), got float64 (64, 64, 3)"),
        ("< 0.05", "< 0.0", "a goal must be a success of distance 0 from itself"),
        ("[start, 0.0]", "[start, np.nan]", "sample_problem's start must be finite"),
        (
            "        self._x, self._v = x, v\n",
            "        1 / 0\n",
            "trying it failed: ZeroDivisionError: division by zero",
        ),
        ("        return self.state\n", "", "what step returns must be float64 (2,), as its names say, got NoneType"),
    ],
)
def test_a_broken_world_gets_one_line(config: CustomWorldConfig, module: Path, old: str, new: str, words: str) -> None:
    text = module.read_text()
    assert old in text
    module.write_text(text.replace(old, new, 1))
    message = user_error(lambda: build_world(config))
    assert message.startswith("world.target: ")
    assert words in message
    assert "\n" not in message


def test_a_broken_expert_gets_one_line(config: CustomWorldConfig, module: Path) -> None:
    module.write_text(module.read_text().replace("    def act(", "    def acts("))
    assert "is no policy: it has no act" in user_error(lambda: build_policy("expert", config))
    sized = config.model_copy(update={"config": {"frame_size": 3}})
    assert "world.config.frame_size" in user_error(lambda: build_world(sized))


def test_the_places_that_the_page_names_exist() -> None:
    section = PAGE[PAGE.index("**A world** from outside") : PAGE.index("**An encoder** from outside")]
    named = set(re.findall(r"`((?:wm|tests|ray_jobs)/[\w/.]+)`", section))
    assert len(named) >= 6
    for path in named:
        assert (Path(__file__).parents[1] / path).exists(), path
