"""What `wm data make` writes in one of DINO-WM's layouts is read back: every number, and frames as far as the file keeps them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.wm.data.layouts import EPISODES, STEPS, WRITERS, close_pictures, open_layout, write_layout
from tests.wm.data.samples import user_error
from wm.config.data import DinoWmSourceConfig
from wm.config.resolve import Layer, resolve
from wm.contracts import Episode

LAYOUTS = [*WRITERS, "robomimic", "franka"]


def numbers(episode: Episode) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Actions, state, proprio of an episode that has all three."""
    assert episode.actions is not None
    assert episode.state is not None
    assert episode.proprio is not None
    return episode.actions, episode.state, episode.proprio


@pytest.mark.parametrize("layout", list(WRITERS))
def test_what_was_recorded_is_read(layout: str, tmp_path: Path) -> None:
    recorded = write_layout(layout, tmp_path / "data")
    source = open_layout(layout, tmp_path / "data")
    assert list(source.lengths) == [STEPS] * EPISODES
    for index, expected in enumerate(recorded):
        episode = source.episode(index)
        actions, state, proprio = numbers(episode)
        if layout == "deformable":  # with the inverse masses that the layout wants
            places = [i for i, name in enumerate(source.state_names) if not name.startswith("inverse_mass")]
            assert [source.state_names[i] for i in places] == [f"{axis}{i}" for i in range(3) for axis in "xyz"]
            assert (np.delete(state, places, axis=1) == 1).all()
            state = state[:, places]
        np.testing.assert_array_equal(state, expected.states)
        np.testing.assert_array_equal(proprio, expected.proprio)
        if layout == "pusht_noise":  # times 100 and back, in float32
            np.testing.assert_allclose(actions, expected.actions, rtol=2e-7)
            close_pictures(episode.frames(np.arange(STEPS)), expected.frames)
        else:
            np.testing.assert_array_equal(actions, expected.actions)
            np.testing.assert_array_equal(episode.frames(np.arange(STEPS)), expected.frames)
        tags = {"wall_single": ("wall_x", "door_y"), "pusht_noise": ("shape",)}.get(layout, ())
        assert dict(episode.tags) == {name: expected.layout[name] for name in tags}


def test_names_are_the_worlds() -> None:
    """By which a model's statistics, its probes and the simulator's state are told apart."""
    from wm.data.sources import deformable, point_maze, pusht_noise, robomimic, wall_single
    from wm.envs import point_maze as maze_world
    from wm.envs import push_table, pusht, pusht_shapes, robosuite_control, robosuite_tasks, wall

    for source, world in (
        (wall_single.WallSingleSource, wall.WallWorld),
        (point_maze.PointMazeSource, maze_world.PointMazeWorld),
    ):
        for key in ("action_names", "state_names", "proprio_names"):
            assert getattr(source, key) == getattr(world, key)
    assert pusht.PushTWorld.state_names == pusht_noise.STATE_NAMES
    assert pusht_noise.PushTNoiseSource.action_names == pusht.PushTWorld.action_names
    assert {name: i for i, name in enumerate(pusht_noise.SHAPES)} == {
        {"plus": "+"}.get(name, name): block.number for name, block in pusht_shapes.BLOCKS.items()
    }
    assert deformable.DeformableSource.action_names == push_table.PushTableWorld.action_names
    assert deformable.DeformableSource.proprio_names == push_table.PushTableWorld.proprio_names
    assert robomimic.ARM_NAMES == robosuite_tasks.PROPRIO_NAMES
    assert robomimic.POSE_ACTION_NAMES == robosuite_control.OSC_ACTION_NAMES


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("other", ["absent", "empty", "wall", "file"])
def test_another_folder_is_refused_in_one_line(layout: str, other: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    if other == "empty":
        folder.mkdir()
    elif other == "file":
        folder.write_text("mine", encoding="utf-8")
    elif other == "wall":
        write_layout("wall_single" if layout != "wall_single" else "pusht_noise", folder)
    message = user_error(lambda: open_layout(layout, folder))
    assert str(folder) in message
    assert ("no such data folder" in message) == (other in ("absent", "file"))


def test_a_wrong_layout_names_the_nearest() -> None:
    message = user_error(
        lambda: resolve([Layer.from_tree("t", {"data.sources.a": {"path": "a", "layout": "pusht_nois"}})])
    )
    assert "data.sources.a.layout" in message
    assert "'pusht_noise'" in message


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"layout": "wall_single", "with_velocity": False}, "wall_single keeps no velocities"),
        ({"layout": "franka"}, "say rgb or bgr"),
        ({"layout": "point_maze", "colors": "rgb"}, "only franka has it"),
    ],
)
def test_settings_of_another_layout(given: dict[str, object], words: str) -> None:
    message = user_error(lambda: resolve([Layer.from_tree("t", {"data.sources.a": {"path": "a", **given}})]))
    assert "data.sources.a" in message
    assert words in message


@pytest.mark.parametrize("layout", list(WRITERS))
def test_a_cap_takes_the_first_and_needs_no_later_file(layout: str, tmp_path: Path) -> None:
    write_layout(layout, tmp_path / "data")
    every = open_layout(layout, tmp_path / "data")
    files = {"deformable": "000001/obses.pth", "pusht_noise": "train/obses/episode_001.mp4"}
    (tmp_path / "data" / files.get(layout, "obses/episode_001.pth")).unlink()
    few = open_layout(layout, tmp_path / "data", episodes=1)
    taken = [0, 3] if layout == "pusht_noise" else [0]  # of train and of val
    assert len(few) == len(taken)
    for mine, theirs in enumerate(taken):
        np.testing.assert_array_equal(few.episode(mine).state, every.episode(theirs).state)
        np.testing.assert_array_equal(few.episode(mine).frames([3]), every.episode(theirs).frames([3]))
    assert few.fingerprint != every.fingerprint
    assert "missing" in user_error(lambda: open_layout(layout, tmp_path / "data"))


def test_config_comes_back_from_its_json() -> None:
    config = DinoWmSourceConfig(path="x", layout="franka", colors="bgr", episodes=3)
    assert DinoWmSourceConfig.model_validate_json(config.model_dump_json()) == config
