"""Addresses, tokens and servers that are none: one line each, soon."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ray_jobs.job_server import DEFAULT_ADDRESS, connect, server_address
from ray_jobs.runtime.runs import storage_root
from wm.config.errors import UserError

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("given", "variables", "expected"),
    [
        (None, {}, DEFAULT_ADDRESS),
        (None, {"RAY_ADDRESS": "auto"}, DEFAULT_ADDRESS),
        (None, {"RAY_ADDRESS": "http://head:8265/"}, "http://head:8265"),
        (None, {"RAY_ADDRESS": "a:1", "RAY_API_SERVER_ADDRESS": "http://b:2"}, "http://b:2"),
        ("head:8265", {"RAY_ADDRESS": "http://other:1"}, "http://head:8265"),
        ("https://ray.example.org", {}, "https://ray.example.org"),
    ],
)
def test_address(given: str | None, variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert server_address(given) == expected


@pytest.mark.parametrize("given", ["ray://head:10001", "http://", "http://head:port", "head:99999"])
def test_no_address(given: str) -> None:
    with pytest.raises(UserError, match="expected the head's dashboard"):
        server_address(given)


class Answers(BaseHTTPRequestHandler):
    """A server of anything, or a Ray of another version."""

    status, body = 200, b"hello"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    httpd = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def line(address: str, **options: bool) -> str:
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        connect(address, **options)
    assert time.monotonic() - began < 10
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_nobody_listens() -> None:
    message = line("http://me:hidden@127.0.0.1:9")
    assert "http://127.0.0.1:9: no answer (Connection refused)" in message
    assert "hidden" not in message


@pytest.mark.parametrize(
    ("status", "body"), [(200, b"hello"), (200, b'{"version": 1}'), (200, b"[]"), (404, b""), (500, b"x")]
)
def test_another_server(server: str, status: int, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answers, "status", status)
    monkeypatch.setattr(Answers, "body", body)
    assert "what answers is not a Ray dashboard" in line(server)


def test_another_version_takes_no_submission(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answers, "body", b'{"version": "4", "ray_version": "2.44.1"}')
    message = line(server, same_version=True)
    assert "the cluster runs Ray 2.44.1" in message
    connect(server)  # but its jobs can be listed and stopped


def test_what_is_given_wins_over_the_variables_that_ray_prefers(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answers, "body", b'{"version": "4", "ray_version": "2.60.0"}')
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    assert connect(server).get_address() == server
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:9"
    assert "RAY_API_SERVER_ADDRESS" not in os.environ


@pytest.mark.parametrize(("status", "words"), [(401, "asks for a token"), (403, "refuses the token of RAY_AUTH_TOKEN")])
def test_token(server: str, status: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answers, "status", status)
    assert words in line(server)


VARIABLES = "import os, ray_jobs{}; print([os.environ.get('RAY_AUTH_' + n) for n in ('MODE', 'TOKEN', 'TOKEN_PATH')])"


def auth(code: str, **given: str) -> list[str | None]:
    """MODE, TOKEN and TOKEN_PATH of a fresh process."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_A")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env={**clean, **given}, capture_output=True, text=True, check=True
    )
    return eval(done.stdout)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, [None, None, None]),
        ({"RAY_AUTH_TOKEN": "mine"}, ["token", "mine", None]),
        ({"RAY_AUTH_TOKEN_PATH": "/f"}, ["token", None, "/f"]),
        ({"RAY_AUTH_TOKEN_PATH": "/f", "RAY_ADDRESS": "http://x:1"}, ["token", None, "/f"]),
        ({"RAY_AUTH_MODE": "token"}, ["token", None, None]),  # ~/.ray/auth_token
        ({"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "mine"}, ["disabled", "mine", None]),
    ],
)
def test_a_cluster_is_sent_the_configured_token_or_none(given: dict[str, str], expected: list[str | None]) -> None:
    assert auth(VARIABLES.format("; ray_jobs.use_configured_token()"), **given) == expected


def test_a_cluster_of_our_own_has_a_token_of_its_own() -> None:
    mode, token, _ = auth(VARIABLES.format(""), RAY_AUTH_TOKEN="mine")
    assert mode == "token"
    assert token not in (None, "mine")


@pytest.mark.parametrize(("root", "home"), [(None, None), ("out", None), (None, "out")])
def test_a_job_refuses_to_write_into_its_own_folder(
    root: str | None, home: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    if home is not None:
        monkeypatch.setenv("WM_HOME", home)
    with pytest.raises(UserError, match=r"the folder of a Ray job is temporary; start the head with WM_HOME") as caught:
        storage_root(root)
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())
    assert storage_root(str(tmp_path / "out")) == tmp_path / "out"
