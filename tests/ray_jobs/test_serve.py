"""`wm serve` as a person starts and ends it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

import ray_jobs.cli as cli
from ray_jobs.serve import serve_checkpoint
from tests.integration.conftest import REPOSITORY
from tests.wm.data.samples import trained
from tests.wm.serving.client import Client, request
from wm.config.errors import UserError
from wm.serving.server import PlanServer


def refused(*arguments: str) -> str:
    """The one line that the command ends with."""
    result = CliRunner().invoke(cli.app, ["serve", *arguments])
    assert isinstance(result.exception, UserError), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_what_cannot_be_served_is_one_line(tmp_path: Path) -> None:
    run = str(trained("align_recon").folder.path)
    assert "no checkpoint there" in refused(str(tmp_path))
    assert refused(run, "train.epochs=3") == ("train.epochs: the checkpoint decides this; `wm serve` takes plan.*")
    assert "Did you mean 'plan.planner'" in refused(run, "plan.planer.kind=mppi")
    assert "execute_steps (3) must be at most planner.horizon (2)" in refused(run, "plan.execute_steps=3")
    assert "--host: 'no.such.host.invalid' is no address of this machine" in refused(
        run, "--host", "no.such.host.invalid"
    )
    assert "--host: 'a..b'" in refused(run, "--host", "a..b")
    assert "cannot listen on 192.0.2.1" in refused(run, "--host", "192.0.2.1")


def test_a_port_in_use_is_said_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray_jobs.serve.load", lambda *given: pytest.fail("it was loaded"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = refused(str(trained("align_recon").folder.path), "--port", str(port))
    assert line == f"--port: {port} on 127.0.0.1 is in use; give another, or 0 for any that is free"


def test_a_failure_to_load_gives_the_port_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray_jobs.serve.load", lambda *given: (_ for _ in ()).throw(UserError("damaged")))
    ports = []
    bind = PlanServer.server_bind

    def remember(self: PlanServer) -> None:
        bind(self)
        ports.append(self.server_address[1])

    monkeypatch.setattr(PlanServer, "server_bind", remember)
    assert refused(str(trained("align_recon").folder.path), "--port", "0") == "damaged"
    with socket.create_server(("127.0.0.1", ports[0])):
        pass


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1"])
def test_only_loopback_is_without_a_warning(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if host == "::1" and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    monkeypatch.setattr(PlanServer, "serve_forever", lambda self, poll_interval: None)
    said: list[str] = []
    console = Console(file=open(os.devnull, "w"), record=True, width=300)  # noqa: PTH123, SIM115
    serve_checkpoint(trained("align_recon").folder.path, [], console, host=host, port=0, log=said.append)
    shown = console.export_text()
    assert re.search(rf"http://\[?{re.escape(host)}\]?:\d+  \(Ctrl-C ends it\)", shown)
    assert (
        "align_recon on cpu; frames 28 x 28, proprio x, y -> 10 actions (dx, dy), 10 to execute; planner cem" in shown
    )
    assert [line.split(":")[0] for line in said] == ([] if host != "0.0.0.0" else ["warning"])


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    command = [
        sys.executable,
        "-m",
        "ray_jobs.serve",
        str(trained("align_recon").folder.path),
        "--port",
        "0",
        *arguments,
    ]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            found = re.match(r"(http://\S+)  \(Ctrl-C", line)
            if found:
                yield process, Client(found[1])
                return
        pytest.fail(f"it never was ready: {process.communicate()}")
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def ended(process: subprocess.Popen[str], how: signal.Signals) -> float:
    """Seconds to the end, which must be a clean one."""
    began_s = time.monotonic()
    process.send_signal(how)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "stopped\n", "")
    return time.monotonic() - began_s


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_while_it_plans(how: signal.Signals) -> None:
    with started("plan.planner.num_iterations=100000000") as (process, client), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.plan, **request(timeout_s=60))
        while not client.health()["busy"]:
            time.sleep(0.05)
        assert ended(process, how) < 10
        assert waiting.result().status == 503
        assert waiting.result().error == "the server is ending"


@pytest.mark.slow
def test_a_server_that_has_answered_ends_too() -> None:
    with started("--timeout", "20") as (process, client):
        assert client.ask("GET", "/schema").body["limits"]["timeout_s"] == 20
        assert client.plan(**request()).status == 200
        ended(process, signal.SIGTERM)


def test_neither_ray_nor_a_simulator_is_imported() -> None:
    script = (
        "import sys, ray_jobs.serve; "
        "print([m for m in ('ray', 'mlflow', 'mujoco', 'robosuite', 'gym_pusht', 'optuna') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
