"""One file over HTTP from a server on this machine that breaks off, forgets, lies and refuses."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.wm.data.file_server import FileServer, serving
from tests.wm.data.samples import user_error
from wm.config.errors import UserError
from wm.data.download import CHUNK, Patience, Refused, download, format_bytes
from wm.data.public_sets import RemoteFile

BYTES = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8).tobytes()
SHA256 = hashlib.sha256(BYTES).hexdigest()
PATH = "/a/set.zip"
MIDDLE = 20 * CHUNK
QUICK = Patience(attempts=3, wait_s=0.01, timeout_s=5)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(FileServer({PATH: BYTES})) as found:
        yield found


def bring(server: FileServer, folder: Path, said: list[str] | None = None, **more: Any) -> Path:
    """Download the file and return where it is."""
    known = {"size": len(BYTES), "sha256": SHA256, **{key: more.pop(key) for key in ("size", "sha256") if key in more}}
    path = folder / "set.zip"
    heard = [] if said is None else said
    file = RemoteFile("set.zip", f"{server.url}{PATH}?view_only=secret", **known)
    download(file, path, say=heard.append, patience=QUICK, **more)
    assert not list(folder.glob("*.part*"))
    return path


def test_whole_in_one_go_and_never_again(server: FileServer, tmp_path: Path) -> None:
    heard: list[tuple[int, int | None]] = []
    path = bring(server, tmp_path, progress=lambda done, total: heard.append((done, total)))
    assert path.read_bytes() == BYTES
    assert heard[0] == (0, len(BYTES))
    assert heard[-1] == (len(BYTES), len(BYTES))
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    bring(server, tmp_path)
    assert len(server.asked) == 1


def test_a_connection_that_breaks_many_times(server: FileServer, tmp_path: Path) -> None:
    server.cuts[PATH] = [n * CHUNK for n in (8, 1, 5, 3, 10)]  # more often than `attempts`, each with some bytes
    said: list[str] = []
    assert bring(server, tmp_path, said).read_bytes() == BYTES
    assert server.ranges() == ["", *(f"bytes={n * CHUNK}-" for n in (8, 9, 14, 17, 27))]
    assert len(said) == 5
    assert said[0] == "set.zip: the connection broke (524.3 kB here); again in 0.01 s"


def test_a_server_that_cannot_go_on_in_the_middle(server: FileServer, tmp_path: Path) -> None:
    server.with_ranges = False
    server.cuts[PATH] = [MIDDLE]
    said: list[str] = []
    assert bring(server, tmp_path, said).read_bytes() == BYTES
    assert "cannot go on in the middle; from the beginning" in said[-1]
    assert server.ranges() == ["", f"bytes={MIDDLE}-"]


def test_what_comes_without_a_size_is_whole_when_it_ends(server: FileServer, tmp_path: Path) -> None:
    server.with_length = False
    assert bring(server, tmp_path, size=None).read_bytes() == BYTES


def test_one_that_always_breaks_is_given_up_and_gone_on_with_later(server: FileServer, tmp_path: Path) -> None:
    server.cuts[PATH] = [MIDDLE, 0, 0]
    message = user_error(lambda: bring(server, tmp_path))
    assert message == (
        f"set.zip: the connection broke; 1.3 MB are kept in {tmp_path}/set.zip.part, and the same command goes on"
    )
    assert (tmp_path / "set.zip.part").read_bytes() == BYTES[:MIDDLE]
    assert bring(server, tmp_path).read_bytes() == BYTES
    assert server.ranges()[-1] == f"bytes={MIDDLE}-"


@pytest.mark.parametrize("what", ["etag", "size"])
def test_a_file_that_changed_on_the_server_is_begun_again(server: FileServer, tmp_path: Path, what: str) -> None:
    server.cuts[PATH] = [MIDDLE, 0, 0]
    user_error(lambda: bring(server, tmp_path, size=None, sha256=None))
    other = BYTES[::-1] if what == "etag" else BYTES[::-1] + b"more"
    server.files[PATH] = other
    if what == "size":
        server.etags[PATH] = f'"{hashlib.sha256(BYTES).hexdigest()[:12]}"'
    said: list[str] = []
    assert bring(server, tmp_path, said, size=None, sha256=None).read_bytes() == other
    assert said == ["set.zip: changed on the server; from the beginning"]


def test_a_part_that_nothing_identifies_is_not_gone_on_with(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "set.zip.part").write_bytes(b"\0" * 1000)
    assert bring(server, tmp_path).read_bytes() == BYTES
    (tmp_path / "set.zip").unlink()
    (tmp_path / "set.zip.part").write_bytes(b"\0" * 1000)
    (tmp_path / "set.zip.part.json").write_text('{"size": null, "etag": null}')
    assert bring(server, tmp_path).read_bytes() == BYTES
    assert server.ranges() == ["", ""]


def test_killed_after_the_last_byte(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "set.zip.part").write_bytes(BYTES)
    (tmp_path / "set.zip.part.json").write_text(json.dumps({"size": len(BYTES), "etag": None}))
    assert bring(server, tmp_path).read_bytes() == BYTES
    assert server.ranges() == [f"bytes={len(BYTES)}-"]


def test_a_wrong_checksum_is_refused_and_the_damaged_file_removed(server: FileServer, tmp_path: Path) -> None:
    message = user_error(lambda: bring(server, tmp_path, sha256="0" * 64))
    assert f"its sha256 is {SHA256}, expected {'0' * 64}: damaged, or another file. Removed;" in message
    assert not list(tmp_path.iterdir())


def test_another_size_than_the_published_one(server: FileServer, tmp_path: Path) -> None:
    message = user_error(lambda: bring(server, tmp_path, size=12))
    assert "has 3000000 bytes, expected 12: another file than the one known here" in message
    assert not list(tmp_path.iterdir())
    server.with_length = False
    message = user_error(lambda: bring(server, tmp_path, size=12, sha256=None))
    assert "3000000 bytes, expected 12: removed" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "does not have it (404)"), (410, "does not have it (410)"), (418, "answers 418"), (403, "refuses it (403)")],
)
def test_what_another_attempt_cannot_mend(server: FileServer, tmp_path: Path, status: int, words: str) -> None:
    server.statuses[PATH] = [status] * 9
    with pytest.raises(Refused if status == 403 else UserError, match=words.replace("(", r"\(").replace(")", r"\)")):
        bring(server, tmp_path)
    assert len(server.asked) == 1


def test_what_passes_is_tried_again(server: FileServer, tmp_path: Path) -> None:
    server.statuses[PATH] = [500, 503]
    said: list[str] = []
    assert bring(server, tmp_path, said).read_bytes() == BYTES
    assert [line.split("says ")[1][:3] for line in said] == ["500", "503"]
    server.statuses[PATH] = [502] * 9
    (tmp_path / "set.zip").unlink()
    message = user_error(lambda: bring(server, tmp_path))
    assert message.endswith("says 502; nothing has come")
    assert "secret" not in message


def test_a_server_that_asks_to_wait(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.statuses[PATH], server.headers = [429], {"Retry-After": "7"}
    waits: list[float] = []
    monkeypatch.setattr("wm.data.download.time.sleep", waits.append)
    bring(server, tmp_path)
    assert waits == [7.0]


def test_a_redirect_is_followed_without_the_login(server: FileServer, tmp_path: Path) -> None:
    with serving(FileServer({"/storage": BYTES})) as storage:
        # Another name of this machine: to another host a login must not go along.
        server.redirects[PATH] = storage.url.replace("127.0.0.1", "localhost") + "/storage?signature=abc"
        storage.cuts["/storage"] = [MIDDLE]
        said: list[str] = []
        assert bring(server, tmp_path, said, headers={"Authorization": "Bearer secret"}).read_bytes() == BYTES
        assert [headers.get("Authorization") for _, _, headers in server.asked] == ["Bearer secret"] * 2
        assert [headers.get("Authorization") for _, _, headers in storage.asked] == [None] * 2
        assert storage.ranges() == ["", f"bytes={MIDDLE}-"]
    assert not [line for line in said if "signature" in line or "secret" in line]


def test_no_server_at_all(tmp_path: Path) -> None:
    with serving(FileServer()) as gone:
        pass
    assert "cannot be reached; nothing has come" in user_error(lambda: bring(gone, tmp_path))
    file = RemoteFile("set.zip", "http://no-such-host.invalid/set.zip")
    message = user_error(lambda: download(file, tmp_path / "set.zip", patience=QUICK))
    assert message == "set.zip: no-such-host.invalid is not found: no network?; nothing has come"


def test_a_server_that_falls_silent(server: FileServer, tmp_path: Path) -> None:
    server.pause_s = 1.0
    file = RemoteFile("set.zip", server.url + PATH)
    message = user_error(
        lambda: download(file, tmp_path / "set.zip", patience=Patience(attempts=1, wait_s=0.01, timeout_s=0.2))
    )
    assert "has not answered for 0.2 s" in message or "the connection broke" in message


def test_a_full_disk_in_the_middle(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() > 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    def limited(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        return Full(path, mode.replace("b", "")) if path.suffix == ".part" and "r" not in mode else opened(path, mode)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", limited)
        message = user_error(lambda: bring(server, tmp_path))
    assert "the disk is full; what is there is kept: free some space and run the same command" in message
    kept = (tmp_path / "set.zip.part").stat().st_size
    assert 0 < kept < len(BYTES)
    assert bring(server, tmp_path).read_bytes() == BYTES
    assert server.ranges()[-1] == f"bytes={kept}-"


def test_killed_again_and_again_it_goes_on(server: FileServer, tmp_path: Path) -> None:
    server.pause_s = 0.01  # the whole takes about two seconds
    part = tmp_path / "set.zip.part"
    code = (
        "import sys; from pathlib import Path; from wm.data.download import download; "
        "from wm.data.public_sets import RemoteFile; "
        f"download(RemoteFile('set.zip', sys.argv[1], sha256='{SHA256}'), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, server.url + PATH, str(tmp_path / "set.zip")]
    sizes = [0]
    for _ in range(2):
        process = subprocess.Popen(command, cwd=Path(__file__).parents[3])
        deadline = time.monotonic() + 30
        while not part.exists() or part.stat().st_size < sizes[-1] + 200_000:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        sizes.append(part.stat().st_size)
    server.pause_s = 0.0
    assert bring(server, tmp_path).read_bytes() == BYTES
    assert server.ranges() == ["", *(f"bytes={size}-" for size in sizes[1:])]


def test_sizes_in_words() -> None:
    assert [format_bytes(n) for n in (0, 999, 21_084_088, 1_668_205_895, 4e14)] == [
        "0 bytes", "999 bytes", "21.1 MB", "1.7 GB", "400.0 TB",
    ]  # fmt: skip
