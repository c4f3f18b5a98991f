"""The jobs API of a cluster's dashboard, and one line for whatever is wrong with its address, its token or its version."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ray_jobs import use_configured_token
from wm.config.errors import UserError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
_ANSWER_S = 5.0
_ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # Ray prefers either to what it is given
_CHATTY = (
    "ray.dashboard.modules.job.sdk",
    "ray.dashboard.modules.dashboard_sdk",
    "ray._private.runtime_env.packaging",
)


def server_address(given: str | None) -> str:
    """--address, else Ray's own variables, else this machine's dashboard, as http(s)://host:port."""
    found = next((value for name in _ADDRESS_VARIABLES if (value := os.environ.get(name, "").strip())), "")
    address = (given or found).strip()
    if address in ("", "auto", "local"):
        return DEFAULT_ADDRESS
    address = address if "://" in address else f"http://{address}"
    parts = urlsplit(address)
    try:
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number
        valid = False
    if not valid:
        raise UserError(f"--address: {_shown(address)}: expected the head's dashboard, as in {DEFAULT_ADDRESS}")
    return address.rstrip("/")


def connect(given: str | None, *, same_version: bool = False) -> JobSubmissionClient:
    """A client that has been answered. Raises UserError within seconds when it is not.

    Args:
        given: --address, or None.
        same_version: refuse a cluster whose Ray is not the one of our lock.
    """
    address = server_address(given)
    use_configured_token()
    _check_is_dashboard(address)
    import ray
    from ray.job_submission import JobSubmissionClient

    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    with faults_in_one_line(address), _only_address(address):
        client = JobSubmissionClient(address)
    theirs = getattr(client, "_server_ray_version", None)
    if same_version and theirs not in (None, ray.__version__):
        raise UserError(
            f"{_shown(address)}: the cluster runs Ray {theirs}, but wm here runs {ray.__version__}; "
            "set its nodes up from requirements.lock"
        )
    return client


@contextmanager
def faults_in_one_line(address: str) -> Iterator[None]:
    """Whatever a request fails with, as a UserError that names the address."""
    import aiohttp
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise UserError(f"{_shown(address)}: {_token_fault(error.message)}") from error
    except (requests.RequestException, aiohttp.ClientError, OSError) as error:  # ConnectionError is an OSError
        raise UserError(f"{_shown(address)}: no answer ({_last_line(error)})") from error
    except (RuntimeError, ValueError) as error:  # any other status, with the server's traceback in it
        raise UserError(f"{_shown(address)}: {_last_line(error)}") from error


def _check_is_dashboard(address: str) -> None:
    """Ask before Ray does: it has no time limits, and takes another server's answer for its own."""
    import requests

    hint = "is the head up, and is this its dashboard?"
    try:
        # Without the token: it goes to no server that is not Ray's.
        answer = requests.get(f"{address}/api/version", timeout=_ANSWER_S, allow_redirects=False)
    except requests.exceptions.SSLError as error:
        raise UserError(f"{_shown(address)}: {_last_line(error)}") from error
    except requests.ConnectTimeout as error:
        raise UserError(f"{_shown(address)}: no answer within {_ANSWER_S:g} s; {hint}") from error
    except requests.RequestException as error:
        # Jobs go over HTTP; a person may have named the port that `ray.init` takes.
        unheard = _connection_fault(error)
        reason = f"no answer ({unheard})" if unheard else "what answers is not a Ray dashboard"
        raise UserError(f"{_shown(address)}: {reason}; {hint} (as in {DEFAULT_ADDRESS})") from error
    if answer.status_code in (401, 403):
        return  # it asks for a token
    try:
        answer.raise_for_status()
        answer.json()["ray_version"]
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{_shown(address)}: what answers is not a Ray dashboard (status {answer.status_code}); {hint}"
        ) from error


def _connection_fault(error: Exception) -> str | None:
    """Why there is nobody at the other end; None when there is somebody."""
    from urllib3.exceptions import NewConnectionError

    reason = getattr(error.args[0], "reason", None) if error.args else None
    if not isinstance(reason, NewConnectionError):
        return None
    return re.sub(r".*\[Errno -?\d+\] ", "", str(reason)).rstrip(")")


def _token_fault(message: str) -> str:
    if message.startswith("Authentication required"):
        return "asks for a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
    if message.startswith("Authentication failed"):
        path = os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")
        source = "RAY_AUTH_TOKEN" if os.environ.get("RAY_AUTH_TOKEN") else path
        return f"refuses the token of {source}"
    return message.splitlines()[0].split(". ")[0]


def _shown(address: str) -> str:
    """Without a password."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip().rstrip(".")[:300]


@contextmanager
def _only_address(address: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _ADDRESS_VARIABLES}
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
