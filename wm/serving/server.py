"""The HTTP server of `wm serve`: three paths, JSON in and out, one line for whatever is wrong.

Plain text over one connection a request, no user and no password: it is meant for the machine that it runs on.
"""

from __future__ import annotations

import errno
import json
import socket
import socketserver
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import BoundedSemaphore
from typing import Any, cast
from urllib.parse import urlsplit

from wm.config.errors import UserError, nearest
from wm.serving.deadline import Deadline
from wm.serving.plan_queue import PlanQueue
from wm.serving.refused import Refused, malformed
from wm.serving.request import read_request
from wm.serving.schema import interface_schema
from wm.serving.service import PlanService

MAX_BODY_BYTES = 16 * 2**20
MAX_CONNECTIONS = 16
READ_S = 30.0  # for a request to arrive whole
_DRAIN_S, _DRAIN_BYTES = 2.0, 4 * MAX_BODY_BYTES  # of a body that is refused unread
_END_S = 3.0  # for answers to leave when the server ends
_METHODS = {"/health": "GET", "/schema": "GET", "/plan": "POST"}

Log = Callable[[str], None]


@dataclass(frozen=True)
class Served:
    """What the server answers with.

    Args:
        about: of the model, for `/health` and `/schema`.
        timeout_s: for requests that state none.
    """

    service: PlanService
    queue: PlanQueue
    about: dict[str, Any]
    timeout_s: float


