"""A trained world model read back from its checkpoint: what notebooks and planners hold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from wm.config.errors import UserError
from wm.config.experiment import ExperimentConfig
from wm.config.model import EmbeddedProprio
from wm.config.plan import PlanConfig
from wm.contracts import Encoder
from wm.data.normalization import DataStatistics
from wm.models.dynamics import WorldModelDynamics
from wm.models.latent_model import LatentModel
from wm.types import Observation, Plan


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode with its encoder, config and data statistics: all from one file.

    Args:
        facts: the checkpoint's facts (fingerprints, sizes, commit).
        precision, sampling_steps: of what planners imagine.
    """

    config: ExperimentConfig
    encoder: Encoder
    model: LatentModel
    statistics: DataStatistics
    facts: dict[str, Any]
    precision: Literal["fp32", "bf16"] = "fp32"
    sampling_steps: tuple[int, ...] | None = None

    @property
    def dynamics(self) -> WorldModelDynamics:
        """What a planner sees."""
        return WorldModelDynamics(self.encoder, self.model, self.precision, self.sampling_steps)

    def planned_by(self, plan: PlanConfig) -> LoadedModel:
        """The same model, imagining as a plan's config says. Raises UserError for sampling steps that it cannot take."""
        for steps in plan.steps_by_iteration or ():
            with self.model.sampled_in(steps):
                pass
        return replace(self, precision=plan.precision, sampling_steps=plan.steps_by_iteration)

    @property
    def frameskip(self) -> int:
        """Env steps of a model step."""
        return self.config.data.clip.frameskip

    @property
    def sees_proprio(self) -> bool:
        """Whether proprioception is a part of the latent."""
        return isinstance(self.config.model.proprio, EmbeddedProprio) and self.statistics.proprio is not None

    def goal_needs_proprio(self, alpha: float) -> bool:
        """Whether a goal's proprioception changes a plan; `alpha` is the objective's weight of it.

        A joint projection mixes proprio into what the visual distance compares; elsewhere only alpha makes it count.
        """
        return self.sees_proprio and (alpha > 0 or not self.config.model.keeps_proprio)

    def observe(self, frame: np.ndarray, proprio: np.ndarray | None) -> Observation:
        """One raw frame (H, W, 3) uint8 and raw proprio as a (1, 1, ...) observation."""
        visual = torch.from_numpy(np.ascontiguousarray(frame))[None, None]
        if not self.sees_proprio or proprio is None or self.statistics.proprio is None:
            return Observation(visual)
        normalized = self.statistics.proprio.normalize(np.asarray(proprio, np.float32)).astype(np.float32)
        return Observation(visual, torch.from_numpy(normalized)[None, None])

    def env_actions(self, actions: Tensor) -> np.ndarray:
        """Normalised model actions (k, A F) -> raw env actions (k F, A) float64."""
        statistics = self.statistics.action
        if statistics is None:
            raise UserError("this model was trained without actions: it cannot plan")
        raw = statistics.denormalize(actions.detach().cpu().numpy().astype(np.float64))
        return raw.reshape(-1, statistics.size)

    def model_actions(self, actions: np.ndarray) -> Tensor:
        """Raw env actions (k F, A) -> normalised model actions (k, A F)."""
        statistics = self.statistics.action
        if statistics is None:
            raise UserError("this model was trained without actions")
        normalized = statistics.normalize(np.asarray(actions, np.float32)).astype(np.float32)
        return torch.from_numpy(normalized.reshape(-1, self.model.action_dim))

    @torch.no_grad()
    def encode(self, obs: Observation, actions: Tensor) -> Tensor:
        """Pixels or tokens (B, T, ...) with normalised actions (B, T, A F) -> latent z (B, T, P, C + action)."""
        content = self.dynamics.encode(obs)
        return self.model.with_actions(content, actions.to(content.device))

    @torch.no_grad()
    def rollout(self, obs: Observation, actions: Tensor) -> Tensor:
        """Latents (B, H, P, C) of the H frames that follow N observed ones, under L = N + H - 1 actions (B, L, A F)."""
        content = self.dynamics.encode(obs)
        return self.model.rollout(content, actions.to(content.device))


@dataclass(frozen=True)
class RawPlan:
    """A plan for one problem in the world's own units: actions (H F, A)."""

    actions: np.ndarray
    plan: Plan
