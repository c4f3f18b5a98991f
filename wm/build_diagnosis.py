"""Config to diagnosis: one problem solved under each handicap, and what else it says."""

from __future__ import annotations

from dataclasses import replace

from wm.build_planning import action_bounds, build_limits, build_objective, build_planner, planning_evaluation
from wm.config.diagnosis import DiagnosisConfig
from wm.config.plan import PlanConfig
from wm.contracts import Dynamics, Objective, World
from wm.evaluation.diagnosis_facts import FactFinder, ProblemFacts
from wm.evaluation.outcomes import PlanOutcome
from wm.evaluation.planning import PlanningEvaluation
from wm.evaluation.simulator import SimulatedLatents, SimulatedStates, StateCost
from wm.loaded import LoadedModel
from wm.types import Problem

SLOW_ROWS = ("true_states", "true_latents", "in_model")


class Diagnostics:
    """Solves and measures problems with one model in one world, one at a time.

    Args:
        plan: as evaluated.
        settings: of the small search.
        memory_gb: of activations.
    """

    def __init__(
        self, plan: PlanConfig, settings: DiagnosisConfig, model: LoadedModel, world: World, *, memory_gb: float = 1.0
    ) -> None:
        build_limits(plan.limits, world.action_names, world.proprio_names)  # a wrong name is no failed problem
        self.plan, self.settings, self.model, self.world, self.memory_gb = plan, settings, model, world, memory_gb
        self.objective = build_objective(plan.objective, model.model)
        self.last_only = plan.objective.frames == "last"
        # A problem whose goal is met ends there: success is the same, and the simulator is slow.
        search = {
            "planner": settings.search(plan.planner.horizon),
            "execute_steps": plan.steps_executed,
            "legacy_success_stop": True,
        }
        self.small_plan = plan.model_copy(update=search)

    def solve(self, row: str, problem: Problem) -> PlanOutcome:
        """One of SLOW_ROWS. A world or a model that breaks fails the problem, with the reason."""
        world, model = self.world, self.model
        match row:
            case "true_states":
                return self._searched(SimulatedStates(world, model), StateCost(world, problem.state_g)).solve(problem)
            case "true_latents":
                dynamics = SimulatedLatents(world, model, last_only=self.last_only)
                return self._searched(dynamics, self.objective).solve(problem)
            case "in_model":
                small = planning_evaluation(self.small_plan, model, [world], memory_gb=self.memory_gb)
                return small.solve(problem)
            case _:
                raise ValueError(f"row is '{row}', expected one of {', '.join(SLOW_ROWS)}")

    def facts(self, problem: Problem) -> ProblemFacts:
        """What the problem says apart from any search in the world. Raises ValueError where the world refuses it."""
        model, plan = self.model, self.plan
        bounds = action_bounds(plan, model, self.world)
        planner = build_planner(plan.planner, model, memory_gb=self.memory_gb, bounds=bounds)
        horizon = max(problem.goal_horizon, plan.planner.horizon)
        chunk_size = max(1, int(self.memory_gb * 1e9 / model.model.rollout_bytes(horizon)))
        finder = FactFinder(
            model,
            self.world,
            planner,
            self.objective,
            visual=model.model.visual,
            bounds=bounds,
            execute_steps=plan.steps_executed,
            max_iterations=plan.max_iterations,
            num_candidates=self.settings.candidates,
            seed=plan.seed,
            last_only=self.last_only,
            chunk_size=chunk_size,
        )
        return finder.find(problem)

    def _searched(self, dynamics: Dynamics, objective: Objective) -> PlanningEvaluation:
        """The small search in the simulator, everything else as evaluated."""
        plan, world, model = self.small_plan, self.world, self.model
        planner = build_planner(plan.planner, model, memory_gb=self.memory_gb, bounds=action_bounds(plan, model, world))
        return PlanningEvaluation(
            [world],
            model,
            planner,
            objective,
            execute_steps=plan.steps_executed,
            max_iterations=plan.max_iterations,
            seed=plan.seed,
            limits=lambda: build_limits(plan.limits, world.action_names, world.proprio_names),
            legacy_success_stop=True,
            dynamics=dynamics,
        )


def shifted_problem(problem: Problem, world: World) -> Problem:
    """The same states as a world under a shift shows them. Raises ValueError where it refuses one.

    Args:
        world: under the shift.
    """
    world.set_layout(problem.layout)
    shown = {}
    for end, state in (("0", problem.state_0), ("g", problem.state_g)):
        world.reset_to(state)
        shown[f"frame_{end}"] = world.render()
        if getattr(problem, f"proprio_{end}") is not None:
            shown[f"proprio_{end}"] = world.proprio.copy()
    return replace(problem, **shown)
