"""Frames decoded once, shared by processes, gone with the last of them however it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.wm.data.samples import STEPS, config, inputs, user_error, wall_folder, wall_source
from wm.config.errors import UserError
from wm.data import shared_frames
from wm.data.shared_frames import SharedFrames

READER = """
import sys
from pathlib import Path
import numpy as np
from tests.wm.data.samples import wall_source
from wm.config.data import DinoWmSourceConfig
from wm.data.shared_frames import SharedFrames
from wm.data.sources.wall_single import WallSingleSource
source = WallSingleSource(DinoWmSourceConfig(path="wall"), "wall", Path(sys.argv[1]))
frames = SharedFrames(source, [2], Path(sys.argv[2]))
frames.read(2, np.arange(3))
print("ready", flush=True)
sys.stdin.read()
"""


class Counting:
    """A source that counts the episodes that are decoded."""

    def __init__(self) -> None:
        self.source = wall_source()
        self.decoded: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def episode(self, index: int) -> Any:
        self.decoded.append(index)
        return self.source.episode(index)


def gone(path: Path, within_s: float = 20.0) -> bool:
    deadline = time.monotonic() + within_s
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not path.exists()


def test_frames_are_the_sources_and_decoded_once(tmp_path: Path) -> None:
    source: Any = Counting()
    first = SharedFrames(source, [2, 5], tmp_path)
    source.decoded.clear()
    wanted = np.array([7, 3, 3])
    for _ in range(3):
        assert np.array_equal(first.read(2, wanted), wall_source().episode(2).frames(wanted))
    assert SharedFrames(source, [2, 5], tmp_path).read(2, wanted).shape == (3, 28, 28, 3)
    assert source.decoded.count(2) == 1
    assert first.path(2).is_file()
    assert not first.path(5).exists()  # nobody has asked for it


def test_the_folder_ends_with_its_last_reader(tmp_path: Path) -> None:
    first, second = (SharedFrames(wall_source(), [1], tmp_path) for _ in range(2))
    first.read(1, np.arange(2))
    folder = first.folder
    del first
    time.sleep(0.3)
    assert second.path(1).is_file()
    del second
    assert gone(folder)


def test_the_folder_ends_with_a_reader_that_is_killed(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", READER, str(wall_folder()), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    (episode,) = tmp_path.rglob("episode_*.npy")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert gone(episode.parent)


def test_what_was_abandoned_is_removed_by_the_next(tmp_path: Path) -> None:
    first = SharedFrames(wall_source(), [1], tmp_path)
    abandoned = first.folder.parent / "0123456789abcdef"
    abandoned.mkdir()
    (abandoned / "readers").touch()
    (abandoned / "episode_000001.npy").touch()
    SharedFrames(wall_source(), [1], tmp_path)
    assert not abandoned.exists()
    assert first.folder.exists()


def test_no_room_is_refused_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source: Any = Counting()
    needed = 2 * STEPS * 28 * 28 * 3
    monkeypatch.setattr(shared_frames, "free_bytes", lambda folder: needed)
    SharedFrames(source, [0, 1], tmp_path)
    monkeypatch.setattr(shared_frames, "free_bytes", lambda folder: needed - 1)
    message = user_error(lambda: SharedFrames(source, [0, 1], tmp_path))
    assert "data.preload: the frames of sources.wall take 0.0 GiB" in message
    assert "data.sources.wall.episodes" in message


def test_memory_that_runs_out_later_slows_but_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    frames = SharedFrames(wall_source(), [0, 1], tmp_path)
    monkeypatch.setattr(shared_frames, "free_bytes", lambda folder: 1000)
    for episode in (0, 1):
        assert np.array_equal(frames.read(episode, np.arange(4)), wall_source().episode(episode).frames(np.arange(4)))
        assert not frames.path(episode).exists()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_free_memory_is_less_than_the_machines(tmp_path: Path) -> None:
    total = next(int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line)
    assert 0 < shared_frames.free_bytes(tmp_path) < 1024 * total


def test_a_run_reads_the_same_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_frames, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(SharedFrames.__init__, "__defaults__", (tmp_path,))
    plain, shared = inputs(tmp_path / "a"), inputs(tmp_path / "b", data__preload=True)
    assert plain.hash == shared.hash
    for step in (0, 3):
        one, other = plain.clips.read(step), shared.clips.read(step)
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[key], other[key]) for key in one)
    assert len(list(tmp_path.rglob("episode_*.npy"))) > 1


def test_stored_tokens_need_none() -> None:
    with pytest.raises(UserError, match="leave preload out, or say tokens=online"):
        config(data__preload=True, data__tokens="store")
