"""Zip archives: nothing leaves the folder, nothing is half there, and a killed call is gone on with."""

from __future__ import annotations

import errno
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.wm.data.samples import user_error
from wm.data.unpack import Members, join_parts, need_joiner

FILES = {
    "set/states.pth": b"states" * 100,
    "set/obses/episode_000.mp4": b"frames" * 1000,
    "set/obses/episode_001.mp4": b"more" * 1000,
}


def archive(file: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in files.items():
            zipped.writestr(name, data)
    return file


def test_files_lie_below_the_one_outer_folder_and_rubbish_stays_away(tmp_path: Path) -> None:
    more = {"set/empty/": b"", "__MACOSX/set/._states.pth": b"x", "set/.DS_Store": b"x"}
    members = Members(archive(tmp_path / "set.zip", {**FILES, **more}))
    heard: list[tuple[int, int]] = []
    members.unpack(tmp_path / "out", lambda done, total: heard.append((done, total)))
    found = {str(p.relative_to(tmp_path / "out")): p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert found == {name.removeprefix("set/"): data for name, data in FILES.items()}
    assert members.num_bytes == sum(map(len, FILES.values()))
    assert heard[-1] == (members.num_bytes, members.num_bytes)


def test_without_an_outer_folder_nothing_is_taken_off(tmp_path: Path) -> None:
    Members(archive(tmp_path / "set.zip", {"rope/a": b"1", "granular/a": b"2"})).unpack(tmp_path / "out")
    assert (tmp_path / "out/rope/a").read_bytes() == b"1"
    Members(archive(tmp_path / "flat.zip", {"a": b"1"})).unpack(tmp_path / "flat")
    assert (tmp_path / "flat/a").read_bytes() == b"1"


@pytest.mark.parametrize("name", ["../out", "set/../../out", "/tmp/out", "set\\..\\out"])
def test_a_member_that_leads_out_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    file = archive(tmp_path / "set.zip", {"set/good": b"good", name: b"bad"})
    message = user_error(lambda: Members(file).unpack(tmp_path / "in/out"))
    assert message == f"{file}: '{name}' leads out of the folder: nothing of this archive is unpacked"
    assert list(tmp_path.iterdir()) == [file]


def test_names_are_as_long_as_the_system_takes_them(tmp_path: Path) -> None:
    long = archive(tmp_path / "long.zip", {f"set/{'ü' * 127}a": b"long", "set/b": b"b"})
    Members(long).unpack(tmp_path / "out")
    assert (tmp_path / "out" / f"{'ü' * 127}a").read_bytes() == b"long"
    longer = archive(tmp_path / "longer.zip", {f"set/{'ü' * 128}": b"longer", "set/b": b"b"})
    message = user_error(lambda: Members(longer).unpack(tmp_path / "none"))
    assert "has a name of more than 255 bytes: nothing of this archive is unpacked" in message
    assert not (tmp_path / "none").exists()
    deep = archive(tmp_path / "deep.zip", {"/".join(["d" * 250] * 17): b"deep", "b": b"b"})
    assert "deep.zip: a path in it is too long" in user_error(lambda: Members(deep).unpack(tmp_path / "deep"))


def test_links_and_encrypted_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "set.zip"
    with zipfile.ZipFile(file, "w") as zipped:
        link = zipfile.ZipInfo("set/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        zipped.writestr(link, "/etc/passwd")
    assert "'set/link' is a link" in user_error(lambda: Members(file))
    data = bytearray(archive(file, {"set/a": b"a"}).read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    file.write_bytes(data)
    assert "'set/a' is encrypted" in user_error(lambda: Members(file))


def test_what_is_no_archive_or_a_damaged_one(tmp_path: Path) -> None:
    file = tmp_path / "set.zip"
    file.write_bytes(b"<html>down for maintenance</html>")
    assert "no zip archive, or a damaged one (File is not a zip file)" in user_error(lambda: Members(file))
    data = bytearray(archive(file, FILES).read_bytes())
    data[data.index(b"episode_000.mp4") + 20] ^= 0xFF
    file.write_bytes(data)
    members = Members(file)
    assert f"{file}: no zip archive, or a damaged one" in user_error(lambda: members.unpack(tmp_path / "out"))
    assert not (tmp_path / "out/obses/episode_000.mp4").exists()
    archive(file, {"a": b"file", "a/b": b"folder"})
    assert "holds a file and a folder of one name" in user_error(lambda: Members(file).unpack(tmp_path / "two"))
    assert "holds no files" in user_error(lambda: Members(archive(file, {})))


def test_an_interrupted_one_writes_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = Members(archive(tmp_path / "set.zip", FILES))
    copied: list[str] = []
    copy = shutil.copyfileobj

    def stopped(source: Any, sink: Any, length: int) -> None:
        copied.append(source.name)
        if source.name.endswith("001.mp4"):
            sink.write(b"half")
            raise KeyboardInterrupt
        copy(source, sink, length)

    with monkeypatch.context() as patched:
        patched.setattr("wm.data.unpack.shutil.copyfileobj", stopped)
        with pytest.raises(KeyboardInterrupt):
            members.unpack(tmp_path / "out")
        assert not (tmp_path / "out/obses/episode_001.mp4").exists()
        copied.clear()
        with pytest.raises(KeyboardInterrupt):
            members.unpack(tmp_path / "out")
        assert copied == ["set/obses/episode_001.mp4"]
    members.unpack(tmp_path / "out")
    assert (tmp_path / "out/obses/episode_001.mp4").read_bytes() == FILES["set/obses/episode_001.mp4"]
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Any, sink: Any, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("wm.data.unpack.shutil.copyfileobj", full)
    message = user_error(lambda: Members(archive(tmp_path / "set.zip", FILES)).unpack(tmp_path / "out"))
    assert "the disk is full; what is there is kept" in message


@pytest.mark.skipif(shutil.which("zip") is None, reason="Info-ZIP's zip is not installed")
def test_a_split_archive_is_joined(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    rng = np.random.default_rng(0)
    noise = {f"noise{index}": rng.integers(0, 256, 40_000, dtype=np.uint8).tobytes() for index in range(6)}
    for name, data in noise.items():
        (folder / name).write_bytes(data)
    subprocess.run(["zip", "-q", "-r", "-s", "64k", "split.zip", "set"], cwd=tmp_path, check=True)
    parts = [*sorted(tmp_path.glob("split.z[0-9]*")), tmp_path / "split.zip"]
    assert len(parts) == 4
    joined = tmp_path / "joined.zip"
    join_parts(parts, joined)
    Members(joined).unpack(tmp_path / "out")
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == noise
    assert not list(tmp_path.glob("joining-*"))
    joined.unlink()
    parts[1].write_bytes(parts[1].read_bytes()[:30_000])
    assert "its 4 parts cannot be joined (zip says: zip error:" in user_error(lambda: join_parts(parts, joined))
    parts[1].unlink()
    assert user_error(lambda: join_parts(parts, joined)) == f"{parts[1]}: missing"
    fewer = [part for part in parts if part.is_file()]  # zip would ask a person, for ever
    assert "its 3 parts cannot be joined" in user_error(lambda: join_parts(fewer, joined))
    assert not joined.exists()
    assert not list(tmp_path.glob("joining-*"))


def test_what_joins_is_missed_before_anything_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wm.data.unpack.shutil.which", lambda name: None)
    assert "install it (apt install zip)" in user_error(need_joiner)
