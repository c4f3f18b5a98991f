"""Converted robomimic folders, of both forms."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.wm.data.damage import Fault, cut, edit, poisoned, remove, write
from tests.wm.data.layouts import STEPS, close_pictures, open_layout, write_robomimic
from tests.wm.data.samples import user_error

LENGTHS = [STEPS, STEPS - 4]


def test_the_newer_form(tmp_path: Path) -> None:
    arrays = write_robomimic(tmp_path)
    source = open_layout("robomimic", tmp_path)
    assert list(source.lengths) == LENGTHS
    assert source.action_names == ("dx", "dy", "dz", "drx", "dry", "drz", "gripper")
    assert source.state_names[:16] == source.proprio_names
    assert source.state_names[16:] == tuple(f"object_{part}" for part in ("x", "y", "z", "qx", "qy", "qz", "qw"))
    for index, length in enumerate(LENGTHS):
        episode = source.episode(index)
        np.testing.assert_array_equal(episode.state, arrays["states"][index, :length])
        np.testing.assert_array_equal(episode.proprio, arrays["proprios"][index, :length])
        np.testing.assert_array_equal(episode.actions, arrays["rel_actions"][index, :length])
        close_pictures(episode.frames(np.arange(length)), arrays["frames"][index, :length])


@pytest.mark.parametrize(("size", "last"), [(26, "object_9"), (20, "object_qx")])
def test_states_with_more_or_less_of_an_object(tmp_path: Path, size: int, last: str) -> None:
    write_robomimic(tmp_path)
    edit("states", lambda s: torch.cat([s, s[..., :3]], -1)[..., :size])(tmp_path)
    source = open_layout("robomimic", tmp_path)
    assert len(source.state_names) == size
    assert source.state_names[-1] == last


@pytest.mark.parametrize("lengths", ["said", "of the videos"])
@pytest.mark.parametrize("actions", ["actions", "abs_actions"])
@pytest.mark.parametrize("place", ["beside", "obses"])
def test_the_older_form(tmp_path: Path, lengths: str, actions: str, place: str) -> None:
    arrays = write_robomimic(tmp_path, older=True)
    (tmp_path / "abs_actions.pth").rename(tmp_path / f"{actions}.pth")
    if lengths == "said":
        (tmp_path / "seq_lengths.pkl").write_bytes(pickle.dumps(LENGTHS))
    if place == "obses":
        (tmp_path / "obses").mkdir()
        for index in range(2):
            (tmp_path / f"episode_{index:05d}.mp4").rename(tmp_path / "obses" / f"episode_{index:03d}.mp4")
    source = open_layout("robomimic", tmp_path)
    assert list(source.lengths) == LENGTHS
    assert source.state_names == source.proprio_names == tuple(f"state_{i}" for i in range(25))
    episode = source.episode(1)
    expected = np.concatenate([arrays["states"], arrays["velocities"]], axis=2)[1, : LENGTHS[1]]
    np.testing.assert_array_equal(episode.state, expected)
    np.testing.assert_array_equal(episode.proprio, expected)
    np.testing.assert_array_equal(episode.actions, arrays["abs_actions"][1, : LENGTHS[1]])
    close_pictures(episode.frames([3, 1]), arrays["frames"][1, [3, 1]])
    assert len(open_layout("robomimic", tmp_path, with_velocity=False).state_names) == 23


def test_relative_actions_come_first(tmp_path: Path) -> None:
    arrays = write_robomimic(tmp_path)
    torch.save(torch.zeros(2, STEPS, 7), tmp_path / "actions.pth")
    torch.save(torch.zeros(2, STEPS, 7), tmp_path / "abs_actions.pth")
    np.testing.assert_array_equal(open_layout("robomimic", tmp_path).episode(0).actions, arrays["rel_actions"][0])


FAULTS: dict[str, Fault] = {
    "no video": remove("obses/episode_00001.mp4"),
    "half a video": cut("obses/episode_00000.mp4", 0.5),
    "nan action": edit("rel_actions", poisoned(1, float("nan"))),
    "nan proprio": edit("proprios", poisoned(1, float("nan"))),
    "proprios of another size": edit("proprios", lambda p: p[..., :9]),
    "proprios of other numbers": edit("proprios", lambda p: p + 1),
    "actions of fewer steps": edit("rel_actions", lambda a: a[:, 1:]),
    "no actions": remove("rel_actions.pth"),
    "a length too long": write("seq_lengths.pkl", pickle.dumps([STEPS, STEPS + 1])),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_bad_folder_gets_one_line_naming_the_file(tmp_path: Path, fault: str) -> None:
    write_robomimic(tmp_path / "can")
    file = FAULTS[fault](tmp_path / "can")
    message = user_error(lambda: open_layout("robomimic", tmp_path / "can").episode(0).frames([STEPS - 1]))
    assert str(tmp_path / "can") in message
    assert file.name in message


def test_videos_longer_than_the_states(tmp_path: Path) -> None:
    write_robomimic(tmp_path, older=True)
    for key in ("states", "velocities", "abs_actions"):
        edit(key, lambda values: values[:, :-1].nan_to_num())(tmp_path)
    message = user_error(lambda: open_layout("robomimic", tmp_path))
    assert f"{STEPS} frames, but states.pth has {STEPS - 1} steps" in message


NAMES = {
    "fps": 15,
    "action": list("abcdefg"),
    "proprio": [f"p{i}" for i in range(16)],
    "state": [f"s{i}" for i in range(23)],
}


def test_names_beside_the_arrays(tmp_path: Path) -> None:
    """As `wm data convert` writes them: then proprio need not be a Panda's."""
    write_robomimic(tmp_path)
    edit("proprios", lambda p: p[..., :9] + 1)(tmp_path)
    (tmp_path / "names.json").write_text(json.dumps({**NAMES, "proprio": NAMES["proprio"][:9]}))  # type: ignore[index]
    source = open_layout("robomimic", tmp_path)
    assert source.action_names == tuple("abcdefg")
    assert source.proprio_names == tuple(f"p{i}" for i in range(9))
    assert source.state_names[-1] == "s22"
    assert source.episode(0).fps == 15
    (tmp_path / "proprios.pth").unlink()
    (tmp_path / "names.json").write_text(json.dumps({key: NAMES[key] for key in ("fps", "action", "state")}))
    source = open_layout("robomimic", tmp_path)
    np.testing.assert_array_equal(source.episode(0).proprio, source.episode(0).state)
    assert source.proprio_names == source.state_names


@pytest.mark.parametrize(
    "text", ["{", "[]", json.dumps({**NAMES, "state": ["x"]}), json.dumps({**NAMES, "fps": 0}), json.dumps({"fps": 3})]
)
def test_bad_names_get_one_line(tmp_path: Path, text: str) -> None:
    write_robomimic(tmp_path)
    (tmp_path / "names.json").write_text(text)
    message = user_error(lambda: open_layout("robomimic", tmp_path))
    assert "names.json: expected fps and names of 7 action columns" in message
