"""Problems on actors: the same outcomes from any number of them, whoever is killed; what goes wrong fails alone."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from ray_jobs.runtime.planning import PlanTask, solve_all
from tests.integration.conftest import wait_until
from tests.ray_jobs.faulty_world import ask_for
from tests.wm.data import samples
from tests.wm.data.samples import user_error
from wm.build import build_world
from wm.config.platform import ResourcesConfig
from wm.evaluation.problems import dataset_problems, save_problems
from wm.types import Problem

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PROBLEMS = 6


class Asked:
    """Problems of a Wall world that breaks when told to, in a folder of their own."""

    def __init__(self, folder: Path, num_problems: int = PROBLEMS) -> None:
        self.folder = folder
        self.faults = folder / "faults.json"
        self.problems = draw(num_problems)
        save_problems(folder / "problems.npz", self.problems)

    def tasks(self, name: str, together: int, **plan: Any) -> list[PlanTask]:
        """Those whose outcomes lie in the folder `name`."""
        world = {
            "kind": "custom",
            "target": "tests.ray_jobs.faulty_world:FaultyWorld",
            "frame_size": samples.SIZE,
            "config": {"faults": str(self.faults)},
        }
        config = samples.config("align", plan__world=world, plan__together=together, plan__max_iterations=2, **plan)
        where = (str(samples.trained("align").folder.path), config.model_dump_json(), str(self.folder / "problems.npz"))
        return [PlanTask(*where, n, "none", str(self.folder / name / f"{n}.json")) for n in range(len(self.problems))]

    def solve(self, name: str, together: int, num_actors: int, timeout_s: float = 300) -> list[dict[str, Any]]:
        """The outcomes, in order."""
        tasks = self.tasks(name, together)
        found: dict[PlanTask, dict[str, Any]] = {}

        def done(task: PlanTask, outcome: dict[str, Any]) -> None:
            assert task not in found  # each is heard of once
            found[task] = outcome

        solve_all(tasks, num_actors, ResourcesConfig(problem_timeout_s=timeout_s), done)
        return [found[task] for task in tasks]

    def start(self, number: int) -> float:
        return float(self.problems[number].state_0[0])

    def written(self, name: str) -> dict[str, int]:
        """Outcome files and when they were written."""
        return {path.name: path.stat().st_mtime_ns for path in (self.folder / name).glob("*.json")}


def draw(count: int) -> list[Problem]:
    """No two of them begin at one place."""
    run = samples.trained("align")
    world = build_world(run.config.plan.world)
    dataset = run.dataset
    drawn = dataset_problems(
        world, dataset.sources, dataset.held_out_episodes(), count=count, goal_horizon=2, frameskip=5, seed=0
    )
    assert len({problem.state_0[0] for problem in drawn}) == count
    return drawn


def but_for_the_clock(outcomes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in outcome.items() if key != "plan_s"} for outcome in outcomes]


@pytest.fixture
def asked(tmp_path: Path, ray_cluster: Any) -> Asked:
    return Asked(tmp_path)


@pytest.mark.parametrize("together", [1, 2])
def test_outcomes_are_the_same_whoever_solves_them_and_whoever_is_killed(asked: Asked, together: int) -> None:
    expected = but_for_the_clock(asked.solve("alone", together, num_actors=1))
    assert all(outcome["failure"] is None for outcome in expected)
    assert len({str(outcome["actions"]) for outcome in expected}) == PROBLEMS
    assert but_for_the_clock(asked.solve("shared", together, num_actors=2)) == expected

    # Killed in the middle of a problem; its group is one that two actors are on.
    ask_for(asked.faults, {asked.start(1): "waits"})
    killed: list[str] = []
    killer = threading.Thread(target=kill_a_solver, args=(asked.faults, killed))
    killer.start()
    found = asked.solve("killed", together, num_actors=2)
    killer.join()
    assert [name.startswith("ray::Solver") for name in killed] == [True]
    assert but_for_the_clock(found) == expected

    # What is gone is solved again, with all that it was planned with; the rest is left as it was.
    before = asked.written("killed")
    (asked.folder / "killed" / "3.json").unlink()
    assert but_for_the_clock(asked.solve("killed", together, num_actors=1)) == expected
    after = asked.written("killed")
    again = {name for name in after if after[name] != before[name]}
    assert again == ({"3.json"} if together == 1 else {"2.json", "3.json"})
    assert but_for_the_clock(asked.solve("killed", together, num_actors=2)) == expected
    assert asked.written("killed") == after


def kill_a_solver(faults: Path, killed: list[str]) -> None:
    """SIGKILL for the actor that waits, if it is one of ours."""
    said = Path(f"{faults}.pid")
    wait_until(said.is_file, 120)
    victim = psutil.Process(int(said.read_text()))
    killed += [" ".join(victim.cmdline())]
    if victim in psutil.Process().children(recursive=True):
        faults.unlink()  # whoever has it next goes on
        os.kill(victim.pid, signal.SIGKILL)


def test_what_goes_wrong_fails_alone_with_its_reason(tmp_path: Path, ray_cluster: Any) -> None:
    asked, together = Asked(tmp_path, 8), 2
    expected = asked.solve("undisturbed", together, num_actors=2)
    ask_for(asked.faults, {asked.start(0): "hangs", asked.start(3): "raises", asked.start(4): "misses a file"})
    found = asked.solve("disturbed", together, num_actors=2, timeout_s=10)
    assert {number: outcome["failure"] for number, outcome in enumerate(found) if outcome["failure"] is not None} == {
        0: "took more than 10 s",
        3: "RuntimeError: the solver did not converge",
        4: "RuntimeError: FileNotFoundError: [Errno 2] No such file or directory: 'mesh.stl'",
    }
    assert not any(found[number]["success"] for number in (0, 3, 4))
    for number in (1, 2, 5):  # with whom they would have been planned decides their last digits
        np.testing.assert_allclose(found[number]["actions"], expected[number]["actions"], atol=1e-4)
    for number in (6, 7):
        assert but_for_the_clock([found[number]]) == but_for_the_clock([expected[number]])
    # Not on disk: once mended, the same call solves them too.
    assert set(asked.written("disturbed")) == {f"{number}.json" for number in (1, 2, 5, 6, 7)}
    asked.faults.unlink()
    mended = asked.solve("disturbed", together, num_actors=2)
    assert but_for_the_clock(mended) == but_for_the_clock(expected)


def test_a_config_that_does_not_fit_is_no_failed_problem(asked: Asked) -> None:
    limit = {"kind": "velocity", "max_norm": 1.0, "actions": ["nothing"]}
    tasks = asked.tasks("unfit", 1, plan__limits={"slow": limit})
    message = user_error(
        lambda: solve_all(tasks, 1, ResourcesConfig(), lambda task, outcome: pytest.fail("an outcome"))
    )
    assert message.startswith("plan.limits.slow.actions: no 'nothing' here")


def test_an_actor_that_waits_for_its_place_takes_no_problem_s_time(asked: Asked, ray_cluster: Any) -> None:
    class Neighbour:
        pass

    neighbour = ray_cluster.remote(Neighbour).options(num_cpus=3.5).remote()
    ray_cluster.get(neighbour.__ray_ready__.remote())
    threading.Timer(12, ray_cluster.kill, [neighbour]).start()
    del asked.problems[1:]
    (outcome,) = asked.solve("late", 1, num_actors=1, timeout_s=8)
    assert outcome["failure"] is None


def test_a_full_disk_ends_the_command_and_loses_nothing(
    tmp_path: Path, ray_cluster: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`wm plan`, as a person runs it: one line with the reason, an exit code, and the same command goes on."""
    run = samples.inputs(tmp_path / "home")
    samples.train(run)
    problems, faults, out = tmp_path / "problems.npz", tmp_path / "faults.json", tmp_path / "out"
    drawn = draw(4)
    save_problems(problems, drawn)
    world = [
        "plan.world.kind=custom",
        "plan.world.target=tests.ray_jobs.faulty_world:FaultyWorld",
        f"plan.world.frame_size={samples.SIZE}",
        f"plan.world.config.faults={faults}",
    ]
    more = [f"storage.root={tmp_path / 'home'}", "plan.max_iterations=1", "resources.planning_actors=1"]
    command = [str(run.folder.path), *world, *more, "--problems", str(problems), "--episodes", "4", "--out", str(out)]

    def wm_plan() -> int:
        from ray_jobs.cli import main

        monkeypatch.setattr(sys, "argv", ["wm", "plan", *command, "--videos", "0"])
        with pytest.raises(SystemExit) as left:
            main()
        return int(left.value.code or 0)

    def written() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in out.glob("*/gh2/*@*.json")}

    ask_for(faults, {float(drawn[2].state_0[0]): "full"})
    assert wm_plan() == 2
    said = capsys.readouterr().err.strip().splitlines()
    before = written()
    assert len(before) == 2
    full = Path(min(before)).with_name(f"{drawn[2].id.replace('/', '_')}.json")
    assert said == [f"error: no space left on the disk ({full}); free some and run the same command"]
    assert not list(out.rglob("*.partial"))
    faults.unlink()
    assert wm_plan() == 0
    after = written()
    assert len(after) == 4
    assert {name: after[name] for name in before} == before
    assert "4 problems a goal horizon" in " ".join(capsys.readouterr().out.split())
