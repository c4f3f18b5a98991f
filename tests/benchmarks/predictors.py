"""A training step of the published predictor: ours against attention as the paper writes it, in float32.

Each way runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any, Literal

from tests.benchmarks.row import Row

BATCH, HISTORY, PATCHES, WIDTH = 8, 3, 196, 404
_STEPS = 4
_DENSE_BF16 = {"H100": 989e12, "H200": 989e12}  # FLOP/s without sparsity, as NVIDIA states them


def training_step() -> list[Row]:
    """Seconds and peak memory above an idle process, with and without dropout; on a GPU also bf16 and compiled."""
    rows: list[Row] = []
    for dropout in (0.0, 0.1):
        plain, fused = (measure(attention=way, dropout=dropout) for way in ("plain", "fused"))
        name = f"20 M predictor, H 3, 196 tokens, batch {BATCH}, dropout {dropout:g}"
        rows.append(Row(f"{name}: a step", "plain", plain["step_s"], "fused", fused["step_s"]))
        rows.append(Row(f"{name}: peak memory", "plain", plain["peak_mb"], "fused", fused["peak_mb"], "MB"))
        if plain["device"] != "cpu":
            fast = measure(attention="fused", dropout=dropout, precision="bf16", compiled=True)
            rows.append(Row(f"{name}: a step", "plain fp32", plain["step_s"], "bf16, compiled", fast["step_s"]))
            peak = next((rate for chip, rate in _DENSE_BF16.items() if chip in plain["device"]), None)
            if peak is not None:
                reached = model_flops() / fast["step_s"]
                rows.append(Row(f"{name}: bf16", plain["device"], peak / 1e12, "reached", reached / 1e12, "TFLOP/s"))
    return rows


def model_flops() -> float:
    """Multiplications and additions of a forward and a backward pass, of the pairs that the causal mask leaves alone."""
    tokens, inner, mlp, depth = HISTORY * PATCHES, 16 * 64, 2048, 6
    linear = tokens * (WIDTH * 3 * inner + inner * WIDTH + 2 * WIDTH * mlp)
    pairs = PATCHES * PATCHES * HISTORY * (HISTORY + 1) // 2
    return 3.0 * 2 * BATCH * depth * (linear + 2 * pairs * inner)


def measure(**how: object) -> dict[str, Any]:
    """`step_s`, `peak_mb`, `device` of one way, in a fresh process."""
    command = [sys.executable, "-m", "tests.benchmarks.predictors", json.dumps(how)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def run(
    attention: Literal["plain", "fused"],
    dropout: float,
    precision: Literal["fp32", "bf16"] = "fp32",
    compiled: bool = False,
) -> dict[str, Any]:
    """Steps of forward, backward and AdamW on random latents."""
    import torch

    from wm.config.model import PredictorConfig
    from wm.models.predictor import CausalPredictor

    torch.manual_seed(0)
    torch.set_num_threads(1)
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    predictor = CausalPredictor(WIDTH, PATCHES, HISTORY, PredictorConfig(dropout=dropout, attention=attention)).to(
        device
    )
    forward = torch.compile(predictor) if compiled else predictor
    optimizer = torch.optim.AdamW(predictor.parameters(), lr=5e-4, fused=on_gpu)
    latents = torch.randn(BATCH, HISTORY, PATCHES, WIDTH, device=device)
    idle_mb = 0.0 if on_gpu else _rss_mb()
    seconds: list[float] = []
    for _ in range(30 if on_gpu else _STEPS):
        began = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = (forward(latents) - latents).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    peak_mb = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else _rss_mb()
    name = torch.cuda.get_device_name() if on_gpu else "cpu"
    return {"step_s": statistics.median(seconds[1:]), "peak_mb": peak_mb - idle_mb, "device": name}


def _rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    print(json.dumps(run(**json.loads(sys.argv[1]))))
