"""One file over HTTP, whole and checked: goes on after any interruption, from the bytes that are there.

What has come lies in `NAME.part`, and `NAME.part.json` says which file of the server it is a part of. huggingface_hub 2.4 begins a
file again when its process was killed, so the hub's files come this way, too.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import requests

from wm.config.errors import UserError
from wm.data.atomic import FULL, write_json
from wm.data.public_sets import RemoteFile

CHUNK = 1 << 16  # what a broken connection loses at most
PASSING = (408, 425, 429, 500, 502, 503, 504)
LONGEST_WAIT_S = 60.0
SLOW_TO_CHECK = 10**9  # bytes


class Patience(NamedTuple):
    """How long a server is tried.

    Args:
        attempts: in a row that bring not one byte.
        wait_s: before the second; doubled each time.
        timeout_s: without a sign of the server.
    """

    attempts: int = 5
    wait_s: float = 1.0
    timeout_s: float = 30.0


PATIENCE = Patience()


class Refused(UserError):
    """The server wants to know who asks, or will not give the file to them."""


class _Passing(Exception):
    """Worth another attempt.

    Args:
        wait_s: what the server asked for.
    """

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _Remote(NamedTuple):
    """Which file of the server a part belongs to."""

    size: int | None
    etag: str | None

    def is_other(self, now: _Remote) -> bool:
        """Whether a part of this cannot be gone on with from `now`."""
        return any(a is not None and b is not None and a != b for a, b in zip(self, now, strict=True))


def download(
    file: RemoteFile,
    path: Path,
    *,
    headers: Mapping[str, str] | None = None,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
    patience: Patience = PATIENCE,
) -> None:
    """Bring `file` to `path`; nothing happens where it is already.

    Args:
        headers: more of them, such as a login; they go to the first server only, never to one that it names instead.
        progress: hears bytes here, of how many.
        say: hears of what goes wrong and is tried again.

    Raises:
        UserError: the server does not have it, does not answer, has another file, or the disk is full. What came stays, and the
            next call goes on, unless it is damaged: then it is removed.
        Refused: without a login, or with the wrong one.
    """
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    failures = 0
    with requests.Session() as session:
        while True:
            before = _size(part)
            try:
                if _receive(session, file, part, headers or {}, progress, say, patience):
                    break
            except _Passing as fault:
                failures = 1 if _size(part) > before else failures + 1
                if failures >= patience.attempts:
                    raise UserError(_gave_up(file, part, str(fault))) from fault
                wait_s = min(max(patience.wait_s * 2 ** (failures - 1), fault.wait_s), LONGEST_WAIT_S)
                say(f"{file.name}: {fault} ({format_bytes(_size(part))} here); again in {wait_s:g} s")
                time.sleep(wait_s)
    if file.sha256 is not None and _size(part) > SLOW_TO_CHECK:
        say(f"{file.name}: checking its sha256")
    _check(file, part)
    part.replace(path)
    _note(part).unlink(missing_ok=True)


def size_here(path: Path) -> int:
    """Bytes of a file that `download` brought, or of its part."""
    return _size(path) or _size(path.with_name(f"{path.name}.part"))


def host_of(url: str) -> str:
    """The server's name; an address may hold what is nobody else's business after it."""
    return urlsplit(url).netloc.rpartition("@")[2] or url[:60]


def format_bytes(count: float) -> str:
    """'21.1 MB', '1.7 GB'."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:g} bytes"


