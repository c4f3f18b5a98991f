"""The wall_single layout: what was written is read, and every bad folder is refused in one line."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.wm.data.damage import cut, edit, poisoned, remove
from tests.wm.data.samples import EPISODES, SIZE, STEPS, refusal, user_error, wall_copy, wall_folder, wall_source
from wm.build import build_world
from wm.config.worlds import WallWorldConfig
from wm.data.sources.tensor_file import load_tensor, save_tensor
from wm.data.sources.wall_single import WallSingleWriter
from wm.envs.demonstrations import make_episodes
from wm.envs.policies import WanderPolicy


def test_reads_what_was_recorded() -> None:
    source = wall_source()
    assert len(source) == EPISODES
    world = build_world(WallWorldConfig(frame_size=SIZE, layout="random"))
    recorded = make_episodes(world, WanderPolicy(), EPISODES, STEPS, seed=0)
    for index, expected in enumerate(recorded):
        episode = source.episode(index)
        np.testing.assert_array_equal(episode.state, expected.states)
        np.testing.assert_array_equal(episode.proprio, expected.states)
        np.testing.assert_array_equal(episode.actions, expected.actions)
        np.testing.assert_array_equal(episode.frames(np.arange(STEPS)), expected.frames)
        assert dict(episode.tags) == dict(expected.layout)
    assert len({tuple(source.episode(i).tags.values()) for i in range(EPISODES)}) > 5


def test_frames_on_disk_are_channel_first_bytes() -> None:
    stored = torch.load(wall_folder() / "obses" / "episode_000.pth", weights_only=True)
    assert stored.shape == (STEPS, 3, SIZE, SIZE)
    assert stored.dtype == torch.uint8


def test_frames_are_mapped_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    mapped: list[bool] = []
    load = torch.load

    def watched(path: Path, **options: Any) -> Any:
        mapped.append(options["mmap"])
        assert options["weights_only"] is True
        return load(path, **options)

    source = wall_source()
    monkeypatch.setattr(torch, "load", watched)
    episode = source.episode(0)
    _ = episode.actions, episode.state, episode.tags
    assert mapped == []
    episode.frames([3])
    assert mapped == [True]


def test_float_frames_are_rounded_and_clipped(tmp_path: Path) -> None:
    folder = wall_copy(tmp_path / "wall")
    frames = torch.full((STEPS, 3, SIZE, SIZE), 100.0)
    frames[0, 0], frames[0, 1], frames[0, 2] = 99.6, 300.0, -4.0
    torch.save(frames, folder / "obses" / "episode_000.pth")
    read = wall_source(folder).episode(0).frames([0, 1])
    assert read[0, 0, 0].tolist() == [100, 255, 0]
    assert (read[1] == 100).all()


@pytest.mark.parametrize("last_axis", [(), (1,), (2,)])
def test_published_shapes_of_the_layout(tmp_path: Path, last_axis: tuple[int, ...]) -> None:
    folder = wall_copy(tmp_path / "wall")
    for offset, key in ((0, "door"), (100, "wall")):
        values = offset + torch.arange(EPISODES).float().reshape(-1, 1, *(1 for _ in last_axis))
        torch.save(values.expand(EPISODES, STEPS, *last_axis).clone(), folder / f"{key}_locations.pth")
    source = wall_source(folder)
    assert [source.episode(i).tags["door_y"] for i in range(EPISODES)] == list(range(EPISODES))
    assert [source.episode(i).tags["wall_x"] for i in range(EPISODES)] == list(range(100, 100 + EPISODES))


def test_without_labels_only_frames_remain() -> None:
    hidden, shown = wall_source(labels="none").episode(2), wall_source().episode(2)
    assert hidden.actions is None
    assert hidden.state is None
    assert hidden.proprio is None
    np.testing.assert_array_equal(hidden.frames([4]), shown.frames([4]))


def test_episodes_caps_in_order() -> None:
    few, every = wall_source(episodes=3), wall_source()
    assert len(few) == 3
    np.testing.assert_array_equal(few.states, every.states[:3])
    assert len(wall_source(episodes=1000)) == EPISODES


def test_a_capped_source_needs_no_later_file(tmp_path: Path) -> None:
    folder = wall_copy(tmp_path / "wall")
    (folder / "obses" / "episode_005.pth").unlink()
    assert len(wall_source(folder, episodes=5)) == 5


FRAMES = "obses/episode_000.pth"
FAULTS: dict[str, Callable[[Path], Path]] = {
    "no states": remove("states.pth"),
    "no actions": remove("actions.pth"),
    "no walls": remove("wall_locations.pth"),
    "no frame file": remove("obses/episode_007.pth"),
    "nan state": edit("states", poisoned(4, float("nan"))),
    "infinite action": edit("actions", poisoned(4, float("inf"))),
    "fewer actions": edit("actions", lambda a: a[:, :-1]),
    "flat states": edit("states", lambda s: s[0]),
    "three state entries": edit("states", lambda s: torch.cat([s, s[..., :1]], -1)),
    "no episodes": edit("states", lambda s: s[:0]),
    "no steps": edit("states", lambda s: s[:, :0]),
    "doors of fewer episodes": edit("door_locations", lambda d: d[: EPISODES // 2]),
    "doors of five episodes": edit("door_locations", lambda d: d[:5]),
    "walls without time": edit("wall_locations", lambda w: w[:, 0, 0]),
    "a dict": edit("states", lambda s: {"states": s}),
    "cut states": cut("states.pth", 0.5),
    "empty states": cut("states.pth", 0.0),
    "cut frames": cut(FRAMES, 0.5),
    "empty frames": cut(FRAMES, 0.0),
    "frames channel-last": edit(FRAMES.removesuffix(".pth"), lambda f: f.permute(0, 2, 3, 1).contiguous()),
    "a single frame": edit(FRAMES.removesuffix(".pth"), lambda f: f[0]),
    "fewer frames": edit(FRAMES.removesuffix(".pth"), lambda f: f[:-1].clone()),
    "frames in a list": edit(FRAMES.removesuffix(".pth"), list),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_bad_folder_gets_one_line_naming_the_file(tmp_path: Path, fault: str) -> None:
    folder = wall_copy(tmp_path / "wall")
    file = FAULTS[fault](folder)
    message = user_error(lambda: wall_source(folder).episode(0).frames([0]))
    assert str(folder) in message
    assert file.name in message


def test_a_missing_folder_says_how_to_make_one(tmp_path: Path) -> None:
    assert "wm data make wall" in user_error(lambda: wall_source(tmp_path / "absent"))


def test_another_layout_is_refused_not_guessed(tmp_path: Path) -> None:
    for name in ("states.pth", "velocities.pth", "rel_actions.pth", "seq_lengths.pkl"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "obses").mkdir()
    message = user_error(lambda: wall_source(tmp_path))
    for part in (str(tmp_path), "not in the wall_single layout", "actions.pth", "rel_actions.pth"):
        assert part in message


class Bomb:
    """Unpickling this makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.target,)


