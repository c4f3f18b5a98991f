"""`wm bench rollout`: a line a number of samples, and one line for what cannot be."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from rich.console import Console
from torch._inductor import config as inductor_config

from ray_jobs import bench_rollout
from ray_jobs.bench_rollout import Shape, measured_frame_s, show
from tests.wm.data.samples import user_error
from wm.config.backbone import BackboneConfig

TINY = Shape(BackboneConfig(width=16, depth=2, heads=2, kv_heads=1, head_dim=8, registers=1, time_every=2), 4, 6)


def shown(shape: str | None = "tiny", samples: str = "1,17", **more: Any) -> str:
    text = io.StringIO()
    given: dict[str, Any] = {
        "context": 2,
        "steps": 2,
        "horizon": 3,
        "device": "cpu",
        "precision": "fp32",
        "seconds": 0.01,
        "compiled": False,
    }
    show(shape, samples, **{**given, **more}, console=Console(file=text, width=120))
    return text.getvalue()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_line_for_each_number_of_samples(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench_rollout.SHAPES, "tiny", TINY)
    head, columns, *lines = shown(precision=precision).strip().splitlines()
    assert head.startswith("tiny: 0.0 M parameters, 7 tokens a frame, K = 2")
    assert columns.split() == ["samples", "way", "frames/s", "floor", "share"]
    assert [line.split()[:2] for line in lines] == [["1", "eager"], ["1", "static"], ["17", "eager"]]
    assert all(float(line.replace("lost in noise", "1 1").split()[2].replace(",", "")) > 0 for line in lines)


@pytest.mark.parametrize(("seconds_a_frame", "expected"), [(1.0, 1.0), (-1.0, None)])
def test_a_longer_rollout_that_took_no_longer_says_nothing(
    seconds_a_frame: float, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_rollout, "_fastest", lambda work, *given: 9.0 + seconds_a_frame * work())
    assert measured_frame_s(lambda length: length, 5, torch.device("cpu"), 0.01) == expected


@pytest.mark.slow
def test_the_compiled_step_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench_rollout.SHAPES, "tiny", TINY)
    lines = shown(samples="2", compiled=True).strip().splitlines()[2:]
    assert [line.split()[1] for line in lines] == ["eager", "static", "compiled"]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"shape": "publishd"}, "--shape: unknown shape 'publishd'. Did you mean 'published'?"),
        ({"samples": "1,none"}, "--samples: '1,none', expected numbers from 1 on, as in 1,300"),
        ({"samples": "0"}, "--samples: '0', expected numbers from 1 on, as in 1,300"),
        ({"steps": 3}, "--steps: 3, expected a divisor of 64"),
        ({"steps": 0}, "--steps: 0 is too few; expected at least 1"),
        ({"horizon": 1}, "--horizon: 1 is too few; expected at least 2"),
        ({"seconds": float("nan")}, "--seconds: nan is not above 0"),
    ],
)
def test_what_cannot_be_gets_a_line(given: dict[str, Any], line: str) -> None:
    assert user_error(lambda: shown(**{"shape": None, **given})) == line


def test_no_compiler() -> None:
    with inductor_config.patch({"cpp.cxx": ("no-such-compiler",)}):
        assert user_error(lambda: shown("small", compiled=True)).startswith("--compile: no C++ compiler here")


def test_a_gpu_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert user_error(lambda: shown(device="cuda")) == "--device: cuda, but torch sees no GPU here; say cpu or auto"
