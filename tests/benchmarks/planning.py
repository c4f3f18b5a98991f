"""Planning with the published predictor: ours against the reference's way (plain_planning.py), memory, and two processes.

What is measured in memory or against itself runs in processes of its own. On a GPU also the published search, 300 x 30.

python -m tests.benchmarks.planning WHAT [JSON]: one of its parts alone, as JSON.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, TypeVar

import torch

from tests.benchmarks.plain_planning import PlainPlan, PlainWorld, plain_cem
from tests.benchmarks.row import Row
from wm.build_planning import build_objective, build_planner
from wm.config.encoder import Dinov2EncoderConfig
from wm.config.experiment import ExperimentConfig
from wm.config.model import DinoWmConfig, PredictorConfig
from wm.config.plan import CemConfig, ObjectiveConfig
from wm.contracts import Encoder
from wm.data.normalization import DataStatistics
from wm.encoders import torchvision_shim
from wm.encoders.vit import dinov2_of
from wm.loaded import LoadedModel
from wm.models.dynamics import WorldModelDynamics
from wm.models.world_model import WorldModel
from wm.planning.candidates import candidate_costs
from wm.types import Observation, Plan

ACTION_DIM, PROPRIO_DIM = 10, 4
PUBLISHED_S = 53.0  # one plan of 100 x 10 on an A6000 (DINO-WM, arXiv 2411.04983)
SEARCH = CemConfig(num_samples=16, num_elites=4, num_iterations=2)
SMALL = PredictorConfig(depth=2)  # with few patches: thousands of samples in a minute
SMALL_PATCHES = 16
BUDGET_GB = 0.25

T = TypeVar("T")


def planning() -> list[Row]:
    """All of this file."""
    return [*against_plain(), *memory(), *actors(), *on_gpu()]


# -- against the reference's way ------------------------------------------------------------------------------------------------


def against_plain() -> list[Row]:
    """CPU seconds of 2 problems with pixels at both ends; raises AssertionError where costs or plans differ."""
    encoder, model = _vit_small(), _model()
    starts, goals = _observations(2, 0), _observations(2, 1)
    plain_model = _model(attention="plain")
    plain_model.load_state_dict(model.state_dict())

    def plain() -> PlainPlan:
        world, generators = PlainWorld(encoder, plain_model, starts, goals), _generators(2)
        shape = (SEARCH.num_samples, SEARCH.horizon, ACTION_DIM)
        mean = torch.zeros(2, SEARCH.horizon, ACTION_DIM)
        return plain_cem(SEARCH, mean, world.cost, lambda problem: torch.randn(shape, generator=generators[problem]))

    loaded = _loaded(encoder, model)
    dynamics, objective = loaded.dynamics, build_objective(ObjectiveConfig(), model)
    planner = build_planner(SEARCH, loaded, memory_gb=BUDGET_GB)

    def ours(dynamics: WorldModelDynamics = dynamics) -> Plan:
        context, goal = dynamics.encode(starts), dynamics.encode(goals)
        return planner.plan(dynamics, objective, context, goal, None, _generators(2))

    (expected, plain_s), (found, ours_s) = _timed(plain), _timed(ours)
    context, goal = dynamics.encode(starts), dynamics.encode(goals)
    with torch.no_grad():
        costs = torch.stack([candidate_costs(dynamics, objective, context, goal, of, 4) for of in expected.candidates])
    error = float((costs / expected.costs - 1).abs().max())
    assert error < 1e-5, f"costs differ by {error:.2g} of themselves"
    torch.testing.assert_close(found.actions, expected.actions, rtol=0, atol=1e-5)
    halved, halved_s = _timed(lambda: ours(replace(loaded, precision="bf16").dynamics))
    apart = float((halved.cost / found.cost - 1).abs().max())
    name = "20 M predictor, H 3, DINOv2 ViT-S at 196 px, 2 problems, CEM 16 x 2, horizon 5"
    return [
        Row(f"{name} (costs within {error:.0e})", "the reference's way", plain_s, "ours", ours_s, "CPU s"),
        Row(f"the same in bf16 (cost of the plan {apart:.0e} off)", "fp32", ours_s, "bf16", halved_s, "CPU s"),
    ]


# -- memory ---------------------------------------------------------------------------------------------------------------------


def memory() -> list[Row]:
    """Peak above a process that has planned with one sample, against the budget."""
    rows = []
    for samples, patches in ((16, 196), (300, SMALL_PATCHES), (3000, SMALL_PATCHES)):
        found = _alone("peak", samples=samples, patches=patches)
        size = "20 M predictor, 196 patches" if patches == 196 else f"{SMALL.depth} layers, {patches} patches"
        name = f"peak of CEM with {samples} samples, {size}, {found['chunk_size']} at once"
        rows.append(Row(name, "budget", BUDGET_GB * 1000, "peak", found["peak_mb"], "MB"))
    return rows


def peak(samples: int, patches: int = 196, budget_gb: float = BUDGET_GB, horizon: int = 5) -> dict[str, float]:
    """`peak_mb` above idle of one iteration, and `chunk_size`, plans rolled out at once."""
    predictor = PredictorConfig() if patches == 196 else SMALL
    loaded = _loaded(_NoEncoder(), _model(predictor, patches))
    dynamics, objective = loaded.dynamics, build_objective(ObjectiveConfig(), loaded.model)
    context, goal = torch.randn(2, 1, 1, patches, loaded.model.content_dim)

    def plan(samples: int) -> int:
        config = CemConfig(num_samples=samples, num_elites=2, num_iterations=1, horizon=horizon)
        planner: Any = build_planner(config, loaded, memory_gb=budget_gb)
        planner.plan(dynamics, objective, context, goal, None, _generators(1))
        return planner.chunk_size

    idle_mb = _rss_mb()
    chunk_size = plan(samples)
    return {"peak_mb": _rss_mb() - idle_mb, "chunk_size": min(chunk_size, samples)}


# -- processes ------------------------------------------------------------------------------------------------------------------


def actors(problems: int = 8) -> list[Row]:
    """Wall seconds of problems shared between processes of one thread each, once all are ready."""
    one, two = (_shared(problems, count) for count in (1, 2))
    name = f"{problems} problems, CEM 8 x 1, 20 M predictor, one thread a process"
    return [Row(name, "one process / 2", one / 2, "two processes", two)]


def _shared(problems: int, count: int) -> float:
    context = multiprocessing.get_context("spawn")
    ready, go = context.Barrier(count + 1), context.Barrier(count + 1)
    workers = [context.Process(target=_work, args=(ready, go, problems // count)) for _ in range(count)]
    for worker in workers:
        worker.start()
    ready.wait()
    began = time.perf_counter()
    go.wait()
    for worker in workers:
        worker.join()
    return time.perf_counter() - began


def _work(ready: Any, go: Any, problems: int) -> None:
    torch.set_num_threads(1)
    loaded = _loaded(_NoEncoder(), _model())
    objective = build_objective(ObjectiveConfig(), loaded.model)
    planner = build_planner(CemConfig(num_samples=8, num_elites=4, num_iterations=1), loaded)
    context, goal = torch.randn(2, 1, 1, 196, loaded.model.content_dim)
    ready.wait()
    go.wait()
    for _ in range(problems):
        planner.plan(loaded.dynamics, objective, context, goal, None, _generators(1))


# -- GPU ------------------------------------------------------------------------------------------------------------------------


def on_gpu() -> list[Row]:
    """CEM 300 x 30, horizon 5, one problem, against the published time of a search of 100 x 10. Nothing without a GPU."""
    if not torch.cuda.is_available():
        return []
    rows = []
    for precision in ("fp32", "bf16"):
        found = _alone("search", precision=precision)
        name = f"CEM 300 x 30, horizon 5, 20 M predictor, {precision}, {found['device']}"
        rows.append(Row(name, "A6000, 100 x 10, published", PUBLISHED_S, "ours", found["plan_s"]))
    return rows


def search(precision: Literal["fp32", "bf16"], memory_gb: float = 8.0) -> dict[str, Any]:
    """`plan_s` of the published search, and what its plan costs in float32."""
    loaded = replace(_loaded(_NoEncoder(), _model().cuda()), precision=precision)
    planner = build_planner(CemConfig(), loaded, memory_gb=memory_gb)
    objective = build_objective(ObjectiveConfig(), loaded.model)
    context, goal = torch.randn(2, 1, 1, 196, loaded.model.content_dim).cuda()
    seconds = []
    for _ in range(2):
        torch.cuda.synchronize()
        began = time.perf_counter()
        plan = planner.plan(loaded.dynamics, objective, context, goal, None, _generators(1))
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    exact = replace(loaded, precision="fp32").dynamics
    cost = float(objective(exact.rollout(context, plan.actions), goal))
    return {"plan_s": seconds[-1], "cost": cost, "device": torch.cuda.get_device_name()}


# -- parts ----------------------------------------------------------------------------------------------------------------------


class _NoEncoder:
    """Latents are at hand."""


def _vit_small() -> Encoder:
    """DINOv2 ViT-S/14 at the published size with random weights."""
    torchvision_shim.install()
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    shape = Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14)
    return dinov2_of(Dinov2Model(shape), Dinov2EncoderConfig())


def _model(
    predictor: PredictorConfig | None = None, patches: int = 196, attention: Literal["plain", "fused"] = "fused"
) -> WorldModel:
    torch.manual_seed(0)
    config = DinoWmConfig(predictor=predictor or PredictorConfig(attention=attention))
    sizes = {"token_dim": 384, "tokens_per_frame": patches, "action_dim": ACTION_DIM, "proprio_dim": PROPRIO_DIM}
    return WorldModel(config, **sizes).eval().requires_grad_(False)


def _loaded(encoder: Any, model: WorldModel) -> LoadedModel:
    return LoadedModel(ExperimentConfig(), encoder, model, DataStatistics(None, None, None), {})


def _observations(problems: int, seed: int) -> Observation:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (problems, 1, 224, 224, 3), generator=generator, dtype=torch.uint8)
    return Observation(pixels, torch.randn(problems, 1, PROPRIO_DIM, generator=generator))


def _generators(problems: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(problem) for problem in range(problems)]


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    began = time.process_time()
    found = work()
    return found, time.process_time() - began


def _rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _alone(part: str, **how: object) -> dict[str, Any]:
    """One part in a fresh process."""
    command = [sys.executable, "-m", "tests.benchmarks.planning", part, json.dumps(how)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    torch.set_num_threads(1)
    part, how = sys.argv[1], json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    print(json.dumps(globals()[part](**how)))
