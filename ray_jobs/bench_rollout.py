"""How fast a shortcut model imagines on this machine, beside the floor of its device: `wm bench rollout`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

import torch
from rich.console import Console

from wm.config.backbone import BackboneConfig
from wm.config.errors import UserError, nearest
from wm.config.forcing import ForcingConfig
from wm.config.shortcut import ShortcutConfig
from wm.shortcut.cost import frame_floor_s, pass_cost
from wm.shortcut.driver import StepDriver
from wm.shortcut.export import check_compiler, program_of, write_compiled
from wm.shortcut.exported import ExportedRollout
from wm.shortcut.shortcut import ShortcutModel
from wm.shortcut.static_step import StaticStep
from wm.training_run import pick_device


class Shape(NamedTuple):
    """A backbone and the tokens that it sees."""

    backbone: BackboneConfig
    num_patches: int
    channels: int


SHAPES = {
    "published": Shape(BackboneConfig(registers=10), 196, 768),  # 208 tokens a frame
    "small": Shape(
        BackboneConfig(width=128, depth=4, heads=4, kv_heads=2, head_dim=32, registers=2, time_every=2), 36, 128
    ),
}
_ACTION_DIM = 7
_MOST_RINGS = 16  # rows of a static step have a past each, where the samples of a rollout share one
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Peak(NamedTuple):
    """What the device reaches here and now: a large matrix product, a large copy."""

    flops: float
    bandwidth: float


def show(
    shape: str | None,
    samples: str,
    *,
    context: int,
    steps: int,
    horizon: int,
    device: Literal["auto", "cpu", "cuda"],
    precision: Literal["fp32", "bf16"],
    seconds: float,
    compiled: bool,
    console: Console,
) -> None:
    """Measure rollouts with random weights and print a line for each number of samples and way to compute them.

    Args:
        shape: None is published on a GPU, small elsewhere.
        samples: numbers of plans at once, as in 1,300.
        compiled: also the static step as AOTInductor compiles it.

    Raises UserError for what cannot be.
    """
    place = _device(device)
    shape = shape or ("published" if place.type == "cuda" else "small")
    if shape not in SHAPES:
        raise UserError(f"--shape: unknown shape '{shape}'.{nearest(shape, SHAPES)}")
    counts = _counts(samples)
    for name, value, least in (("--context", context, 1), ("--horizon", horizon, 2), ("--steps", steps, 1)):
        if value < least:
            raise UserError(f"{name}: {value} is too few; expected at least {least}")
    if not (seconds > 0 and math.isfinite(seconds)):
        raise UserError(f"--seconds: {seconds:g} is not above 0")
    if compiled:
        check_compiler()
    model = _model(SHAPES[shape], context + horizon, steps).to(place)
    weights = sum(parameter.numel() for parameter in model.backbone.parameters())
    peak = measured_peak(place, _DTYPES[precision], seconds)
    what = f"{shape}: {weights / 1e6:.1f} M parameters, {model.backbone.num_tokens} tokens a frame, K = {steps}, context {context}"
    reaches = f"{peak.flops / 1e12:.3g} TFLOP/s and {peak.bandwidth / 1e9:.3g} GB/s"
    console.print(
        f"{what}, {precision} on {_name(place)}, which reaches {reaches}", soft_wrap=True, highlight=False, markup=False
    )
    console.print(f"{'samples':>8}{'way':>10}{'frames/s':>14}{'floor':>14}{'share':>8}", highlight=False)
    for count in counts:
        cost = pass_cost(
            model.config.backbone,
            SHAPES[shape].channels,
            SHAPES[shape].num_patches,
            num_weights=weights,
            prefix=context,
            suffix=horizon // 2,
            num_samples=count,
            number_bytes=_DTYPES[precision].itemsize,
        )
        floor_s = frame_floor_s(cost, steps, peak.flops, peak.bandwidth)
        for way, rollout in _ways(model, count, context, horizon, _DTYPES[precision], compiled):
            frame_s = measured_frame_s(rollout, horizon, place, seconds)
            reached = "lost in noise" if frame_s is None else f"{count / frame_s:,.1f}"
            share = "" if frame_s is None else f"{floor_s / frame_s:.0%}"
            console.print(f"{count:>8}{way:>10}{reached:>14}{count / floor_s:>14,.1f}{share:>8}", highlight=False)


def measured_frame_s(
    rollout: Callable[[int], object], horizon: int, place: torch.device, seconds: float
) -> float | None:
    """Seconds for one more imagined frame of every sample: rollouts of `horizon` frames less rollouts of one, a frame of the rest.

    None where the shorter ones did not take less: a busy machine, or too few seconds.
    """
    long_s, short_s = (_fastest(lambda length=length: rollout(length), place, seconds) for length in (horizon, 1))
    return (long_s - short_s) / (horizon - 1) if long_s > short_s else None


def _ways(
    model: ShortcutModel, samples: int, context: int, horizon: int, dtype: torch.dtype, compiled: bool
) -> Iterator[tuple[str, Callable[[int], object]]]:
    """(its name, imagine so many frames) of each way to compute them."""
    place = model.token_mean.device
    frames = torch.randn(1, context, model.tokens_per_frame, model.token_dim, device=place)
    actions = torch.randn(samples, context - 1 + horizon, model.action_dim, device=place)

    def eager(length: int) -> None:
        with torch.autocast(place.type, dtype, enabled=dtype != torch.float32):
            model.rollout(frames, actions[:, : context - 1 + length])

    yield "eager", eager
    if samples > _MOST_RINGS:
        return

    def stepped(driver: StepDriver) -> Callable[[int], object]:
        # The mask costs the same whatever it hides: one frame of context is as slow as all.
        driver.observe(frames[:, 0].expand(samples, -1, -1))
        return lambda length: driver.imagine(actions[:, :length])

    step = StaticStep(deepcopy(model).weights_in(dtype), samples)
    yield "static", stepped(StepDriver(step, step.facts, place))
    if place.type == "cuda":
        yield "graph", stepped(StepDriver(step, step.facts, place, cuda_graph=True))
    if compiled:
        with TemporaryDirectory() as folder:
            file = Path(folder) / "step.pt2"
            write_compiled(program_of(step), {"step": asdict(step.facts), "device": place.type}, file)
            yield "compiled", stepped(ExportedRollout(file, str(place)))


def measured_peak(place: torch.device, dtype: torch.dtype, seconds: float) -> Peak:
    """The best of some large products and copies."""
    side, size = (8192, 2**30) if place.type == "cuda" else (1536, 2**27)
    a, b = (torch.randn(side, side, device=place, dtype=dtype) for _ in range(2))
    product_s = _fastest(lambda: a @ b, place, seconds)
    source = torch.empty(size, dtype=torch.uint8, device=place)
    target = torch.empty_like(source)
    copy_s = _fastest(lambda: target.copy_(source), place, seconds)
    return Peak(2 * side**3 / product_s, 2 * size / copy_s)


def _fastest(work: Callable[[], object], place: torch.device, seconds: float) -> float:
    """Of as many calls as fit, at least three, after one that warms up."""
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < 4 or time.perf_counter() - began < seconds:
        at = time.perf_counter()
        work()
        if place.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - at)
    return min(taken[1:])


def _model(shape: Shape, frames: int, steps: int) -> ShortcutModel:
    forcing = ForcingConfig()
    if forcing.k_max % steps:
        raise UserError(f"--steps: {steps}, expected a divisor of {forcing.k_max}")
    config = ShortcutConfig(
        history_len=1, clip_frames=frames, sampling_steps=steps, backbone=shape.backbone, forcing=forcing
    )
    torch.manual_seed(0)
    model = ShortcutModel(config, token_dim=shape.channels, tokens_per_frame=shape.num_patches, action_dim=_ACTION_DIM)
    return model.eval().requires_grad_(False)


def _counts(samples: str) -> list[int]:
    counts = [int(part) if part.strip().isdecimal() else 0 for part in samples.split(",")]
    if min(counts) < 1:
        raise UserError(f"--samples: '{samples}', expected numbers from 1 on, as in 1,300")
    return counts


def _device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("--device: cuda, but torch sees no GPU here; say cpu or auto")
    return pick_device(wanted)


def _name(place: torch.device) -> str:
    return torch.cuda.get_device_name(place) if place.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