@pytest.mark.parametrize("name", ["states.pth", FRAMES])
@pytest.mark.parametrize("how", ["torch", "legacy torch", "pickle"])
def test_a_crafted_pickle_runs_nothing(tmp_path: Path, name: str, how: str) -> None:
    folder, target = wall_copy(tmp_path / "wall"), tmp_path / "executed"
    if how == "pickle":
        (folder / name).write_bytes(pickle.dumps(Bomb(target)))
    else:
        torch.save(Bomb(target), folder / name, _use_new_zipfile_serialization=how == "torch")
    assert name.rsplit("/", 1)[-1] in user_error(lambda: wall_source(folder).episode(0).frames([0]))
    assert not target.exists()
    if how == "pickle":  # and the bomb would have worked
        pickle.loads((folder / name).read_bytes())
        assert target.exists()


def test_damaged_bytes_never_give_a_traceback(tmp_path: Path) -> None:
    file, rng = tmp_path / "states.pth", np.random.default_rng(0)
    save_tensor(file, torch.arange(60.0).reshape(2, 15, 2))
    whole = np.frombuffer(file.read_bytes(), np.uint8)
    refused = 0
    for _ in range(300):
        damaged = whole.copy()
        damaged[rng.integers(0, 700, size=2)] = rng.integers(0, 256, size=2)
        file.write_bytes(damaged.tobytes())
        message = refusal(lambda: load_tensor(file))
        assert message is None or str(file) in message
        refused += message is not None
    assert refused > 100


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    original = wall_source().fingerprint
    assert wall_source(wall_copy(tmp_path / "same")).fingerprint == original
    seen = {original, wall_source(labels="none").fingerprint, wall_source(episodes=5).fingerprint}
    for number, key in enumerate(("states", "actions", "door_locations", "wall_locations")):
        folder = wall_copy(tmp_path / str(number))
        edit(key, lambda values: values + 1)(folder)
        seen.add(wall_source(folder).fingerprint)
    folder = wall_copy(tmp_path / "frames")
    torch.save(torch.zeros(STEPS, 3, SIZE * 2, SIZE * 2, dtype=torch.uint8), folder / FRAMES)
    seen.add(wall_source(folder).fingerprint)
    assert len(seen) == 8


def test_an_unfinished_folder_is_not_a_data_set(tmp_path: Path) -> None:
    writer = WallSingleWriter(tmp_path)
    writer.write_frames(0, np.zeros((4, SIZE, SIZE, 3), np.uint8))
    assert "states.pth" in user_error(lambda: wall_source(tmp_path))
    writer.finish(np.ones((1, 4, 2)), np.ones((1, 4, 2)), np.full(1, 32.0), np.full(1, 30.0))
    source = wall_source(tmp_path)
    assert dict(source.episode(0).tags) == {"wall_x": 32.0, "door_y": 30.0}
    assert torch.load(tmp_path / "door_locations.pth", weights_only=True).shape == (1, 4, 1)
