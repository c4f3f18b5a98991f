"""Fetching in tests: a table with other origins, and the Hugging Face hub on this machine."""

from __future__ import annotations

import hashlib
import io
import json
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

import pytest
from rich.console import Console

from ray_jobs.fetch_data import fetch_data
from ray_jobs.runtime.fetching import Wanted
from ray_jobs.runtime.progress import Narrator
from tests.wm.data.file_server import FileServer
from wm.data import public_sets
from wm.data.download import Patience
from wm.data.public_sets import PUBLIC_SETS, PublicSet

QUICK = Patience(attempts=2, wait_s=0.01, timeout_s=5)


def put(monkeypatch: pytest.MonkeyPatch, name: str, origin: Any) -> None:
    """In the table, in place of the real origin."""
    monkeypatch.setitem(dict_of_sets(), name, replace(PUBLIC_SETS[name], origin=origin))


def dict_of_sets() -> dict[str, PublicSet]:
    return public_sets.PUBLIC_SETS  # type: ignore[return-value]


def fetch(name: str, **wanted: Any) -> str:
    """Everything that is said."""
    with redirect_stdout(io.StringIO()) as heard:
        fetch_data(name, Wanted(**wanted), Narrator(Console(width=300)), QUICK)
    return heard.getvalue()


class Hub:
    """The four answers of the Hugging Face hub that are needed, for one data set.

    Args:
        files: path -> bytes.
        revision: what was asked for last.
        newest: commit.
    """

    def __init__(self, server: FileServer, repository: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server, self.files, self.revision, self.newest = server, dict[str, bytes](), "", "c" * 40
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        api = f"/api/datasets/{repository}"
        server.answers = {
            ("GET", f"{api}"): lambda path, sent: self._json({"id": repository, "sha": self.newest}),
            ("GET", f"{api}/tree/.*"): lambda path, sent: self._json(
                [self._told(name) for name in self.files if name.startswith("meta/")]
            ),
            ("POST", f"{api}/paths-info/.*"): self._paths,
            ("GET", f"/datasets/{repository}/resolve/.*"): self._resolve,
        }

    def _paths(self, path: str, sent: bytes) -> tuple[int, dict[str, str], bytes]:
        self.revision = path.rpartition("/")[2]
        return self._json([self._told(name) for name in parse_qs(sent.decode())["paths"] if name in self.files])

    def _resolve(self, path: str, sent: bytes) -> tuple[int, dict[str, str], bytes]:
        name = path.split("/resolve/")[1].partition("/")[2]
        return 302, {"Location": f"{self.server.url}/cdn/{name}?signature=abc"}, b""

    def _told(self, name: str) -> dict[str, Any]:
        data = self.files[name]
        self.server.files[f"/cdn/{name}"] = data
        lfs = {"size": len(data), "oid": hashlib.sha256(data).hexdigest(), "pointerSize": 130}
        is_text = name.endswith((".json", ".jsonl"))
        return {"type": "file", "path": name, "size": len(data), "oid": "0" * 40, **({} if is_text else {"lfs": lfs})}

    @staticmethod
    def _json(value: Any) -> tuple[int, dict[str, str], bytes]:
        return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()
