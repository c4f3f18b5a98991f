"""MLflow's web page over the recorded experiments, on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from rich.console import Console

from experiments.tracking import tracking_uri
from ray_jobs.runtime.runs import storage_root
from wm.config.errors import UserError
from wm.config.platform import TrackingConfig


def serve_ui(port: int, console: Console) -> int:
    """Run until Ctrl-C. Raises UserError when the port is taken or nothing was recorded."""
    root = storage_root(None)
    if not (root / "mlflow.db").is_file():
        raise UserError(f"{root}/mlflow.db: nothing recorded there yet; run `wm demo`, or set WM_HOME")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(f"--port: {port} is in use ({error.strerror}); give another") from error
    console.print(f"http://127.0.0.1:{port}  (Ctrl-C ends it)", highlight=False)
    # One worker and no job runner: a fourth of the start-up time and of the memory (RAY.md 14).
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = [
        "--backend-store-uri",
        tracking_uri(TrackingConfig(), root),
        "--artifacts-destination",
        str(root / "mlartifacts"),
    ]
    return subprocess.call([*command, *store], env=environment)
