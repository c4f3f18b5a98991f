"""Shapes that cannot be built are refused with value and expectation."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from wm.config.backbone import BackboneConfig


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"heads": 12, "kv_heads": 5}, r"heads \(12\) must be a multiple of kv_heads \(5\)"),
        ({"head_dim": 63}, r"head_dim \(63\) must be even"),
        ({"width": 767}, r"width \(767\) must be even"),
        ({"depth": 3}, r"depth \(3\) must be at least time_every \(4\)"),
        ({"time_every": 1}, "greater than or equal to 2"),
        ({"window": 1}, "greater than or equal to 2"),
        ({"soft_cap": 0.0}, "greater than 0"),
        ({"rope_base": 1.0}, "greater than 1"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        BackboneConfig(**given)


def test_hidden_channels_are_multiples_of_eight():
    assert [BackboneConfig(width=width).mlp_dim for width in (768, 100, 2)] == [2048, 264, 8]


def test_alternation_is_a_setting():
    assert BackboneConfig(time_every=2).num_time_layers == 12
    assert BackboneConfig(depth=10).num_time_layers == 2
