"""Planning along a record, without a simulator: what would be done beside what was done.

Shape legend: T frames, G goal horizon, K context frames, N candidates, F frameskip, A action size.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm.config.errors import UserError
from wm.contracts import Dynamics, Objective, Planner
from wm.evaluation.offline_clips import OfflineClip
from wm.types import Observation, Plan, WarmStart

PLANNED, RECORDED, OTHER, RANDOM, MEAN = "planned", "recorded", "other", "random", "mean"
CONTROLS = (OTHER, RANDOM, MEAN)  # another clip's actions, N(0, 1), and the mean action of the training data


@dataclass(frozen=True)
class ClipOutcome:
    """What came of one clip.

    Args:
        clip, episode: their names.
        looks: model steps from the start at which a plan was made.
        actions: `planned` (what would have been executed), `recorded`, `other` and `random`: raw env actions (G F, A).
        costs: of the same and of `mean`, at each look, for the steps from there to the goal, under the objective.
        latent_error, copy_error: mean squared error of the latents imagined from the start under the recorded actions, and of
            the start's own latent, at each of G steps; visual channels.
        plan_s: seconds of each plan; None for the first of its length in a process, which also warms it up.
        failure: why there is no outcome, or None.
    """

    clip: str
    episode: str
    looks: list[int] = field(default_factory=list[int])
    actions: dict[str, list[list[float]]] = field(default_factory=dict[str, list[list[float]]])
    costs: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    latent_error: list[float] = field(default_factory=list[float])
    copy_error: list[float] = field(default_factory=list[float])
    plan_s: list[float | None] = field(default_factory=list[float | None])
    failure: str | None = None


class AfterActions:
    """The dynamics of a context of several frames: the actions that led through it come before a candidate's.

    Args:
        past: normalised (K - 1, A F).
    """

    def __init__(self, dynamics: Dynamics, past: Tensor) -> None:
        self.dynamics = dynamics
        self.past = past
        self.action_dim = dynamics.action_dim

    def encode(self, obs: Observation) -> Tensor:
        """As the dynamics."""
        return self.dynamics.encode(obs)

    def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
        """Context (1 or N, K, ...) and actions (N, H, A F) -> (N, H, ...) of the frames that follow."""
        past = self.past.to(actions).expand(*actions.shape[:-2], *self.past.shape)
        return self.dynamics.rollout(latent, torch.cat([past, actions], dim=-2))


def search(
    planner: Planner,
    dynamics: Dynamics,
    objective: Objective,
    context: Tensor,
    goal: Tensor,
    start: WarmStart | None,
    generator: torch.Generator,
) -> Plan:
    """One plan, whose actions (1, H, A F) are on the CPU (so that a GPU is done with it): the one place that calls a planner."""
    plan = planner.plan(dynamics, objective, context, goal, start, [generator])
    return replace(plan, actions=plan.actions.cpu())


class OfflineEvaluation:
    """Plans on recorded clips as MPC would, but looks at the recorded frames: there is nobody to carry the plan out.

    A plan covers the model steps that are left to the goal, as many as the record took. After `execute_steps` of them the
    recorded frame is seen, what is left of the plan warm-starts the next one, and so on to the goal.

    Args:
        make_planner: a horizon -> a planner of that many model steps.
        env_actions: normalised model actions (k, A F) -> raw env actions (k F, A).
        history_len: most context frames.
        visual: latents -> their visual channels.
        execute_steps: model steps between two looks.
        seed: with each clip's name it seeds that clip's noise.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        objective: Objective,
        make_planner: Callable[[int], Planner],
        env_actions: Callable[[Tensor], np.ndarray],
        *,
        history_len: int,
        visual: Callable[[Tensor], Tensor] = lambda latents: latents,
        execute_steps: int,
        seed: int,
    ) -> None:
        self.dynamics = dynamics
        self.objective = objective
        self.make_planner = make_planner
        self.env_actions = env_actions
        self.history_len = history_len
        self.visual = visual
        self.execute_steps = execute_steps
        self.seed = seed
        self._warm: set[int] = set()

    def solve(self, clip: OfflineClip) -> ClipOutcome:
        """Plan along one clip. A model that breaks fails this clip, with the reason, and no other."""
        try:
            return self._solve(clip)
        except (ValueError, UserError, FloatingPointError) as error:
            return ClipOutcome(clip.id, clip.episode, failure=f"{type(error).__name__}: {error}")

    def _solve(self, clip: OfflineClip) -> ClipOutcome:
        generator = self._generator(clip)
        steps = clip.goal_horizon
        recorded = clip.actions[clip.now :]
        follow = {
            RECORDED: recorded,
            OTHER: clip.other,
            RANDOM: torch.randn(recorded.shape, generator=generator),
            MEAN: torch.zeros_like(recorded),
        }
        with torch.no_grad():
            content = self.dynamics.encode(clip.obs)
        goal = content[:, -1:]
        looks = list(range(0, steps, self.execute_steps))
        costs: dict[str, list[float]] = {who: [] for who in (PLANNED, *follow)}
        executed: list[Tensor] = []
        plan_s: list[float | None] = []
        start: WarmStart | None = None
        for look in looks:
            context, dynamics = self._seen(clip, content, clip.now + look)
            began_s = time.perf_counter()
            planner = self.make_planner(steps - look)
            found = search(planner, dynamics, self.objective, context, goal, start, generator)
            plan = found.actions[0]
            took_s = time.perf_counter() - began_s
            plan_s.append(took_s if steps - look in self._warm else None)
            self._warm.add(steps - look)  # kernels are chosen and memory is taken in the first call of each length
            candidates = {PLANNED: plan, **{who: actions[look:] for who, actions in follow.items()}}
            for who, cost in zip(candidates, self._costs(dynamics, context, goal, candidates), strict=True):
                costs[who].append(cost)
            executed.append(plan[: self.execute_steps])
            start = WarmStart.after(found, self.execute_steps)
        error, copy = self._latent_errors(clip, content)
        acted = {PLANNED: torch.cat(executed), **{who: follow[who] for who in (RECORDED, OTHER, RANDOM)}}
        return ClipOutcome(
            clip.id,
            clip.episode,
            looks,
            {who: self.env_actions(actions).tolist() for who, actions in acted.items()},
            costs,
            error,
            copy,
            plan_s,
        )

    def _seen(self, clip: OfflineClip, content: Tensor, at: int) -> tuple[Tensor, Dynamics]:
        """Up to `history_len` recorded frames that end at `at`, and the dynamics that go on from there."""
        first = max(0, at + 1 - self.history_len)
        past = clip.actions[first:at]
        dynamics = AfterActions(self.dynamics, past) if len(past) else self.dynamics
        return content[:, first : at + 1], dynamics

    @torch.no_grad()
    def _costs(self, dynamics: Dynamics, context: Tensor, goal: Tensor, candidates: dict[str, Tensor]) -> list[float]:
        actions = torch.stack(list(candidates.values())).to(context)
        costs = self.objective(dynamics.rollout(context, actions), goal).float()
        broken = [who for who, cost in zip(candidates, costs, strict=True) if not cost.isfinite()]
        if broken:
            raise FloatingPointError(f"the model's cost of the {' and '.join(broken)} actions is no number")
        return costs.tolist()

    @torch.no_grad()
    def _latent_errors(self, clip: OfflineClip, content: Tensor) -> tuple[list[float], list[float]]:
        """Of the rollout under the recorded actions, and of copying the start: at each step (G,)."""
        context, dynamics = self._seen(clip, content, clip.now)
        imagined = dynamics.rollout(context, clip.actions[None, clip.now :].to(context))
        truth = self.visual(content[:, clip.now + 1 :])
        start = self.visual(content[:, clip.now : clip.now + 1])
        return _per_frame(self.visual(imagined) - truth), _per_frame(start - truth)

    def _generator(self, clip: OfflineClip) -> torch.Generator:
        digest = hashlib.sha256(f"{self.seed}/{clip.id}/{clip.goal_horizon}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def outcome_from(saved: dict[str, Any]) -> ClipOutcome:
    """An outcome from what its `dataclasses.asdict` was saved as."""
    return ClipOutcome(**saved)


def _per_frame(difference: Tensor) -> list[float]:
    return difference.float().square().flatten(2).mean(dim=2)[0].tolist()
