"""robomimic's raw files, with simulator states and no pictures, are drawn: of robosuite 1.4 and 1.5, killed, cut short."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ray_jobs.convert_data import convert_data
from tests.wm.data.samples import user_error
from tests.wm.envs.test_robosuite_flat import larger_cube
from tests.wm.envs.test_robosuite_models import old_model
from wm.build import build_world
from wm.config.data import RobomimicSourceConfig
from wm.config.worlds import LiftWorldConfig
from wm.data.sources.robomimic_hdf5 import RobomimicHdf5Source
from wm.data.sources.robosuite_states import DemoStates
from wm.envs.robosuite_world import RobosuiteWorld

ROOT = Path(__file__).parents[2]
STEPS = {"demo_0": 4, "demo_2": 5, "demo_10": 3}
SIZE = 84


@cache
def world() -> RobosuiteWorld:
    made = build_world(LiftWorldConfig(frame_size=SIZE))
    assert isinstance(made, RobosuiteWorld)
    return made


def raw_file(folder: Path, version: str) -> Path:
    """demo_v141.hdf5 or demo_v15.hdf5 as robomimic publishes them: an own model for every demonstration, subsets, no pictures.

    demo_2 has a larger cube than the others.
    """
    lift, rng = world(), np.random.default_rng(0)
    plain = LiftWorldConfig(frame_size=SIZE)
    controller: dict[str, Any] = {"type": "OSC_POSE", "kp": 150, "control_delta": True}
    if version == "1.5.1":
        controller = {"type": "BASIC", "body_parts": {"right": {"type": "OSC_POSE", "input_type": "delta"}}}
    kwargs = {"has_renderer": False, "use_camera_obs": False, "control_freq": 20, "controller_configs": controller}
    args = {"env_name": "Lift", "env_version": version, "type": 1, "env_kwargs": {**kwargs, "robots": ["Panda"]}}
    folder.mkdir(parents=True)
    with h5py.File(folder / "demo.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(args, indent=4)
        data.attrs["total"] = sum(STEPS.values())
        for name, steps in STEPS.items():
            fresh = build_world(plain)
            assert isinstance(fresh, RobosuiteWorld)
            own = fresh.model_file if name != "demo_2" else larger_cube(fresh.model_file)
            model = old_model(own) if version.startswith("1.4") else own
            lift.reset_to_flat(fresh.flat_state, model_file=model)
            states: list[np.ndarray] = []
            actions = rng.uniform(-1, 1, (steps, 7))
            for action in actions:
                states.append(lift.flat_state)
                lift.step(action)
            demo = data.create_group(name)
            demo.attrs["model_file"], demo.attrs["num_samples"] = model, steps
            demo["states"], demo["actions"] = np.stack(states), actions
            demo["interventions"] = demo["user_acting"] = np.zeros(steps, np.int64)
        file["mask/20_percent"] = np.array([b"demo_0"])
        file["mask/train"], file["mask/valid"] = np.array([b"demo_10", b"demo_0"]), np.array([b"demo_2"])
    return folder


@cache
def _shared(version: str, base: Path) -> Path:
    return raw_file(base / version, version)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("raw")


def source(folder: Path, **config: Any) -> RobomimicHdf5Source:
    return RobomimicHdf5Source(RobomimicSourceConfig(path="x", **config), "x", folder)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["1.4.1", "1.5.1"])
def test_a_raw_file_gets_its_pictures_and_loses_nothing(tmp_path: Path, base: Path, version: str) -> None:
    raw = _shared(version, base)
    cameras = ["agentview", "robot0_eye_in_hand"]
    notes = convert_data(raw, tmp_path / "out", "robomimic", cameras=cameras, size=SIZE, actors=0).notes
    assert notes[0] == "robomimic's HDF5 has no place for: nothing that is lost"
    demos = DemoStates(RobomimicSourceConfig(path="x"), "x", raw)
    found = {camera: source(tmp_path / "out", camera=camera) for camera in cameras}
    lift, agent = world(), found["agentview"]
    assert agent.demos == list(STEPS)
    assert agent.action_names[0] == "dx"
    assert [tags["mask_valid"] for tags in agent.tags] == [0, 1, 0]
    assert source(tmp_path / "out", camera="agentview", filter="train").demos == ["demo_0", "demo_10"]
    for index in range(len(demos)):
        episode, model = agent.episode(index), demos.model_file(index)
        np.testing.assert_array_equal(episode.actions, demos.actions(index))
        for step, flat in enumerate(demos.states(index)):
            lift.reset_to_flat(flat, model_file=model)
            np.testing.assert_array_equal(episode.state[step], lift.state.astype(np.float32))  # type: ignore[index]
            for camera, seen in found.items():
                np.testing.assert_array_equal(seen.episode(index).frames([step])[0], lift.render_camera(camera))
    with h5py.File(raw / "demo.hdf5") as before, h5py.File(tmp_path / "out/demo.hdf5") as after:
        assert sorted(before["mask"]) == sorted(after["mask"])  # type: ignore[arg-type]
        for name in STEPS:
            one, two = before[f"data/{name}"], after[f"data/{name}"]
            assert one.attrs["model_file"] == two.attrs["model_file"]
            np.testing.assert_array_equal(one["states"][()], two["states"][()])  # type: ignore[index]
        first, second = (json.loads(str(each["data"].attrs["env_args"])) for each in (before, after))
        assert (second["env_name"], second["env_version"], second["type"]) == ("Lift", version, 1)
        assert first["env_kwargs"].items() <= second["env_kwargs"].items()
        assert set(second["env_kwargs"]) - set(first["env_kwargs"]) == {"env_name", "camera_heights", "camera_widths"}


@pytest.mark.slow
def test_a_killed_drawing_goes_on(tmp_path: Path, base: Path) -> None:
    """SIGKILL after the first demonstration: the second call draws the others only, and nothing differs."""
    raw = _shared("1.4.1", base)
    code = (
        "import os, signal, sys; from pathlib import Path; from ray_jobs.convert_data import convert_data\n"
        "def die(done, total, part):\n    if done == 1: os.kill(os.getpid(), signal.SIGKILL)\n"
        "convert_data(Path(sys.argv[1]), Path(sys.argv[2]), 'robomimic', size=84, actors=0, progress=die)"
    )
    out = tmp_path / "killed"
    died = subprocess.run(
        [sys.executable, "-c", code, str(raw), str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert died.returncode == -signal.SIGKILL, died.stderr[-2000:]
    assert not (out / "demo.hdf5").exists()
    heard: list[int] = []
    convert_data(
        raw,
        out,
        "robomimic",
        size=SIZE,
        actors=0,
        progress=lambda done, total, part: part == "read" and heard.append(done),
    )
    assert heard == [2, 3]
    convert_data(raw, tmp_path / "whole", "robomimic", size=SIZE, actors=0)
    one, two = source(out), source(tmp_path / "whole")
    assert one.fingerprint == two.fingerprint
    for index in range(3):
        rows = np.arange(one.lengths[index])
        np.testing.assert_array_equal(one.episode(index).frames(rows), two.episode(index).frames(rows))


@pytest.mark.slow
def test_bad_raw_files_get_one_line_and_leave_nothing(tmp_path: Path, base: Path) -> None:
    raw = _shared("1.4.1", base) / "demo.hdf5"

    def refused(name: str, **given: Any) -> str:
        message = user_error(
            lambda: convert_data(tmp_path / name, tmp_path / f"{name}_out", "robomimic", actors=0, **given)
        )
        assert not (tmp_path / f"{name}_out/demo.hdf5").exists()
        return message

    for share in (0.0, 0.3, 0.99):
        name = f"cut{share}"
        (tmp_path / name).mkdir()
        (tmp_path / name / "demo.hdf5").write_bytes(raw.read_bytes()[: int(share * raw.stat().st_size)])
        assert "unreadable HDF5, cut short or damaged" in refused(name)
        assert not (tmp_path / f"{name}_out").exists()

    def edited(name: str, edit: Any) -> str:
        (tmp_path / name).mkdir()
        shutil.copy(raw, tmp_path / name)
        with h5py.File(tmp_path / name / "demo.hdf5", "a") as file:
            edit(file["data"])
        return name

    def other_robot(data: Any) -> None:
        data["demo_2"].attrs["model_file"] = (
            data["demo_2"].attrs["model_file"].replace("robot0_joint1", "robot0_right_j0")
        )

    def fewer(data: Any) -> None:
        states = data["demo_10/states"][:-1]
        del data["demo_10/states"]
        data["demo_10/states"] = states

    def no_json(data: Any) -> None:
        data.attrs["env_args"] = "{'env_name': 'Lift'}"

    assert "demo_2: the model has no joint 'robot0_joint1': it is not of the task Lift with a Panda" in refused(
        edited("sawyer", other_robot)
    )
    assert "demo_10: states (2, 32) do not fit actions (3, 7)" in refused(edited("short", fewer))
    assert "env_args or env_info of data is no JSON" in refused(edited("json", no_json))
    assert "no subset 'trian' in mask/. Did you mean 'train'?" in refused(
        edited("subset", lambda data: None), overrides=["filter=trian"]
    )
