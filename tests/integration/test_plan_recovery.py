"""`wm plan` while an actor and the driver are killed: the same command goes on, and its table is the undisturbed one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.conftest import children_named, finish, wait_until
from tests.wm.data import samples
from wm.evaluation.problems import load_problems

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.recovery]

EPISODES, TOGETHER = 8, 2
TOTAL = EPISODES * 4  # two checkpoints, random and recorded actions
# Problems that take a while: there must be something to kill.
SETTINGS = (
    *(f"plan.episodes={EPISODES}", f"plan.together={TOGETHER}", "plan.max_iterations=3"),
    *("plan.planner.num_samples=100", "plan.planner.num_iterations=20", "resources.planning_actors=2"),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def checkpoints(home: Path) -> list[str]:
    runs = [samples.inputs(home, variant) for variant in ("align", "baseline")]
    for run in runs:
        samples.train(run)
    return [str(run.folder.path) for run in runs]


def outcomes(out: Path) -> dict[str, Path]:
    """By the name of what planned and the problem's."""
    return {str(path.relative_to(out)): path for path in out.rglob("*@*.json") if not path.name.startswith(".")}


def contents(out: Path) -> dict[str, dict[str, Any]]:
    """All but the clock."""
    found = {name: json.loads(path.read_text()) for name, path in outcomes(out).items()}
    return {name: {**outcome, "plan_s": len(outcome["plan_s"])} for name, outcome in found.items()}


def test_a_killed_actor_and_a_killed_driver_end_as_the_same_table(
    tmp_path: Path, home: Path, checkpoints: list[str], wm_command: Any
) -> None:
    plain, killed = tmp_path / "plain", tmp_path / "killed"

    def wm_plan(out: Path) -> Any:
        return wm_command(home, "plan", *checkpoints, *SETTINGS, "--videos", "1", "--out", str(out))

    process = wm_plan(plain)
    output = finish(process)
    assert process.returncode == 0, output[-3000:]
    assert len(outcomes(plain)) == TOTAL

    process = wm_plan(killed)

    def until(count: int) -> None:
        wait_until(lambda: len(outcomes(killed)) >= count or process.poll() is not None)
        assert process.poll() is None, process.communicate()[0][-3000:]

    until(2)
    solvers: list[psutil.Process] = []

    def is_solving() -> bool:  # between two problems it has another name
        solvers[:] = children_named(process, "ray::Solver.solve")
        return bool(solvers) or process.poll() is not None

    wait_until(is_solving)
    assert process.poll() is None, "it had ended already"
    solvers[0].kill()
    until(6)
    assert solvers[0].pid not in [child.pid for child in children_named(process, "ray::Solver")]
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()  # SIGKILL: no handler runs
    process.wait()
    agents = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")  # these look after themselves for a minute or more
    _, left = psutil.wait_procs([child for child in family if child.is_running() and child.name() not in agents], 60)
    left = [child for child in left if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert not left, f"left behind: {left}"
    before = {name: path.stat().st_mtime_ns for name, path in outcomes(killed).items()}
    assert len(before) < TOTAL, "it had ended already"
    assert not (killed / "goal_horizons.md").exists()

    process = wm_plan(killed)
    output = finish(process)
    assert process.returncode == 0, output[-3000:]
    assert contents(killed) == contents(plain)
    assert (killed / "goal_horizons.md").read_bytes() == (plain / "goal_horizons.md").read_bytes()
    assert "| align | " in (killed / "goal_horizons.md").read_text()
    after = {name: path.stat().st_mtime_ns for name, path in outcomes(killed).items()}
    found = {name for name in before if companions(home, name) <= before.keys()}
    assert found
    assert {name: after[name] for name in found} == {name: before[name] for name in found}, "solved again"
    assert not list(killed.rglob("*.partial"))


def companions(home: Path, name: str) -> set[str]:
    """Of an outcome: those planned together with it, itself among them."""
    (file,) = (home / "problems").glob("*.npz")
    ids = [problem.id.replace("/", "_") for problem in load_problems(file)]
    path = Path(name)
    first = ids.index(path.stem) // TOGETHER * TOGETHER
    return {str(path.with_name(f"{one}.json")) for one in ids[first : first + TOGETHER]}
