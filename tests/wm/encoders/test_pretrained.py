"""Hub id, mirror or folder: where weights are looked for, and the one line when they are not there."""

from __future__ import annotations

import hashlib
import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.wm.encoders.samples import SAMPLES, dinov2, make, saved
from wm.config.errors import UserError

PRETRAINED = [name for name, sample in SAMPLES.items() if sample.network is not None]
COMMIT = "0" * 40
LOAD = """
import os, urllib.error, urllib.request
from wm.build import build_encoder
from wm.config.encoder import Dinov2EncoderConfig
for _ in range(2):
    print(build_encoder(Dinov2EncoderConfig(weights="lab/tiny-dinov2", image_size=64, encode_size=42)).fingerprint)
    try:
        urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/loaded")
    except urllib.error.HTTPError:
        pass
"""


def refusal(name: str, folder: Path, weights: Path | str) -> str:
    with pytest.raises(UserError) as raised:
        make(name, folder, weights=weights)  # type: ignore[arg-type]
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith("encoder.weights: no ")
    for way_out in ("encoder.weights=FOLDER", "HF_ENDPOINT", "HF_HOME", "encoder.kind=tiny"):
        assert way_out in message
    return message


@pytest.mark.parametrize("name", PRETRAINED)
def test_every_kind_says_what_was_looked_for_and_where(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    title = {"dinov2": "DINOv2", "dinov3": "DINOv3 ViT", "vjepa2": "V-JEPA 2", "resnet18": "ResNet"}[name.split()[0]]
    message = refusal(name, tmp_path, "nobody/has-this")
    assert f"no {title} found in the hub's cache for 'nobody/has-this' (" in message
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"no {title} found in the folder {empty}" in refusal(name, tmp_path, empty)


@pytest.mark.parametrize("name", ["dinov3", "vjepa2 frame", "resnet18 patch"])
def test_weights_of_another_family_are_refused(name, tmp_path):
    """Fault: they would load, and be given images prepared for another network."""
    assert "its config.json says model_type 'dinov2'" in refusal(name, tmp_path, saved(dinov2, tmp_path))


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of a hub as a download asks for: lab/tiny-dinov2 at one commit."""

    folder: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        self.asked.append(self.path)
        prefix = f"/lab/tiny-dinov2/resolve/{'main' if '/main/' in self.path else COMMIT}/"
        file = self.folder / self.path.removeprefix(prefix)
        found = self.path.startswith(prefix) and file.is_file()
        content = file.read_bytes() if found else b""
        self.send_response(200 if found else 404)
        if found:
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        else:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.slow
def test_a_mirror_of_the_hub_is_the_hubs_own_variable(tmp_path):
    """HF_ENDPOINT is read when the hub's library is imported: a process of its own."""
    folder = saved(dinov2, tmp_path)
    handler = type("Handler", (Hub,), {"folder": folder, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        proxies = {name: "" for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")}
        mirror = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "cache")}
        environment = {**os.environ, **proxies, **mirror, "PYTHONPATH": os.pathsep.join(sys.path)}
        environment.pop("HF_HUB_OFFLINE", None)
        run = subprocess.run(
            [sys.executable, "-c", LOAD], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
    finally:
        server.shutdown()
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.split() == [make("dinov2", tmp_path).fingerprint] * 2
    asked: list[str] = handler.asked  # type: ignore[attr-defined]
    assert any(path.endswith("/model.safetensors") for path in asked)
    assert asked[-2:] == ["/loaded", "/loaded"]  # what is in the cache is not asked for again
