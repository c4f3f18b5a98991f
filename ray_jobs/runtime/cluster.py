"""Joining a Ray cluster, or starting one of our own and ending only that."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlparse

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_jobs.runtime.placement import Node, machine_cpus, machine_gpus
from wm.config.errors import UserError

_CONNECT_S = 5.0
_NODE_ANSWERS_S = 60.0


@contextmanager
def cluster(cpus: int | None = None, gpus: int | None = None) -> Iterator[list[Node]]:
    """The cluster named by RAY_ADDRESS, or a local one that ends with the block. Yields its nodes.

    Raises UserError when the address does not answer.
    """
    if ray.is_initialized():  # a notebook or a test that has a cluster already: it stays theirs
        yield _nodes()
        return
    address = os.environ.get("RAY_ADDRESS", "").strip()
    folder: str | None = None
    on_terminate = signal.getsignal(signal.SIGTERM)
    if address and address != "local":
        check_answers(address)
        with tempfile.TemporaryFile() as said:
            try:
                with _stderr_to(said):
                    ray.init(address=address, log_to_driver=False, configure_logging=False, logging_level=logging.ERROR)
            except (ConnectionError, RuntimeError, ValueError) as error:
                said.seek(0)
                raise UserError(_why_not(address, error, said.read())) from error
    else:
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # a process less for every run
        folder = tempfile.mkdtemp(prefix="wmray")  # short: Ray's socket paths have a limit
        ray.init(
            address="local",
            num_cpus=cpus or machine_cpus(),
            num_gpus=machine_gpus() if gpus is None else gpus,
            # With the dashboard off, a stopped trial leaks its placement group (RAY.md 2).
            include_dashboard=True,
            dashboard_host="127.0.0.1",
            _node_ip_address="127.0.0.1",
            log_to_driver=False,
            configure_logging=False,
            logging_level=logging.ERROR,
            _temp_dir=folder,
            # Ray ends idle processes beyond one a CPU after a second; a new one imports torch for seconds at every task.
            _system_config={"idle_worker_killing_time_threshold_ms": 30_000},
        )
    if on_terminate is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)  # Ray's core has put one there that aborts the process
    try:
        yield _nodes()
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _stderr_to(file: IO[bytes]) -> Iterator[None]:
    """Ray's core says the reason there, once a second, before it gives up without one."""
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _why_not(address: str, error: Exception, said: bytes) -> str:
    if b"InvalidAuthToken" in said or "InvalidAuthToken" in str(error):
        return (
            f"RAY_ADDRESS={address}: the cluster refuses this token, or wants one; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or "
            f"RAY_AUTH_TOKEN_PATH to the head's"
        )
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return f"RAY_ADDRESS={address}: {reason}; unset RAY_ADDRESS to run on this machine"


def check_shared(root: Path, holds: Callable[[str, str], bool] | None = None) -> None:
    """Every node must see storage.root. Raises UserError naming those that do not.

    Args:
        holds: what a node is asked: does this file hold this text?
    """
    others = [
        node for node in ray.nodes() if node["Alive"] and node["NodeID"] != ray.get_runtime_context().get_node_id()
    ]
    if not others:
        return
    probe, text = root / f".shared_{uuid.uuid4().hex}", uuid.uuid4().hex
    probe.write_text(text, encoding="utf-8")
    try:
        asked: dict[str, Any] = {}
        for node in others:
            where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = ray.remote(holds or _holds).options(num_cpus=0, scheduling_strategy=where, max_retries=0)
            asked[node["NodeManagerAddress"]] = task.remote(str(probe), text)
        blind = [address for address, reference in asked.items() if not _answer(reference)]
    finally:
        probe.unlink()
    if blind:
        raise UserError(
            f"storage.root={root}: not shared with {len(blind)} of {len(others) + 1} nodes ({', '.join(sorted(set(blind)))}); "
            f"mount one folder under this path on every node"
        )


def _holds(path: str, text: str) -> bool:
    file = Path(path)
    return file.is_file() and file.read_text(encoding="utf-8") == text


def _answer(reference: Any) -> bool:
    try:
        return bool(ray.get(reference, timeout=_NODE_ANSWERS_S))
    except (RayError, GetTimeoutError):
        return False


def _nodes() -> list[Node]:
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(float(each.get("CPU", 0.0)), float(each.get("GPU", 0.0))) for each in alive]


def is_named() -> bool:
    """Whether RAY_ADDRESS names a cluster."""
    return os.environ.get("RAY_ADDRESS", "").strip() not in ("", "local")


def is_local() -> bool:
    """Whether `cluster` would start one of our own."""
    return not is_named() and not ray.is_initialized()


def local_node() -> Node:
    """What a cluster of our own would have."""
    return Node(machine_cpus(), machine_gpus())


def get(reference: Any) -> Any:
    """`ray.get`, with a person's mistake raised as the UserError it was, not as a remote traceback."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise


def check_answers(address: str) -> None:
    """Ray itself tries an unreachable address for minutes: ask the port first."""
    if address == "auto":
        return
    try:
        parsed = urlparse(address if "//" in address else f"//{address}")
        host, port = parsed.hostname, parsed.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise UserError(f"RAY_ADDRESS={address}: expected host:port, ray://host:port, auto or local")
    try:
        socket.create_connection((host, port), timeout=_CONNECT_S).close()
    except OSError as error:
        raise UserError(
            f"RAY_ADDRESS={address}: no answer ({error.strerror or error}); unset RAY_ADDRESS to run on this machine"
        ) from error
