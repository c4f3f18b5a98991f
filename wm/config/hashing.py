"""Names of runs: what decides their numbers, and nothing else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from wm.config.experiment import ExperimentConfig
from wm.config.plan import PlanConfig
from wm.config.pretrain import PretrainConfig
from wm.config.shortcut import NETWORK, ShortcutConfig

_BOOKKEEPING = ("checkpoint_every_steps", "keep_checkpoints", "device")


def train_hash(config: ExperimentConfig, data_fingerprint: str, encoder_fingerprint: str) -> str:
    """12 hex digits of data, encoder, model, train, latent evaluation and seed; fingerprints stand for paths.

    The latent evaluation belongs to it because its metrics are part of a run's history; planning does not.
    """
    facts = config.model_dump(mode="json", include={"model", "train", "seed"})
    for key in _BOOKKEEPING:
        facts["train"].pop(key)
    if config.train.start is None:  # runs that start anew keep the names that they had before there were others
        facts["train"].pop("start")
    facts["evaluate"] = config.evaluate.model_dump(mode="json", exclude={"grid", "perceptual"})
    facts["data"] = {
        "fingerprint": data_fingerprint,
        "clip": config.data.clip.model_dump(mode="json"),
        "tokens": config.data.tokens,
    }
    if config.data.mixture.is_given:  # runs of one pool keep the names that they had before there were mixtures
        facts["data"]["mixture"] = config.data.mixture.model_dump(mode="json")
    if config.data.token_format != "float16":  # as above
        facts["data"]["token_format"] = config.data.token_format
    if config.data.primary is not None:
        facts["data"]["primary"] = config.data.primary
    if config.data.augment.is_on:
        facts["data"]["augment"] = config.data.augment.model_dump(mode="json")
    if isinstance(config.model, ShortcutConfig):
        facts["network"] = NETWORK
    facts["encoder"] = encoder_fingerprint
    facts["num_workers"] = config.resources.num_workers
    return _digest(facts)


def pretrain_hash(config: PretrainConfig, data_fingerprint: str) -> str:
    """12 hex digits of what decides an encoder's training and the judgements in its history; fingerprints stand for paths."""
    facts = config.model_dump(mode="json", exclude={"data", "storage", "tracking", "resources"})
    facts["encoder"].pop("pretrained")  # always "none"
    for key in (*_BOOKKEEPING, "exported"):
        facts["train"].pop(key)
    if config.distillation.motion_weight == 0:  # trainings without it keep the names that they had before there was one
        facts["distillation"].pop("motion_weight")
    facts["data"] = config.data.model_dump(mode="json", include={"clip", "mixture", "augment"})
    facts["data"]["fingerprint"] = data_fingerprint
    facts["num_workers"] = config.resources.num_workers
    return _digest(facts)


def eval_hash(config: ExperimentConfig, trained: str) -> str:
    """12 hex digits of a trained run and how it is planned with, whatever the number of problems."""
    facts = config.model_dump(mode="json", include={"plan"}, exclude={"plan": {"episodes"}})
    facts["plan"]["problems"] = _problem_source(config.plan)
    if config.plan.sampling_steps is None:  # evaluations of models that do not sample keep the names that they had
        facts["plan"].pop("sampling_steps")
    return _digest({"trained": trained, **facts})


def problem_hash(config: ExperimentConfig, data_fingerprint: str, goal_horizon: int) -> str:
    """12 hex digits of what decides the planning problems: the same for every variant and planner."""
    plan = config.plan
    facts = {
        "data": data_fingerprint,
        "world": plan.world.model_dump(mode="json"),
        "problems": _problem_source(plan),
        "episodes": plan.episodes,
        "seed": plan.seed,
        "frameskip": config.data.clip.frameskip,
        "goal_horizon": goal_horizon,
    }
    if config.data.primary is not None:  # problems come from the sources whose actions are planned
        facts["primary"] = config.data.primary
    return _digest(facts)


def _problem_source(plan: PlanConfig) -> str:
    """How problems are drawn, or what their file holds: the file may move, and must not change."""
    file = plan.problem_file
    if file is None or not Path(file).is_file():
        return plan.problems
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _digest(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
