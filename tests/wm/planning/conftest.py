"""A linear world model whose best plan is known, and the golden numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor

from tests import toys
from tests.golden.case import GOLDEN, Golden, assert_golden, load_case
from tests.toys import LinearProblem


@pytest.fixture
def linear_problem() -> Callable[..., LinearProblem]:
    """(seed, horizon, action_dim, problems) -> problem."""
    return toys.linear_problem


@pytest.fixture
def golden() -> Callable[[str], Golden]:
    return lambda name: load_case(GOLDEN / "dino_wm" / f"{name}.npz")


@pytest.fixture(name="assert_golden")
def _assert_golden() -> Callable[[Tensor, Tensor, float], None]:
    """max |a - b| <= tolerance * max(1, max |reference|), as the golden README defines it."""
    return assert_golden
