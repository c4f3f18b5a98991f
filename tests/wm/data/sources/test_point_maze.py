"""The point_maze layout: shorter episodes end where they say, and bad folders are refused in one line."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.wm.data.damage import Fault, cut, edit, poisoned, remove, write
from tests.wm.data.layouts import EPISODES, STEPS, open_layout, write_layout
from tests.wm.data.samples import user_error


@pytest.mark.parametrize("kind", ["tensor", "list"])
def test_padding_is_never_seen(tmp_path: Path, kind: str) -> None:
    recorded = write_layout("point_maze", tmp_path)
    lengths = [STEPS, 9, STEPS, 1]
    torch.save(torch.tensor(lengths) if kind == "tensor" else lengths, tmp_path / "seq_lengths.pth")
    for key in ("states", "actions"):
        values = torch.load(tmp_path / f"{key}.pth")
        values[1, 9:] = float("nan")
        torch.save(values, tmp_path / f"{key}.pth")
    torch.save(torch.from_numpy(recorded[1].frames[:9]), tmp_path / "obses" / "episode_001.pth")
    source = open_layout("point_maze", tmp_path)
    assert list(source.lengths) == lengths
    episode = source.episode(1)
    np.testing.assert_array_equal(episode.state, recorded[1].states[:9])
    np.testing.assert_array_equal(episode.actions, recorded[1].actions[:9])
    np.testing.assert_array_equal(episode.frames([8]), recorded[1].frames[8:9])
    with pytest.raises(IndexError):
        episode.frames([9])


def test_frames_are_mapped_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_layout("point_maze", tmp_path)
    source, load, mapped = open_layout("point_maze", tmp_path), torch.load, list[bool]()
    monkeypatch.setattr(
        torch, "load", lambda path, **options: (mapped.append(options["mmap"]), load(path, **options))[1]
    )
    source.episode(0).frames([1])
    assert mapped == [True]


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    changes: list[Callable[[Path], object]] = [
        lambda folder: folder,
        edit("states", lambda s: s + 1),
        edit("actions", lambda a: a + 1),
        edit("seq_lengths", lambda n: n - 1),
        edit("obses/episode_000", lambda f: f.repeat(1, 2, 2, 1)),
    ]
    seen: set[str] = set()
    for number, change in enumerate(changes):
        folder = tmp_path / str(number)
        write_layout("point_maze", folder)
        change(folder)
        seen.add(open_layout("point_maze", folder).fingerprint)
    seen.add(open_layout("point_maze", tmp_path / "0", labels="none").fingerprint)
    assert len(seen) == len(changes) + 1
    write_layout("point_maze", tmp_path / "again")
    assert open_layout("point_maze", tmp_path / "again").fingerprint in seen


FRAMES = "obses/episode_000"
FAULTS: dict[str, Fault] = {
    "no lengths": remove("seq_lengths.pth"),
    "no frame file": remove("obses/episode_002.pth"),
    "nan state": edit("states", poisoned(1, float("nan"))),
    "infinite action": edit("actions", poisoned(1, float("inf"))),
    "three state entries": edit("states", lambda s: s[..., :3]),
    "three actions": edit("actions", lambda a: torch.cat([a, a[..., :1]], -1)),
    "fewer actions": edit("actions", lambda a: a[:, :-1]),
    "no episodes": edit("states", lambda s: s[:0]),
    "a length too long": edit("seq_lengths", lambda n: n + 1),
    "a length of 0": edit("seq_lengths", lambda n: n * 0),
    "half a step": edit("seq_lengths", lambda n: n - 0.5),
    "a length of nan": edit("seq_lengths", lambda n: n * float("nan")),
    "fewer lengths": edit("seq_lengths", lambda n: n[:2]),
    "lengths in a table": edit("seq_lengths", lambda n: n[None]),
    "a dict of lengths": edit("seq_lengths", lambda n: {"lengths": n}),
    "cut states": cut("states.pth", 0.5),
    "cut frames": cut(f"{FRAMES}.pth", 0.5),
    "a pickle": write("seq_lengths.pth", pickle.dumps([STEPS] * EPISODES)),
    "channel-first frames": edit(FRAMES, lambda f: f.permute(0, 3, 1, 2).contiguous()),
    "fewer frames": edit(FRAMES, lambda f: f[:-1].clone()),
    "frames within 0..1": edit(FRAMES, lambda f: f / 255),
    "frames of nan": edit(FRAMES, lambda f: f * float("nan")),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_bad_folder_gets_one_line_naming_the_file(tmp_path: Path, fault: str) -> None:
    write_layout("point_maze", tmp_path / "maze")
    file = FAULTS[fault](tmp_path / "maze")
    message = user_error(lambda: open_layout("point_maze", tmp_path / "maze").episode(0).frames([0]))
    assert str(tmp_path / "maze") in message
    assert file.name in message
