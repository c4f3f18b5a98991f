"""docs/serving.md is true: its client drives a wall world, its curl line gets a plan, its tables name every key."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.wm.data.samples import SIZE
from tests.wm.serving.client import Client, opened, serving
from wm.build import build_world
from wm.config.worlds import WallWorldConfig
from wm.serving.plan_queue import PlanQueue
from wm.serving.request import Body
from wm.serving.schema import response_schema

PAGE = (Path(__file__).parents[1] / "docs" / "serving.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8900"


def shown(name: str) -> str:
    (block,) = re.findall(rf"<!-- run: {name} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    return block


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with serving(opened("plan.execute_steps=1"), pytest.fail) as found:
        yield found


class Robot:
    """The wall world, as a person's own code."""

    def __init__(self) -> None:
        self.world = build_world(WallWorldConfig(frame_size=SIZE))
        self.actions: list[Any] = []

    def frame(self) -> np.ndarray:
        return self.world.render()

    def proprio(self) -> Any:
        return self.world.proprio

    def act(self, action: Any) -> None:
        self.actions.append(action)
        self.world.step(np.asarray(action))


@pytest.fixture
def robot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Robot:
    monkeypatch.chdir(tmp_path)
    robot = Robot()
    cv2.imwrite("start.png", robot.frame()[..., ::-1])
    goal = build_world(WallWorldConfig(frame_size=SIZE))
    goal.reset_to(np.array([50.0, 20.0]))
    cv2.imwrite("goal.png", goal.render()[..., ::-1])
    return robot


def test_the_loop_drives_a_world(client: Client, robot: Robot, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"robot": robot}
    exec(compile(shown("client").replace(ADDRESS, f"http://{client.host}"), "client.py", "exec"), names)
    exec(compile(shown("loop"), "docs/serving.md", "exec"), names)
    assert len(robot.actions) == 10 * 5
    assert names["rest"] == names["plan"]["actions"][5:]
    said = capsys.readouterr().out
    assert len(re.findall(r"^turn \d: cost \S+ -> \S+, \d\.\d\d s$", said, re.MULTILINE)) == 10
    with pytest.raises(RuntimeError, match=r"404: /paln: no such path. Did you mean '/plan'\?"):
        names["ask"]("/paln")


def test_the_client_needs_no_wm() -> None:
    script = f"{shown('client')}\nimport sys; print([m for m in ('wm', 'torch', 'ray') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_curl_line(robot: Robot) -> None:
    """Its request has no proprio: it is for a model that takes none."""
    with serving(opened(path=_without_proprio(Path.cwd())), pytest.fail) as client:
        command = shown("curl").replace(ADDRESS, f"http://{client.host}")
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert np.shape(json.loads(done.stdout)["actions"]) == (10, 2)


def _without_proprio(root: Path) -> Path:
    from tests.wm.data.samples import inputs, train

    run = inputs(root, model__proprio="none", train__epochs=1)
    train(run)
    return run.folder.path


def test_the_tables_name_every_key_and_status() -> None:
    section = PAGE[PAGE.index("## `POST /plan`") : PAGE.index("## What goes wrong")]
    named = {
        key for row in re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)
    }
    assert named == {*Body.model_fields, *response_schema(opened().service.interface)["properties"]}
    source = "".join(path.read_text() for path in (Path(__file__).parents[1] / "wm" / "serving").glob("*.py"))
    from http import HTTPStatus

    statuses = {int(HTTPStatus[name]) for name in re.findall(r"HTTPStatus\.([A-Z_]+)", source)}
    told = {int(status) for row in re.findall(r"^\| ([\d, ]+) \|", PAGE, re.MULTILINE) for status in row.split(", ")}
    assert told == statuses - {200, 501}
    words = ("zero", "one", "two", "three", "four", "five", "six")
    assert f"{words[PlanQueue().max_waiting]} may wait" in PAGE
