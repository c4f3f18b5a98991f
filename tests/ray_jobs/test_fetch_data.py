"""Public data sets from a server on this machine: brought once, checked, described, and refused in one line."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.spec import SPECS, load_spec
from ray_jobs.cli import app
from ray_jobs.runtime.fetching import RECEIPT
from ray_jobs.runtime.runs import open_runs
from tests.ray_jobs.fetched import fetch, put
from tests.wm.data.file_server import FileServer, serving
from tests.wm.data.layouts import write_layout
from tests.wm.data.samples import config, user_error
from wm.data.dataset import Dataset
from wm.data.download import CHUNK
from wm.data.public_sets import PUBLIC_SETS, Archive, HubEpisodes, PublicSet, RemoteFile, bringing

STORED = "/stored/wall_single.zip"
ROOT = Path(__file__).parents[2]


def zipped(folder: Path, layout: str, inner: str) -> bytes:
    """An archive as published: one outer folder."""
    write_layout(layout, folder / inner)
    (folder / inner / "noise").write_bytes(np.random.default_rng(0).bytes(10 * CHUNK))  # cannot be compressed
    with zipfile.ZipFile(folder / "it.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted((folder / inner).rglob("*")):
            file.write(path, path.relative_to(folder))
    return (folder / "it.zip").read_bytes()


@pytest.fixture
def wall(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """The wall archive as OSF has it: an address that leads to a storage server."""
    data = zipped(tmp_path / "published", "wall_single", "wall_single")
    server.files[STORED], server.redirects["/osf/wall"] = data, STORED
    file = RemoteFile(
        "wall_single.zip", f"{server.url}/osf/wall?view_only=secret", len(data), hashlib.sha256(data).hexdigest()
    )
    put(monkeypatch, "wall_single", Archive((file,), len(data), 1_000_000))
    return server


def test_an_archive_is_brought_unpacked_and_described_once(wall: FileServer, home: Path) -> None:
    wall.cuts[STORED] = [CHUNK, CHUNK]
    said = fetch("wall_single")
    folder = home / "data/wall_single"
    for part in (
        "the connection broke (65.5 kB here); again in 0.01 s",
        "wall_single.zip: sha256 is right",
        f"{folder}: brought",
        "dino_wm wall_single, fingerprint",
        "episodes 4, 24 steps each",
        "data.sources.wall_single: {kind: dino_wm, layout: wall_single, path: wall_single}",
        "wm train wall_single",
    ):
        assert part in said, part
    assert "secret" not in said
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["actions.pth", "door_locations.pth", "noise", "obses", "states.pth", "wall_locations.pth", RECEIPT]
    )
    assert json.loads((folder / RECEIPT).read_text())["licence"] == PUBLIC_SETS["wall_single"].licence
    assert not (home / "data/.fetch/wall_single").exists()
    asked = len(wall.asked)
    assert f"{folder}: already there, nothing downloaded" in fetch("wall_single")
    assert len(wall.asked) == asked


def test_what_the_table_does_not_know_osf_tells(wall: FileServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = PUBLIC_SETS["wall_single"].origin
    assert isinstance(known, Archive)
    (file,) = known.files
    told = {"data": {"attributes": {"size": file.size, "extra": {"hashes": {"sha256": file.sha256, "md5": "x"}}}}}
    wall.files["/api"] = json.dumps(told).encode()
    asking = replace(file, size=None, about=f"{wall.url}/api?view_only=secret")
    put(monkeypatch, "wall_single", replace(known, files=(replace(asking, sha256="0" * 64),)))
    message = user_error(lambda: fetch("wall_single"))
    assert f"has another file than the one known here (sha256 {file.sha256})" in message
    assert [path for _, path, _ in wall.asked] == ["/api?view_only=secret"]  # refused before anything is downloaded
    wall.statuses["/api"] = [500]
    put(monkeypatch, "wall_single", replace(known, files=(replace(asking, sha256=None),)))
    said = fetch("wall_single", keeps_archive=True)
    assert "tells neither size nor checksum (HTTPError)" in said
    assert "no checksum to be had: nothing could be checked, and each file in it by the archive's own CRC-32" in said
    assert "secret" not in said
    shutil.rmtree(home)
    assert "wall_single.zip: sha256 is right" in fetch("wall_single")


def test_a_mirror_is_asked_instead_and_its_files_are_checked(
    wall: FileServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(FileServer({"/pub/wall_single.zip": wall.files[STORED][:-1] + b"?"})) as mirror:
        assert "its sha256 is" in user_error(lambda: fetch("wall_single", mirror=f"{mirror.url}/pub/"))
        mirror.files["/pub/wall_single.zip"] = wall.files[STORED]
        monkeypatch.setenv("WM_DATA_MIRROR", f"{mirror.url}/pub")
        done = CliRunner().invoke(app, ["data", "fetch", "wall_single", "--keep"])
        assert done.exit_code == 0, done.output
        assert f"Download wall_single from {mirror.url.removeprefix('http://')}" in done.output
        assert wall.asked == []
    assert (home / "data/.fetch/wall_single/wall_single.zip").read_bytes() == wall.files[STORED]
    shutil.rmtree(home / "data/wall_single")
    fetch("wall_single")  # from the archive that was kept: no server is left
    assert wall.asked == []


def test_a_disk_that_is_too_small_is_refused_first(
    wall: FileServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("ray_jobs.runtime.fetching.shutil.disk_usage", lambda path: usage(9, 9, 1000))
    message = user_error(lambda: fetch("wall_single"))
    size = len(wall.files[STORED])
    for part in (f"{home}/data: wall_single needs", " to download, ", " to unpack), but 1.0 kB are free", "WM_HOME"):
        assert part in message
    assert wall.asked == []
    monkeypatch.setattr("ray_jobs.runtime.fetching.shutil.disk_usage", lambda path: usage(0, 0, size + 1_000_000))
    message = user_error(lambda: fetch("wall_single"))  # what the archive itself says, when it is here
    assert "to unpack), but 1.7 MB are free" in message
    asked = len(wall.asked)
    monkeypatch.setattr("ray_jobs.runtime.fetching.shutil.disk_usage", lambda path: usage(0, 0, 10**9))
    assert "brought" in fetch("wall_single")
    assert len(wall.asked) == asked


def test_a_refusal_names_the_page(wall: FileServer, home: Path) -> None:
    wall.statuses[STORED] = [403]
    message = user_error(lambda: fetch("wall_single"))
    assert f"refuses it (403); its page is {PUBLIC_SETS['wall_single'].page}, and --mirror or WM_DATA_MIRROR" in message


@pytest.mark.skipif(shutil.which("zip") is None, reason="Info-ZIP's zip is not installed")
def test_a_split_archive_of_two_data_sets(
    server: FileServer, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("rope", "granular"):
        write_layout("deformable", tmp_path / "deformable" / name, episodes=1)
    subprocess.run(["zip", "-q", "-0", "-r", "-s", "2m", "deformable.zip", "deformable"], cwd=tmp_path, check=True)
    paths = sorted(tmp_path.glob("deformable.z*"))
    assert len(paths) > 1
    assert paths[-1].name == "deformable.zip"
    files = []
    for path in paths:
        server.files[f"/{path.name}"] = path.read_bytes()
        files.append(RemoteFile(path.name, f"{server.url}/{path.name}"))
    put(monkeypatch, "deformable", Archive(tuple(files), 1000, 1000, ("rope", "granular")))
    said = fetch("deformable")
    for name in ("rope", "granular"):
        assert f"data.sources.{name}: {{kind: dino_wm, layout: deformable, path: deformable/{name}}}" in said
    assert said.count("dino_wm deformable, fingerprint") == 2
    assert not (home / "data/.fetch/deformable").exists()


def test_a_killed_process_is_gone_on_with(wall: FileServer, home: Path) -> None:
    wall.pause_s = 0.02
    origin = PUBLIC_SETS["wall_single"].origin
    assert isinstance(origin, Archive)
    code = (
        "import io, sys; from dataclasses import replace; from rich.console import Console; "
        "from ray_jobs.fetch_data import fetch_data, Wanted; from ray_jobs.runtime.progress import Narrator; "
        "from wm.data.public_sets import *; "
        f"PUBLIC_SETS['wall_single'] = replace(PUBLIC_SETS['wall_single'], origin={origin!r}); "
        "fetch_data('wall_single', Wanted(), Narrator(Console(file=io.StringIO())))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    part, deadline = home / "data/.fetch/wall_single/wall_single.zip.part", time.monotonic() + 60
    while not part.exists() or part.stat().st_size < 2 * CHUNK:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert "another process is fetching it" in user_error(lambda: fetch("wall_single"))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = part.stat().st_size
    wall.pause_s = 0.0
    assert "brought" in fetch("wall_single")
    assert wall.ranges()[-1] == f"bytes={kept}-"


@pytest.mark.parametrize(
    ("name", "wanted", "words"),
    [
        ("wall_singel", {}, "no public set is called 'wall_singel'. Did you mean 'wall_single'?"),
        ("wal", {}, "Valid: wall_single."),
        (
            "droid",
            {"mirror": "http://x"},
            "--mirror: droid comes from the Hugging Face hub, whose mirror is named by HF_ENDPOINT",
        ),
        ("wall_single", {"mirror": "ftp://x"}, "--mirror: 'ftp://x' is no http:// or https:// address"),
        ("wall_single", {"episodes": 3}, "--episodes: wall_single comes whole"),
        ("wall_single", {"part": "demo"}, "--part: wall_single has no parts to choose from"),
        ("robomimic_can_ph", {"part": "dem"}, "--part: robomimic_can_ph has no part 'dem'. Did you mean 'demo'?"),
        ("robomimic_can_ph", {"keeps_archive": True}, "--keep: robomimic_can_ph is no archive"),
        ("droid", {"episodes": 0}, "--episodes: 0 is below 1"),
    ],
)
def test_bad_arguments_get_one_line(home: Path, name: str, wanted: dict[str, Any], words: str) -> None:
    message = user_error(lambda: fetch(name, **wanted))
    assert words in message
    assert "\n" not in message


def test_the_table(home: Path) -> None:
    (home / "data/wall_single").mkdir(parents=True)
    shown = CliRunner().invoke(app, ["data", "fetch"], env={"COLUMNS": "250"}).output
    lines = {line.split()[0]: line for line in shown.splitlines()}
    assert set(PUBLIC_SETS) <= set(lines)
    assert "there data/wall_single" in lines["wall_single"]
    assert "1.7 GB, unpacked 59.0 GB; licence: not stated on OSF" in lines["wall_single"]
    assert "layout: lerobot v3.0; to data/lerobot/droid_1.0.1; wm train droid_mixed" in lines["droid"]
    assert str(home) in shown


@pytest.mark.parametrize(
    "public", [each for each in PUBLIC_SETS.values() if each.spec is not None], ids=lambda p: p.name
)
def test_the_spec_of_a_set_reads_what_is_brought(public: PublicSet) -> None:
    spec, overrides = load_spec(str(public.spec))
    assert (SPECS / f"{public.spec}.yaml").is_file()
    (plan, *_) = spec.resolve_runs(overrides)
    paths = [source.path for source in plan.config.data.sources.values()]
    if isinstance(public.origin, HubEpisodes):
        assert public.origin.repository in paths
    else:
        assert any(f"`wm data fetch {public.name}`" in (bringing(path) or "") for path in paths)


def test_a_missing_data_set_that_is_public_is_named(home: Path) -> None:
    given = config(data__sources__wall__path="wall_single").data
    message = user_error(lambda: Dataset(given, home, None))
    assert message == f"{home}/data/wall_single: no such data set; `wm data fetch wall_single` brings it"
    encoder = "encoder.weights=/no/such/folder"  # asked for later: the data is the slower to get
    assert user_error(lambda: open_runs(*load_spec("wall_single", [encoder]))) == message
    assert "says how to draw them" in str(bringing("robomimic_can_ph_84"))
    assert bringing("wall") is None
    assert bringing("/elsewhere/wall_single") is None
