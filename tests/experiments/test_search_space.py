"""Search spaces: every corner of the shipped ones resolves, and a bad one gets one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.search_space import SPACES, SearchSpace, check_space, load_space, value_at_path
from experiments.spec import SPECS, Spec, load_spec
from wm.config.errors import UserError
from wm.config.experiment import ExperimentConfig
from wm.config.resolve import Layer, resolve


def number(kind: str, low: Any, high: Any, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "low": low, "high": high, **more}


def choice(*values: Any, **more: Any) -> dict[str, Any]:
    return {"kind": "choice", "values": list(values), **more}


EPOCHS = {"train.epochs": number("int", 1, 3)}
LR = "train.optimizer.predictor_lr"


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., SearchSpace]:
    def make(**changes: Any) -> SearchSpace:
        file = tmp_path / "space.yaml"
        good = {"base": "align_recon", "objectives": {"plan/success_rate_gh5": "max"}, "space": EPOCHS}
        file.write_text(json.dumps({**good, **changes}))
        return load_space(file)

    return make


@pytest.fixture(scope="module")
def spec() -> Spec:
    return load_spec("align_vs_align_recon")[0]


@pytest.mark.parametrize("name", sorted(file.stem for file in SPACES.glob("*.yaml")))
def test_every_corner_of_every_shipped_space_resolves(name):
    space = load_space(name)
    shipped = [load_spec(file.stem)[0] for file in SPECS.glob("*.yaml")]
    plans = next(iter(space.objectives)).startswith("plan/")
    searchable = [s for s in shipped if space.base in s.runs and (not plans or s.metric.startswith("plan/"))]
    assert searchable, f"no shipped spec has the run '{space.base}' and what is asked of it"
    for spec in searchable:
        config = check_space(space, spec)
        assert config.model.variant == space.base
        corners = list(space.corners(config))
        assert len(corners) >= 4
        for path in space.space:
            assert any(path in corner for corner in corners), path


def test_the_goal_horizon_is_never_searched():
    """Fault: a search over it would pick the easiest."""
    for file in SPACES.glob("*.yaml"):
        assert not [path for path in load_space(file.stem).space if "goal_horizon" in path]


def test_a_corner_holds_only_what_its_conditions_allow(load, spec):
    kind, temperature = "model.alignment.kind", "model.alignment.temperature"
    space = load(
        space={
            kind: choice("infonce", "state_mse"),
            temperature: number("loguniform", 0.1, 1, when={kind: ["infonce"]}),
        }
    )
    assert list(space.corners(check_space(space, spec))) == [
        {kind: "infonce", temperature: 0.1},
        {kind: "infonce", temperature: 1.0},
        {kind: "state_mse"},
    ]


def test_a_condition_on_what_is_not_searched_looks_at_the_base(load, spec):
    met = load(space={"train.epochs": number("int", 1, 3, when={"model.variant": ["align_recon"]})})
    unmet = load(space={"train.epochs": number("int", 1, 3, when={"model.variant": ["align"]})})
    base = check_space(met, spec)
    assert [len(list(space.corners(base))) for space in (met, unmet)] == [2, 1]


def test_bounds_may_be_other_values(load, spec):
    horizon, steps = "plan.planner.horizon", "plan.execute_steps"
    space = load(space={horizon: number("int", 3, 6), steps: number("int", 1, {"ref": horizon})})
    base = check_space(space, spec)
    assert {(c[horizon], c[steps]) for c in space.corners(base)} == {(3, 1), (3, 3), (6, 1), (6, 6)}
    assert space.bounds(steps, {horizon: 4}, base) == (1, 4)
    assert space.bounds(steps, {}, base) == (1, base.plan.planner.horizon)
    # Where the two ends meet there is one value.
    one = load(space={horizon: number("int", 1, 2), steps: number("int", 1, {"ref": horizon})})
    assert len(list(one.corners(base))) == 3


def test_real_ranges_have_real_ends(load, spec):
    low, high = load(space={LR: number("uniform", 1, 2)}).bounds(LR, {}, check_space(load(), spec))
    assert (type(low), type(high)) == (float, float)


def test_values_that_are_lists(load, spec):
    keys = "model.alignment.state_keys"
    condition = number("int", 1, 3, when={keys: [["agent", "door"]]})
    space = load(space={keys: choice(["agent", "door"], ["agent"]), "train.epochs": condition})
    assert len(list(space.corners(check_space(space, spec)))) == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base": None}, "base"),
        ({"spaces": {}}, "spaces: no such setting"),
        ({"space": {}}, "space: Dictionary should have at least 1 item"),
        ({"objectives": {}}, "objectives: Dictionary should have at least 1 item"),
        (
            {"objectives": {"val/copy_ratio_h5": "least"}},
            "objectives.val/copy_ratio_h5: input should be 'max' or 'min' (got 'least')",
        ),
        ({"prune_on": {"val/copy_ratio_h5": "min", "val/copy_ratio_h1": "min"}}, "prune_on"),
        ({"space": {"train.epochs": number("whole", 1, 3)}}, "'whole'"),
        ({"space": {"train.epochs": number("int", 1, 3, step=2)}}, "space.train.epochs.step: no such setting"),
        ({"space": {"train.epochs": number("int", 3, 3)}}, "empty range: low 3, high 3"),
        ({"space": {"train.epochs": number("int", 4, 3)}}, "empty range: low 4, high 3"),
        ({"space": {"train.epochs": number("int", 1.0, 3)}}, "an int range needs whole bounds, got 1.0"),
        ({"space": {"train.epochs": number("int", 1, 2.5)}}, "an int range needs whole bounds, got 2.5"),
        ({"space": {"train.epochs": number("int", 1, "x")}}, "expected a finite number or {ref: path}, got 'x'"),
        ({"space": {LR: number("uniform", 0.1, float("inf"))}}, "expected a finite number"),
        ({"space": {LR: number("uniform", 0.1, True)}}, "expected a finite number or {ref: path}, got True"),
        ({"space": {LR: number("loguniform", 0, 1)}}, "loguniform needs low above 0, got 0"),
        ({"space": {"train.epochs": choice()}}, "values"),
        ({"space": {"train.epochs": number("int", 1, 3, when={"model.variant": "align"})}}, "when.model.variant"),
        (
            {"space": {"train.epochs": number("int", 1, 3, when={"seed": [0]}), "seed": choice(0, 1)}},
            "train.epochs: its condition 'seed' must stand before it",
        ),
        (
            {
                "space": {"plan.execute_steps": number("int", 1, {"ref": "plan.planner.horizon"})}
                | {"plan.planner.horizon": number("int", 3, 5)}
            },
            "plan.execute_steps: its bound 'plan.planner.horizon' must stand before it",
        ),
        (
            {
                "space": {
                    "model.variant": choice("align"),
                    **{LR: number("uniform", 0, 1, when={"model.variant": ["x"]})},
                }
            },
            "'model.variant' is never one of ['x']",
        ),
    ],
)
def test_a_bad_space_gets_one_line_with_its_file(load, changes, words):
    with pytest.raises(UserError) as raised:
        load(**changes)
    message = str(raised.value)
    assert "space.yaml: " in message
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base": "align_recn"}, "base: no run 'align_recn' in align_vs_align_recon. Did you mean 'align_recon'?"),
        ({"objectives": {"plan/success_rate_gh6": "max"}}, "never reported. Did you mean 'plan/success_rate_gh5'?"),
        ({"prune_on": {"val/copy_ratio_h6": "min"}}, "'val/copy_ratio_h6' is never reported"),
        ({"space": {"train.epoch": number("int", 1, 3)}}, "train.epoch: no such setting (in the trial). Did you mean"),
        ({"space": {"model.alignment.kind": choice("infonce", "nce")}}, "unknown kind 'nce' (in the trial)"),
        # A path that the base lacks.
        ({"space": {"model.alignment.temperature": number("uniform", 0.1, 1)}}, "kind 'state_mse' has no such setting"),
        (
            {"space": {"train.epochs": number("int", 1, 3, when={"model.kindd": [1]})}},
            "space: train.epochs: refers to model.kindd: the searched config has no such setting. Did you mean 'model.kind'",
        ),
        (
            {"space": {"train.epochs": number("int", 1, 3, when={"data.sources.x": [1]})}},
            "data.sources.x: the searched",
        ),
        (
            {"space": {"train.epochs": number("int", 1, {"ref": "train.epoch"})}},
            "train.epoch: the searched config has no",
        ),
        (
            {"space": {"data.clip.frameskip": number("int", 1, 5)}},
            "data.clip.frameskip: cannot be searched: trials share",
        ),
        ({"space": {"evaluate.clips": number("int", 1, 5)}}, "evaluate.clips: cannot be searched: trials share"),
        ({"space": {"train.epochs": number("int", 1, {"ref": "train.device"})}}, "'auto', not a whole number"),
        ({"space": {"train.epochs": number("int", 1, {"ref": "train.ema_decay"})}}, "0.0, not a whole number"),
        ({"space": {LR: number("uniform", 0.1, {"ref": "train.device"})}}, "'train.device' is 'auto', not a number"),
        ({"space": {LR: number("uniform", 0.1, {"ref": "train.ema_decay"})}}, "empty range: low 0.1, high 0.0"),
        ({"space": {LR: number("loguniform", {"ref": "train.ema_decay"}, 1.0)}}, "input should be greater than 0"),
        # A real range over a whole number: its ends would pass, and the first trial between them fail.
        ({"space": {"train.epochs": number("uniform", 1, 3)}}, "input should be a valid integer (got 1.0)"),
        ({"space": {"plan.execute_steps": number("int", 1, 99)}}, "execute_steps (99) must be at most planner.horizon"),
    ],
)
def test_what_only_the_base_can_tell_gets_one_line_too(load, spec, changes, words):
    with pytest.raises(UserError) as raised:
        check_space(load(**changes), spec)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_corners_are_resolved_in_every_case(load, spec):
    """What a corner may be can depend on the case: here only the second has too short a horizon."""
    two = spec.model_copy(update={"cases": {**spec.cases, "near": {**spec.cases["wall"], "plan.planner.horizon": 2}}})
    space = load(space={"plan.execute_steps": number("int", 1, 4)})
    assert check_space(space, spec).plan.planner.horizon == 5
    with pytest.raises(
        UserError, match=r"case 'near', at .*execute_steps \(4\) must be at most planner\.horizon \(2\)"
    ):
        check_space(space, two)


def test_unknown_spaces_are_named():
    with pytest.raises(UserError, match="unknown search space 'horizn'"):
        load_space("horizn")


def test_value_at_path():
    config = resolve([Layer.from_tree("test", {"data.sources.w.path": "x"})])
    assert value_at_path(config, "data.sources.w.path") == "x"
    assert value_at_path(config, "plan.planner.kind") == "cem"
    assert value_at_path(ExperimentConfig(), "plan.execute_steps") is None
    for path in ("plan.planer", "plan.planner.kind.x", "data.sources.v", "data.sources.v.path"):
        with pytest.raises(UserError, match="the searched config has no such setting"):
            value_at_path(config, path)
