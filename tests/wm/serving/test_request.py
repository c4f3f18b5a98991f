"""Whatever bytes come, there is a request that can be planned with, or a refusal of one line."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wm.data.samples import refusal
from tests.wm.serving.client import opened, request
from wm.serving.refused import Refused
from wm.serving.request import Body, PlanRequest, read_request
from wm.serving.schema import request_schema
from wm.serving.service import PlanService

KEYS = list(Body.model_fields)


@cache
def service() -> PlanService:
    return opened().service


def read(body: bytes) -> PlanRequest:
    return read_request(body, service().interface, service().model)


def test_everything_arrives() -> None:
    actions = np.arange(10.0).reshape(5, 2).tolist()
    given = request(goal_proprio=[1, 2.5], warm_start=actions, seed=3, timeout_s=2)
    found = read(json.dumps(given).encode())
    np.testing.assert_array_equal(found.warm_start, actions)
    np.testing.assert_array_equal(found.proprio, [20.0, 30.0])
    np.testing.assert_array_equal(found.goal_proprio, [1.0, 2.5])
    assert (found.seed, found.timeout_s, found.warnings) == (3, 2.0, ())
    nothing = read(json.dumps(request(seed=None) | {"warm_start": None, "timeout_s": None}).encode())
    assert (nothing.warm_start, nothing.goal_proprio, nothing.seed, nothing.timeout_s) == (None, None, 0, None)


def test_the_schema_names_the_same_keys() -> None:
    assert list(request_schema(service().interface)["properties"]) == KEYS


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=6), _VALUES, max_size=4))
def test_any_values_are_a_request_or_one_line(changes: dict[str, Any]) -> None:
    refused_in_one_line(json.dumps({**request(), **changes}).encode())


@given(st.binary(max_size=40))
def test_any_bytes_are_one_line(body: bytes) -> None:
    refused_in_one_line(body)


def refused_in_one_line(body: bytes) -> None:
    found: list[PlanRequest] = []
    line = refusal(lambda: found.append(read(body)))
    assert line is None or len(line) < 500
    for each in found:
        assert each.proprio is not None
        assert np.isfinite(each.proprio).all()


def test_a_key_of_many_lines_is_one_line() -> None:
    with pytest.raises(Refused, match=r"^a b: no such key"):
        read(b'{"a\\n\\nb": 1}')
