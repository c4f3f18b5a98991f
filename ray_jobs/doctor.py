"""What this machine has and lacks, one line each, and what to do for each failure."""

from __future__ import annotations

import ctypes.util
import os
import platform
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console

from ray_jobs.runtime.runs import storage_root
from wm.config.encoder import Dinov2EncoderConfig
from wm.config.errors import UserError

Finding = tuple[str, str]  # ("ok" | "note" | "fail", text)


def diagnose(console: Console) -> int:
    """Print every check; returns 1 when one that everything needs fails, else 0."""
    checks: dict[str, Callable[[], Finding]] = {
        "python": _python,
        "packages": _packages,
        "torch": _torch,
        "ray": _ray,
        "mlflow": _mlflow,
        "storage": _storage,
        "disk": _disk,
        "EGL": _egl,
        "ffmpeg": _ffmpeg,
        "DINOv2 weights": _weights,
    }
    colours = {"ok": "green", "note": "yellow", "fail": "red"}
    failed = False
    for name, check in checks.items():
        try:
            status, text = check()
        except (ImportError, OSError, RuntimeError, UserError) as error:
            status, text = "fail", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        failed |= status == "fail"
        console.print(f"[{colours[status]}]{status:4}[/] {name}: {text}", highlight=False, soft_wrap=True)
    return int(failed)


def _python() -> Finding:
    found = platform.python_version()
    if sys.version_info[:2] != (3, 11):
        return "fail", f"{found}; the lock is for 3.11: make .venv with python3.11"
    return "ok", found


def _packages() -> Finding:
    pinned: dict[str, str] = {}
    for lock in sorted(Path(__file__).parent.parent.glob("requirements*.lock")):
        for line in lock.read_text(encoding="utf-8").splitlines():
            name, equals, wanted = line.split("#")[0].strip().partition("==")
            if equals:
                pinned[name] = wanted.split("+")[0].strip()
    wrong: list[str] = []
    for name, wanted in pinned.items():
        try:
            found = version(name).split("+")[0]
        except PackageNotFoundError:
            found = "missing"
        if found != wanted:
            wrong.append(f"{name} {found}, locked {wanted}")
    if wrong:
        return "fail", f"{len(wrong)} of {len(pinned)} differ from the lock ({'; '.join(wrong[:3])}); run make setup"
    return "ok", f"{len(pinned)} as locked"


def _torch() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        return "ok", f"{torch.__version__}, CUDA {torch.version.cuda}: {names}"
    reason = (
        "a CPU build" if torch.version.cuda is None else "CUDA build, but no GPU or driver found (nvidia-smi tells)"
    )
    return "ok", f"{torch.__version__}, {reason}: runs on the CPU"


def _ray() -> Finding:
    address = os.environ.get("RAY_ADDRESS", "").strip()
    if address and address != "local":
        from ray_jobs.runtime.cluster import check_answers

        check_answers(address)
        return "ok", f"{version('ray')}; RAY_ADDRESS={address} answers"
    return "ok", f"{version('ray')}; RAY_ADDRESS is not set: a local cluster is started for each command"


def _mlflow() -> Finding:
    from experiments.tracking import redacted, tracking_uri
    from wm.config.platform import TrackingConfig

    return "ok", f"{version('mlflow')}; {redacted(tracking_uri(TrackingConfig(), storage_root(None)))}"


def _storage() -> Finding:
    return "ok", f"{storage_root(None)} can be written"


def _disk() -> Finding:
    free = shutil.disk_usage(storage_root(None)).free / 2**30
    return ("ok" if free > 5 else "note"), f"{free:.1f} GiB free{'' if free > 5 else '; the demo needs about 2 GiB'}"


def _egl() -> Finding:
    if ctypes.util.find_library("EGL"):
        return "ok", f"found; MUJOCO_GL={os.environ.get('MUJOCO_GL', '(unset: what works is tried and chosen)')}"
    return "note", "not found; only MuJoCo worlds need it: apt-get install libegl1 libgl1-mesa-dri"


def _ffmpeg() -> Finding:
    found = shutil.which("ffmpeg")
    return ("ok", found) if found else ("note", "not found; only reading video data needs it: apt-get install ffmpeg")


def _weights() -> Finding:
    from wm.encoders.vit import dinov2_encoder

    previous = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        encoder = dinov2_encoder(Dinov2EncoderConfig())
    except UserError:
        return "note", (
            f"{Dinov2EncoderConfig().weights} is not in the hub's cache; encoder.kind=tiny needs none, "
            f"encoder.weights=FOLDER names a local one"
        )
    finally:
        if previous is None:
            os.environ.pop("HF_HUB_OFFLINE")
        else:
            os.environ["HF_HUB_OFFLINE"] = previous
    return "ok", f"{Dinov2EncoderConfig().weights}, {encoder.dim} channels"
