"""Public data sets of the Hugging Face hub, from a hub on this machine."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.runtime.fetching import RECEIPT
from tests.ray_jobs.fetched import Hub, fetch, put
from tests.wm.data.file_server import FileServer
from tests.wm.data.samples import user_error
from tests.wm.data.sources.recorded import lerobot_folder, robomimic_file
from wm.data.public_sets import PUBLIC_SETS, HubEpisodes, HubFiles


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own HF_HUB_OFFLINE does not hold for a hub on this machine."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def test_robosuite_states_come_with_the_command_that_draws_them(
    server: FileServer, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = robomimic_file(tmp_path / "low_dim_v15.hdf5")
    origin = PUBLIC_SETS["robomimic_can_ph"].origin
    assert isinstance(origin, HubFiles)
    hub = Hub(server, origin.repository, monkeypatch)
    hub.files = {"v1.5/can/ph/low_dim_v15.hdf5": file.read_bytes()}
    said = fetch("robomimic_can_ph")
    folder = home / "data/robomimic_can_ph"
    assert "4 demonstrations of Lift, 22 to 32 steps, 7 actions" in said
    assert f"wm data convert {folder}/low_dim_v15.hdf5 {folder}_84 --to robomimic --size 84" in said
    assert "path: robomimic_can_ph_84" in said
    assert hub.revision == origin.revision
    assert "already there" in fetch("robomimic_can_ph")
    assert "no file v1.5/can/ph/demo_v15.hdf5" in user_error(lambda: fetch("robomimic_can_ph", part="demo"))


@pytest.fixture
def arm(server: FileServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A v3.0 data set of four episodes in place of DROID."""
    hub = Hub(server, "lerobot/droid_1.0.1", monkeypatch)
    folder = lerobot_folder("v3.0")
    hub.files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    put(monkeypatch, "droid", HubEpisodes("lerobot/droid_1.0.1", 2, "wrist"))
    return hub


def test_of_a_hub_data_set_only_the_wanted_episodes_come(
    arm: Hub, server: FileServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wm.data.hub_files.build_hf_headers", lambda: {"Authorization": "Bearer hf_private"})
    video = "videos/observation.images.wrist/chunk-000/file-000.mp4"
    server.cuts[f"/cdn/{video}"] = [2000]
    said = fetch("droid")
    folder = home / "data/lerobot/droid_1.0.1"
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and "meta/" not in str(p)} == {
        "data/chunk-000/file-000.parquet", video, RECEIPT,
    }  # fmt: skip
    for part in (
        "2 of 4 episodes, camera observation.images.wrist",
        "episodes 2, 26 to 31 steps each",
        "kind: lerobot, camera: observation.images.wrist, episodes: 2, labels: none, path: lerobot/droid_1.0.1",
        "the connection broke",
        "have no checksum on the hub (small text): their sizes are right",
        "sha256 of 2 files: right",
    ):
        assert part in said, part
    assert "hf_private" not in said
    assert "signature" not in said
    assert "hf_private" not in "".join(p.read_text(errors="ignore") for p in home.rglob("*") if p.is_file())
    assert any(headers.get("Authorization") == "Bearer hf_private" for _, _, headers in server.asked)
    asked = len(server.asked)
    assert "already there, nothing downloaded" in fetch("droid")
    assert len(server.asked) == asked
    arm.newest = "d" * 40
    fetch("droid", episodes=4)  # the commit of the first visit: its meta folder is here
    assert arm.revision == "c" * 40
    assert (folder / "data/chunk-000/file-001.parquet").is_file()
    assert "--episodes: 5, but lerobot/droid_1.0.1 has 4" in user_error(lambda: fetch("droid", episodes=5))
    assert "--camera: no camera 'wrst'. Did you mean 'wrist'?" in user_error(lambda: fetch("droid", camera="wrst"))


def test_many_files_are_one_bar(arm: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[Any, ...]] = []
    monkeypatch.setattr("ray_jobs.runtime.fetching.SHOWN_EVERY_S", 0.0)
    monkeypatch.setattr("ray_jobs.runtime.fetching.MEGABYTE", 1)
    monkeypatch.setattr("ray_jobs.runtime.progress.Stage.update", lambda stage, *given: heard.append(given))
    fetch("droid")
    received = [(done, total) for done, total, part, _ in heard if part == "received"]
    size = sum(len(data) for name, data in arm.files.items() if name.startswith("meta/"))
    assert (size, size) in received
    assert received[-1][0] == received[-1][1] > 0
    assert all(done <= total for done, total in received)


def test_a_damaged_file_of_the_hub_is_refused(arm: Hub, server: FileServer, home: Path) -> None:
    name = "data/chunk-000/file-000.parquet"
    fresh = arm._told

    def damaged(path: str) -> dict[str, Any]:
        told = fresh(path)
        if path == name:
            server.files[f"/cdn/{path}"] = arm.files[path][:-1] + b"?"
        return told

    arm._told = damaged  # type: ignore[method-assign]
    assert "its sha256 is" in user_error(lambda: fetch("droid"))
    arm._told = fresh  # type: ignore[method-assign]
    assert "brought" in fetch("droid")


def test_a_gated_set_says_where_to_accept_its_terms(arm: Hub, server: FileServer, home: Path) -> None:
    way = f"accept the terms on {PUBLIC_SETS['droid'].page}, then `hf auth login`, or set HF_TOKEN"
    server.statuses["/api/datasets/lerobot/droid_1.0.1"], server.headers = [401], {"X-Error-Code": "GatedRepo"}
    message = user_error(lambda: fetch("droid"))
    assert message == f"lerobot/droid_1.0.1: not open to everybody; {way}"
    server.statuses["/cdn/meta/info.json"] = [403]  # the list is open, the files are not
    assert f"refuses it (403); {way}" in user_error(lambda: fetch("droid"))
    server.statuses["/api/datasets/lerobot/droid_1.0.1"], server.headers = [404], {"X-Error-Code": "RepoNotFound"}
    shutil.rmtree(home)
    assert "not open to you" in user_error(lambda: fetch("droid"))


def test_without_the_hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    message = user_error(lambda: fetch("droid"))
    assert "lerobot/droid_1.0.1: 127.0.0.1:9 cannot be reached" in message
    assert "HF_ENDPOINT names a mirror" in message