@contextmanager
def full_disk_said(where: Path):
    """One line for a disk that fills up. Raises UserError."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(
            f"{where}: the disk is full; what is there is kept: free some space and run the same command"
        ) from error


def _receive(
    session: requests.Session,
    file: RemoteFile,
    part: Path,
    headers: Mapping[str, str],
    progress: Callable[[int, int | None], None],
    say: Callable[[str], None],
    patience: Patience,
) -> bool:
    """One request. True when the part is whole, False when it must be asked for again from the beginning."""
    known = _remote(part)
    have = _size(part) if known is not None and any(known) else 0  # nobody could tell whether it changed
    asked = {**headers, "Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with _requests_faults(file, patience):
        response = session.get(file.url, headers=asked, stream=True, timeout=patience.timeout_s)
    with response:
        status = response.status_code
        total = _total(response)
        now = _Remote(total, response.headers.get("ETag"))
        if status == 416 and known is not None and total == have == known.size:
            return True  # killed after the last byte
        if status in (200, 206) and file.size is not None and total not in (None, file.size):
            _drop(part)
            raise UserError(
                f"{file.name}: {host_of(response.url)} has {total} bytes, expected {file.size}: another file than the one known "
                "here. Download it by hand if you trust it, and give its folder as path"
            )
        if known is not None and (
            status == 416 or (status == 206 and (known.is_other(now) or _start(response) != have))
        ):
            say(f"{file.name}: changed on the server; from the beginning")
            _drop(part)
            return False
        if status not in (200, 206):
            raise _fault(file, response)
        if status == 200 and have:
            changed = known is not None and known.is_other(now)
            why = "changed on the server" if changed else f"{host_of(response.url)} cannot go on in the middle"
            say(f"{file.name}: {why}; from the beginning")
        with full_disk_said(part), part.open("ab" if status == 206 else "wb") as handle:
            if status == 200:
                have = 0
                write_json(
                    _note(part), now._asdict()
                )  # the part is empty by now: never bytes of one file, facts of another
            progress(have, total)
            with _requests_faults(file, patience):
                for chunk in response.iter_content(CHUNK):
                    handle.write(chunk)
                    handle.flush()
                    have += len(chunk)
                    progress(have, total)
    if total is not None and have != total:
        raise _Passing("the connection broke")
    return True


@contextmanager
def _requests_faults(file: RemoteFile, patience: Patience):
    """Turns the library's errors into another attempt, or into one line. None of their text is shown: it holds addresses."""
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise UserError(f"{file.name}: {host_of(file.url)}: its certificate is not trusted on this machine") from error
    except requests.exceptions.Timeout as error:
        raise _Passing(f"{host_of(file.url)} has not answered for {patience.timeout_s:g} s") from error
    except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
        text = str(error)
        if "NameResolution" in text:
            raise _Passing(f"{host_of(file.url)} is not found: no network?") from error
        refused = "refused" in text or "unreachable" in text or "ProxyError" in text
        raise _Passing(f"{host_of(file.url)} cannot be reached" if refused else "the connection broke") from error
    except requests.exceptions.RequestException as error:
        raise UserError(f"{file.name}: {host_of(file.url)}: not an address to download from") from error


def _fault(file: RemoteFile, response: requests.Response) -> Exception:
    where = f"{file.name}: {host_of(response.url)}"
    status = response.status_code
    if status in PASSING:
        wait = response.headers.get("Retry-After", "")
        return _Passing(f"{host_of(response.url)} says {status}", float(wait) if wait.isdigit() else 0.0)
    if status in (401, 403):
        return Refused(f"{where} refuses it ({status})")
    if status in (404, 410):
        return UserError(f"{where} does not have it ({status})")
    return UserError(f"{where} answers {status} {response.reason}")


def _gave_up(file: RemoteFile, part: Path, reason: str) -> str:
    have = _size(part)
    kept = f"{format_bytes(have)} are kept in {part}, and the same command goes on" if have else "nothing has come"
    return f"{file.name}: {reason}; {kept}"


def _check(file: RemoteFile, part: Path) -> None:
    """Raises UserError for another size or checksum, and removes what has it."""
    size = _size(part)
    if file.size is not None and size != file.size:
        _drop(part)
        raise UserError(f"{part}: {size} bytes, expected {file.size}: removed; the same command downloads it again")
    if file.sha256 is None:
        return
    digest = hashlib.sha256()
    with part.open("rb") as handle:
        while block := handle.read(1 << 22):
            digest.update(block)
        os.fsync(handle.fileno())
    if digest.hexdigest() != file.sha256:
        _drop(part)
        raise UserError(
            f"{part}: its sha256 is {digest.hexdigest()}, expected {file.sha256}: damaged, or another file. Removed; the same command "
            "downloads it again"
        )


def _total(response: requests.Response) -> int | None:
    """Bytes of the whole file."""
    if response.status_code in (206, 416):
        found = re.fullmatch(r"bytes (?:\d+-\d+|\*)/(\d+)", response.headers.get("Content-Range", ""))
        return int(found[1]) if found else None
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _start(response: requests.Response) -> int | None:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _remote(part: Path) -> _Remote | None:
    try:
        found = json.loads(_note(part).read_text(encoding="utf-8"))
        return _Remote(found["size"], found["etag"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _drop(part: Path) -> None:
    _note(part).unlink(missing_ok=True)
    part.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
