"""The tree itself: its defaults, its schedules, and that nothing slips in."""

from __future__ import annotations

import math
import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from wm.config.base import Config
from wm.config.errors import nearest
from wm.config.experiment import ExperimentConfig
from wm.config.resolve import Layer, resolve
from wm.config.schedule import ConstantSchedule, CosineSchedule, LinearSchedule, value_at


def members(annotation: Any) -> list[type[Config]]:
    """The config classes of a field: of a union, of a map's values, or the class itself."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [cls for part in get_args(annotation) for cls in members(part)]
    if get_origin(annotation) is dict:
        return members(get_args(annotation)[1])
    if get_origin(annotation) is not None and hasattr(annotation, "__metadata__"):
        return members(get_args(annotation)[0])
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, Config) else []


def classes(root: type[Config]) -> set[type[Config]]:
    found = {root}
    for info in root.model_fields.values():
        for cls in members(info.annotation):
            found |= classes(cls)
    return found


def sections() -> Iterator[tuple[str, Any, list[type[Config]]]]:
    """(where, default, classes it may have) of every field that holds settings of its own."""
    for cls in sorted(classes(ExperimentConfig), key=lambda c: c.__name__):
        for name, info in cls.model_fields.items():
            if members(info.annotation) and get_origin(info.annotation) is not dict:
                yield f"{cls.__name__}.{name}", info.default, members(info.annotation)


SECTIONS = list(sections())


def test_the_walk_sees_the_tree():
    where = {name for name, _, _ in SECTIONS}
    assert {"ExperimentConfig.plan", "PlanConfig.planner", "InfoNceAlignment.weight", "DinoWmConfig.alignment"} <= where


@pytest.mark.parametrize(("where", "default", "may_be"), SECTIONS, ids=[where for where, _, _ in SECTIONS])
def test_a_default_section_is_its_class_s_own_default(where, default, may_be):
    """Else a layer that sets one key of a section would change the others, since resolving starts from the class."""
    assert default == type(default)()


def test_the_default_kind_is_the_first_that_an_untouched_section_resolves_to():
    """A section with values but no kind gets the union's first member: it must be the kind of the default."""
    unions = [(where, default, may_be) for where, default, may_be in SECTIONS if len(may_be) > 1]
    assert unions
    for where, default, may_be in unions:
        assert type(default) is may_be[0], where


@pytest.mark.parametrize("cls", sorted(classes(ExperimentConfig), key=lambda c: c.__name__))
def test_every_section_is_frozen_strict_and_closed(cls):
    assert cls.model_config["frozen"]
    assert cls.model_config["strict"]
    assert cls.model_config["extra"] == "forbid"


def test_nothing_can_be_changed_or_added():
    config = ExperimentConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.train.epochs = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        ExperimentConfig.model_validate({"trian": {}})


def test_clips_are_history_and_horizon():
    config = resolve([Layer.from_tree("test", {"model.history_len": 2, "train.rollout_horizon": 3})])
    assert config.clip_num_frames == 5
    assert config.longest_horizon == 10


def test_nearest():
    assert nearest("epoch", ["epochs", "seed"]) == " Did you mean 'epochs'?"
    assert nearest("zzz", ["b", "a"]) == " Valid: a, b."
    assert nearest("zzz", []) == ""
    assert nearest("zzz", map(str, range(20))).endswith(", 19, ....")


# -- schedules ----

PROGRESS = st.floats(0, 1)
VALUES = st.floats(0, 100)


@given(PROGRESS, VALUES)
def test_constant(progress, start):
    assert value_at(ConstantSchedule(start=start), progress) == start


@given(PROGRESS, VALUES, VALUES, st.floats(0.01, 1))
def test_linear_and_cosine_are_their_formulas(progress, start, end, over):
    q = min(progress / over, 1)
    linear = value_at(LinearSchedule(start=start, end=end, over=over), progress)
    cosine = value_at(CosineSchedule(start=start, end=end, over=over), progress)
    assert linear == pytest.approx(start + (end - start) * q, abs=1e-9)
    assert cosine == pytest.approx(end + (start - end) * math.cos(math.pi * q / 2) ** 2, abs=1e-9)


@pytest.mark.parametrize("cls", [LinearSchedule, CosineSchedule])
def test_ends_middle_and_after(cls):
    schedule = cls(start=1.0, end=3.0, over=0.5)
    assert [value_at(schedule, p) for p in (0.0, 0.25, 0.5, 0.9)] == pytest.approx([1.0, 2.0, 3.0, 3.0])
    assert value_at(cls(start=1.0, end=3.0, over=0.0), 0.0) == 3.0


def test_a_quarter_of_the_way_tells_the_two_apart():
    ends = {"start": 1.0, "end": 0.0}
    assert value_at(LinearSchedule(**ends), 0.25) == pytest.approx(0.75)
    assert value_at(CosineSchedule(**ends), 0.25) == pytest.approx((1 + math.sqrt(0.5)) / 2)


@given(PROGRESS, VALUES, VALUES, st.floats(0.01, 0.5), st.floats(0.5, 1))
def test_warm_up_rises_from_0_and_the_decay_begins_where_it_ends(progress, start, end, warmup, over):
    schedules = [
        ConstantSchedule(start=start, warmup=warmup),
        LinearSchedule(start=start, end=end, warmup=warmup, over=over),
        CosineSchedule(start=start, end=end, warmup=warmup, over=over),
    ]
    q = min(max(progress - warmup, 0) / (over - warmup), 1) if over > warmup else float(progress >= warmup)
    after = [start, start + (end - start) * q, end + (start - end) * math.cos(math.pi * q / 2) ** 2]
    rising = [start * progress / warmup] * 3
    expected = rising if progress < warmup else after
    assert [value_at(schedule, progress) for schedule in schedules] == pytest.approx(expected, abs=1e-6 * (start + end))


@pytest.mark.parametrize("cls", [LinearSchedule, CosineSchedule])
def test_a_decay_that_ends_before_the_warm_up_is_refused(cls):
    with pytest.raises(ValidationError, match=r"warmup \(0.3\) must be at most over \(0.2\)"):
        cls(warmup=0.3, over=0.2)


@pytest.mark.parametrize(
    ("horizons", "metric"), [([1, 5, 10], "h5"), ([10, 1, 5], "h5"), ([1, 5, 10, 20], "h5"), ([3], "h3")]
)
def test_the_best_checkpoint_is_best_at_the_middle_horizon(horizons, metric):
    def best(changes: dict[str, Any]) -> str:
        tree = {"data.sources.w.path": "x", "evaluate.horizons": horizons, **changes}
        return resolve([Layer.from_tree("test", tree)]).best_metric

    assert best({}) == f"val/copy_ratio_{metric}"
    assert best({"train.best_metric": "val/effective_rank"}) == "val/effective_rank"
