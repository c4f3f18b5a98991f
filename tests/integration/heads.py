"""Ray heads of our own, as a person starts one; each ends its own processes and nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.integration.conftest import wait_until


class Head(NamedTuple):
    address: str
    home: Path
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """SIGKILL to it and all that it started, as when a machine goes down."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        for process in [psutil.Process(self.process.pid), *family]:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait()
        psutil.wait_procs(family, timeout=30)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def start_head(home: Path, cpus: int = 2) -> Iterator[Head]:
    """`ray start --head --block` with this session's token and WM_HOME; ended by SIGTERM."""
    folder = tempfile.mkdtemp(prefix="wmr-", dir="/tmp")  # short: a socket's path may have 107 characters
    ports = {
        name: free_port()
        for name in ("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port")
    }
    bin_folder = Path(sys.executable).parent
    process = subprocess.Popen(
        [
            *(str(bin_folder / "ray"), "start", "--head", "--block", "--node-ip-address=127.0.0.1"),
            *("--dashboard-host=127.0.0.1", f"--num-cpus={cpus}", "--object-store-memory=200000000"),
            *("--disable-usage-stats", f"--temp-dir={folder}"),
            *(f"--{name}={port}" for name, port in ports.items()),
        ],
        env={**os.environ, "WM_HOME": str(home), "PATH": f"{bin_folder}:{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{ports['dashboard-port']}"
    try:
        wait_until(lambda: process.poll() is not None or answers(address), 120)
        assert process.poll() is None
        yield Head(address, home, process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def answers(address: str) -> bool:
    import requests

    headers = {"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"}
    try:
        return requests.get(f"{address}/api/jobs/", headers=headers, timeout=5).status_code == 200
    except requests.RequestException:
        return False