class PlanServer(ThreadingHTTPServer):
    """Holds its port from the beginning and answers from `serve` on.

    Args:
        host: a name or an address of this machine.
        port: 0 is any that is free.
        log: hears, a line each, of what is the server's own fault.

    Raises:
        UserError: the address cannot be had.
    """

    daemon_threads = True
    served: Served

    def __init__(self, host: str, port: int, log: Log) -> None:
        self._where = host, port
        self._slots = BoundedSemaphore(MAX_CONNECTIONS)
        self.log = log
        self.began_s = time.monotonic()
        self.num_plans = 0
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError) as error:
            raise UserError(f"--host: '{host}' is no address of this machine ({error.args[-1]})") from error
        self.address_family, _, _, _, address = found[0]
        super().__init__(address[:2], _Handler, bind_and_activate=False)  # type: ignore[arg-type]
        self._have(self.server_bind)

    @property
    def url(self) -> str:
        """Where it is."""
        host, port = self.server_address[:2]
        return f"http://[{host}]:{port}" if self.address_family == socket.AF_INET6 else f"http://{host}:{port}"

    def server_bind(self) -> None:
        """As a plain TCP server: HTTPServer would ask a name server for its own name."""
        socketserver.TCPServer.server_bind(self)

    def serve(self, served: Served, ready: Callable[[], None] = lambda: None) -> None:
        """Answer until KeyboardInterrupt or `shutdown`; then end what runs, and let the last answers leave."""
        self.served = served
        try:
            self._have(self.server_activate)
            ready()
            self.serve_forever(poll_interval=0.1)
        finally:
            served.queue.close()
            until_s = time.monotonic() + _END_S
            held = 0
            while held < MAX_CONNECTIONS and self._slots.acquire(timeout=max(0.0, until_s - time.monotonic())):
                held += 1
            self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """On a thread of its own, as long as there are few."""
        if not self._slots.acquire(blocking=False):
            line = f"busy: {MAX_CONNECTIONS} connections are open already"
            body = _json({"error": line, "status": 503})
            head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Length: {len(body)}\r\nRetry-After: 1\r\n"
            with suppress(OSError):  # it did not wait for an answer
                request.settimeout(1.0)
                request.sendall(f"{head}Content-Type: application/json\r\nConnection: close\r\n\r\n".encode() + body)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread for it: none gives its place back
            self._slots.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Frees its place at the end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nobody's fault."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            self.log(traceback.format_exc())

    def _have(self, step: Callable[[], None]) -> None:
        host, port = self._where
        try:
            step()
        except OSError as error:
            self.server_close()
            if error.errno == errno.EADDRINUSE:
                raise UserError(
                    f"--port: {port} on {host} is in use; give another, or 0 for any that is free"
                ) from error
            raise UserError(f"--host, --port: cannot listen on {host}, port {port} ({error.strerror})") from error


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # curl waits a second before a large body for an answer that 1.0 does not know
    timeout = READ_S  # of each read from the socket
    unread = 0  # bytes of the body that nobody has read

    @property
    def _site(self) -> PlanServer:
        return cast(PlanServer, self.server)

    def answer(self) -> None:
        """Whatever the method."""
        try:
            self._send(HTTPStatus.OK, self._route()())
        except Refused as refused:
            self._refuse(refused.status, str(refused), **refused.headers)
        except UserError as error:
            self._site.log(f"{self.path}: {error}")
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        except ConnectionError:
            raise
        except Exception as error:  # whatever it is, the client gets no traceback and the server stays up
            self._site.log(traceback.format_exc())
            line = f"the server failed ({type(error).__name__}); its own output says more"
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, line)

    def handle_expect_100(self) -> bool:
        """Refuse a body before it is sent."""
        try:
            self._route()
        except Refused as refused:
            self._refuse(refused.status, str(refused), **refused.headers)
            return False
        return super().handle_expect_100()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class refuses (a broken request line, a header too long), as JSON too."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            code, message = HTTPStatus.METHOD_NOT_ALLOWED, f"no such method: {message}"
        self.unread = _DRAIN_BYTES  # the rest of what was not HTTP
        self._refuse(HTTPStatus(code), " ".join((message or HTTPStatus(code).phrase).split())[:200])

    def version_string(self) -> str:
        """Without Python's version: nobody needs it."""
        return "wm"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a robot asks ten times a second."""

    def _route(self) -> Callable[[], dict[str, Any]]:
        """What answers this request. Raises Refused for what its headers alone say is wrong."""
        path = urlsplit(self.path).path
        if path not in _METHODS:
            raise Refused(HTTPStatus.NOT_FOUND, f"{path[:100]}: no such path.{nearest(path[:100], _METHODS)}")
        if self.command != _METHODS[path]:
            raise Refused(
                HTTPStatus.METHOD_NOT_ALLOWED,
                f"{path}: {self.command} is not allowed, ask with {_METHODS[path]}",
                Allow=_METHODS[path],
            )
        if path == "/health":
            return self._health
        if path == "/schema":
            return self._schema
        if "Origin" in self.headers:  # what any page in this machine's browser could send here
            raise Refused(HTTPStatus.FORBIDDEN, "/plan: not for web pages (the request has an Origin header)")
        return partial(self._plan, self._length())

    def _health(self) -> dict[str, Any]:
        served = self._site.served
        return {
            "status": "ok",
            **served.about,
            "busy": served.queue.is_busy,
            "waiting": served.queue.num_waiting,
            "plans": self._site.num_plans,
            "uptime_s": round(time.monotonic() - self._site.began_s, 3),
        }

    def _schema(self) -> dict[str, Any]:
        served = self._site.served
        limits = {
            "body_bytes": MAX_BODY_BYTES,
            "timeout_s": served.timeout_s,
            "waiting": served.queue.max_waiting,
            "connections": MAX_CONNECTIONS,
        }
        return {"model": served.about, **interface_schema(served.service.interface), "limits": limits}

    def _plan(self, length: int) -> dict[str, Any]:
        served = self._site.served
        request = read_request(self._body(length), served.service.interface, served.service.model)

        def work(deadline: Deadline) -> dict[str, Any]:
            return served.service.answer(request, deadline)

        found = served.queue.run(work, request.timeout_s or served.timeout_s)
        self._site.num_plans += 1
        return found

    def _length(self) -> int:
        if "Transfer-Encoding" in self.headers:
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "Content-Length must be given; chunked bodies are not read")
        text = self.headers.get("Content-Length")
        if text is None:
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "Content-Length must be given: /plan takes a JSON body")
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise malformed(f"Content-Length: expected a number of bytes, got {text[:40]!r}")
        length = int(text)
        self.unread = length
        if length > MAX_BODY_BYTES:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has {length} bytes, at most {MAX_BODY_BYTES} are read"
            )
        return length

    def _body(self, length: int) -> bytes:
        body = bytearray()
        until_s = time.monotonic() + READ_S  # the socket's own limit begins anew with every byte
        try:
            while len(body) < length and time.monotonic() < until_s:
                part = self.rfile.read1(min(length - len(body), 1 << 16))  # type: ignore[attr-defined]
                if not part:
                    raise malformed(f"the body ended after {len(body)} of {length} bytes")
                body += part
                self.unread -= len(part)
        except TimeoutError:
            pass
        if len(body) < length:
            raise Refused(HTTPStatus.REQUEST_TIMEOUT, f"{len(body)} of {length} bytes came within {READ_S:g} s")
        return bytes(body)

    def _refuse(self, status: HTTPStatus, line: str, **headers: str) -> None:
        self._send(status, {"error": line, "status": int(status)}, **headers)

    def _send(self, status: HTTPStatus, payload: dict[str, Any], **headers: str) -> None:
        body = _json(payload)
        self.send_response(status)
        every = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close", **headers}
        for name, value in every.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        if self.unread:
            self._drain()

    def _drain(self) -> None:
        """Read what the client still sends: closing at once would reset the connection before it has read the answer."""
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_WR)
        until_s = time.monotonic() + _DRAIN_S
        left = min(self.unread, _DRAIN_BYTES)
        try:
            while left > 0 and time.monotonic() < until_s:
                self.connection.settimeout(max(0.01, until_s - time.monotonic()))
                part = self.rfile.read1(1 << 16)  # type: ignore[attr-defined]
                if not part:
                    return
                left -= len(part)
        except OSError:
            return  # it went away, or stopped: there is nobody to tell


for _method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
    setattr(_Handler, f"do_{_method}", _Handler.answer)


def _json(payload: dict[str, Any]) -> bytes:
    return json.dumps(payload, allow_nan=False).encode() + b"\n"
