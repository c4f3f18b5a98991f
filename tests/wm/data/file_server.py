"""A file server on 127.0.0.1 that misbehaves as told."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class FileServer:
    """What it holds, how it fails, and what it was asked.

    Args:
        files: path -> bytes.
        statuses: path -> statuses to answer with, one after another, before it behaves; headers with the first.
        cuts: path -> how many bytes of a body to send before the connection breaks, one after another.
        redirects: path -> address.
        answers: (method, path pattern) -> what answers, for an API.
        with_ranges, with_length: whether it can go on in the middle, whether it tells sizes.
        etags: path -> ETag; the default is one of the bytes.
        pause_s: before each 16 kB.
        asked: (method, path, headers) of every request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    answers: dict[tuple[str, str], Callable[[str, bytes], Answer]] = field(default_factory=dict)
    with_ranges: bool = True
    with_length: bool = True
    etags: dict[str, str] = field(default_factory=dict)
    pause_s: float = 0.0
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def ranges(self) -> list[str]:
        """The Range header of every GET, empty where there was none."""
        return [headers.get("Range", "") for method, _, headers in self.asked if method == "GET"]


@contextmanager
def serving(server: FileServer) -> Iterator[FileServer]:
    """It, with its `url`, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer("GET")

        def do_HEAD(self) -> None:
            self._answer("HEAD")

        def do_POST(self) -> None:
            self._answer("POST")

        def log_message(self, *args: object) -> None:
            pass

        def _answer(self, method: str) -> None:
            path = self.path.split("?")[0]
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            server.asked.append((method, self.path, dict(self.headers)))
            if server.statuses.get(path):
                self._send(method, server.statuses[path].pop(0), server.headers, b"no")
            elif path in server.redirects:
                self._send(method, 302, {"Location": server.redirects[path]}, b"")
            elif path in server.files:
                self._file(method, path, server.files[path])
            else:
                for (its, pattern), answer in server.answers.items():
                    if its == method and re.fullmatch(pattern, path):
                        self._send(method, *answer(self.path, sent))
                        return
                self._send(method, 404, {}, b"no such file")

        def _file(self, method: str, path: str, whole: bytes) -> None:
            headers = {"ETag": server.etags.get(path, f'"{hashlib.sha256(whole).hexdigest()[:12]}"')}
            start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if start is None or not server.with_ranges:
                self._send(method, 200, headers, whole, server.cuts.get(path))
            elif int(start[1]) >= len(whole):
                self._send(method, 416, {**headers, "Content-Range": f"bytes */{len(whole)}"}, b"")
            else:
                first = int(start[1])
                headers["Content-Range"] = f"bytes {first}-{len(whole) - 1}/{len(whole)}"
                self._send(method, 206, headers, whole[first:], server.cuts.get(path))

        def _send(
            self, method: str, status: int, headers: dict[str, str], body: bytes, cuts: list[int] | None = None
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if server.with_length or status != 200:
                self.send_header("Content-Length", str(len(body)))
            else:
                self.send_header("Connection", "close")
            self.end_headers()
            if method == "HEAD":
                return
            if cuts:
                body = body[: cuts.pop(0)]
                self.close_connection = True
            for begin in range(0, len(body), 1 << 14):
                if server.pause_s:
                    time.sleep(server.pause_s)
                try:
                    self.wfile.write(body[begin : begin + (1 << 14)])
                    self.wfile.flush()
                except OSError:  # the other end went away
                    self.close_connection = True
                    return
            if not server.with_length:
                self.close_connection = True

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
