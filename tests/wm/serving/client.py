"""A client that says exactly what was answered, and servers for it to ask."""

from __future__ import annotations

import base64
import http.client
import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ray_jobs.serve import open_served, plan_config
from tests.wm.data import samples
from wm.serving.server import PlanServer, Served
from wm.training.checkpoint import find_checkpoint


class Answer(NamedTuple):
    status: int
    body: dict[str, Any]
    headers: dict[str, str]
    wall_s: float

    @property
    def error(self) -> str:
        """The line, which must be one, and free of Python."""
        line = self.body["error"]
        assert self.body == {"error": line, "status": self.status}
        assert "\n" not in line
        assert "Traceback" not in line
        assert 0 < len(line) < 500
        return line


class Client:
    """Of one server."""

    def __init__(self, url: str) -> None:
        self.host = url.removeprefix("http://")

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Bytes are sent as they are, all else as JSON."""
        connection = http.client.HTTPConnection(self.host, timeout=60)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        began_s = time.monotonic()
        connection.request(method, path, data, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        text = answer.read()
        wall_s = time.monotonic() - began_s
        connection.close()
        assert answer.headers["Content-Type"] == "application/json"
        return Answer(answer.status, json.loads(text) if text else {}, dict(answer.headers), wall_s)

    def plan(self, **request: Any) -> Answer:
        return self.ask("POST", "/plan", request)

    def health(self) -> dict[str, Any]:
        answer = self.ask("GET", "/health")
        assert answer.status == 200
        assert answer.body["status"] == "ok"
        return answer.body

    def wait_until_idle(self, within_s: float) -> None:
        until_s = time.monotonic() + within_s
        while self.health()["busy"]:
            assert time.monotonic() < until_s, "the server is still busy"
            time.sleep(0.02)


def encoded(frame: np.ndarray, form: str = "PNG", **how: Any) -> str:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, form, **how)
    return base64.b64encode(buffer.getvalue()).decode()


def frame(number: int = 0, episode: int = 0) -> np.ndarray:
    return samples.wall_source().episode(episode).frames([number])[0]


def request(**changes: Any) -> dict[str, Any]:
    """One that is answered with a plan; None takes a key away."""
    whole = {"start": encoded(frame()), "goal": encoded(frame(20)), "proprio": [20.0, 30.0], **changes}
    return {key: value for key, value in whole.items() if value is not None}


def opened(*overrides: str, variant: str = "align_recon", timeout_s: float = 30.0, path: Path | None = None) -> Served:
    checkpoint = find_checkpoint(path or samples.trained(variant).folder.path)
    return open_served(checkpoint, plan_config(checkpoint, overrides), timeout_s, "cpu")


@contextmanager
def serving(served: Served, log: Callable[[str], None] = lambda line: None) -> Iterator[Client]:
    server = PlanServer("127.0.0.1", 0, log)
    thread = Thread(target=server.serve, args=(served,))
    thread.start()
    try:
        yield Client(server.url)
    finally:
        server.shutdown()
        thread.join(10)
        assert not thread.is_alive()
