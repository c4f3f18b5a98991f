"""Config to objects, above all rooms: the only place that knows which class serves which config."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

import numpy as np
import torch
from torch import nn

from wm.build_planning import action_bounds, build_objective, build_planner
from wm.config.catalogue import config_of, policy_kinds
from wm.config.encoder import (
    CustomEncoderConfig,
    Dinov2EncoderConfig,
    Dinov3EncoderConfig,
    EncoderConfig,
    PrecomputedEncoderConfig,
    ResnetEncoderConfig,
    TinyEncoderConfig,
    VJepa2EncoderConfig,
)
from wm.config.errors import UserError
from wm.config.experiment import ExperimentConfig
from wm.config.plan import PlannerConfig
from wm.config.policies import (
    ExpertNoisyPolicyConfig,
    ExpertPolicyConfig,
    PolicyConfig,
    PushPolicyConfig,
    RandomPolicyConfig,
    SmoothPolicyConfig,
    WanderPolicyConfig,
)
from wm.config.shortcut import NETWORK, ShortcutConfig, TeacherForcingConfig, check_network
from wm.config.target import call_target
from wm.config.terms import CustomTerm
from wm.config.worlds import (
    CanWorldConfig,
    CustomWorldConfig,
    GranularWorldConfig,
    LiftWorldConfig,
    LinearWorldConfig,
    PointMazeWorldConfig,
    PushTWorldConfig,
    RopeWorldConfig,
    SquareWorldConfig,
    StackWorldConfig,
    WallWorldConfig,
    WorldConfig,
)
from wm.contracts import Encoder, Policy, ResizableEncoder, World
from wm.data.dataset import Dataset
from wm.data.normalization import DataStatistics
from wm.data.token_mirror import TokenMirror
from wm.encoders.custom import custom_encoder
from wm.encoders.precomputed import PrecomputedEncoder
from wm.encoders.resnet import resnet18_encoder
from wm.encoders.vit import dinov2_encoder, dinov3_encoder, tiny_encoder
from wm.encoders.vjepa2 import vjepa2_encoder
from wm.envs.custom import custom_expert, custom_world
from wm.envs.linear import LinearWorld
from wm.envs.policies import NoisyPolicy, RandomPolicy, RangePolicy, SmoothPolicy, WanderPolicy
from wm.envs.wall import WallWorld
from wm.loaded import LoadedModel, RawPlan
from wm.models.latent_model import LatentModel
from wm.models.world_model import WorldModel
from wm.shortcut.shortcut import ShortcutModel
from wm.shortcut.teacher import TeacherForcedModel
from wm.training.checkpoint import find_checkpoint, load_checkpoint
from wm.training.start import open_start

if TYPE_CHECKING:  # the extra `worlds` is not needed to train
    from gymnasium.vector import AsyncVectorEnv

    from wm.envs.gym_env import WorldEnv


def build_encoder(config: EncoderConfig) -> Encoder:
    """The frozen encoder. Raises UserError when its weights cannot be found, or a custom one breaks the contract."""
    match config:
        case TinyEncoderConfig():
            return tiny_encoder(config)
        case Dinov2EncoderConfig():
            return dinov2_encoder(config)
        case Dinov3EncoderConfig():
            return dinov3_encoder(config)
        case VJepa2EncoderConfig():
            return vjepa2_encoder(config)
        case ResnetEncoderConfig():
            return resnet18_encoder(config)
        case PrecomputedEncoderConfig():
            return PrecomputedEncoder(config)
        case CustomEncoderConfig():
            return custom_encoder(config)
        case _:
            assert_never(config)


def encoder_at(encoder: Encoder, size: int) -> Encoder:
    """The same encoder on pictures of another size. Raises UserError when it cannot, or its tokens would be no square grid."""
    if not isinstance(encoder, ResizableEncoder):
        raise UserError(
            f"train.resolution: encoder '{type(encoder).__name__}' has no at_size(size) (wm.contracts.ResizableEncoder)"
        )
    try:
        resized = encoder.at_size(size)
    except UserError as error:
        raise UserError(f"train.resolution: {size}: {error}") from error
    for one in (encoder, resized):
        if one.grid[0] != one.grid[1]:
            raise UserError(f"train.resolution: only square grids of patches can be resized, not {list(one.grid)}")
    if resized.grid[0] > encoder.grid[0]:
        raise UserError(
            f"train.resolution: {size} pixels are {list(resized.grid)} patches, more than the encoder's own {list(encoder.grid)}"
        )
    return resized


def build_world(config: WorldConfig) -> World:
    """A simulator."""
    match config:
        case WallWorldConfig():
            return WallWorld(config)
        case LinearWorldConfig():
            return LinearWorld(config)
        case CustomWorldConfig():
            return custom_world(config)
        case PointMazeWorldConfig():
            from wm.envs.point_maze import PointMazeWorld

            return PointMazeWorld(config)
        case PushTWorldConfig():
            from wm.envs.pusht import PushTWorld  # pymunk and pygame are an extra, and chatter

            return PushTWorld(config)
        case LiftWorldConfig() | CanWorldConfig() | SquareWorldConfig() | StackWorldConfig():
            from wm.envs.robosuite_world import RobosuiteWorld

            return RobosuiteWorld(config)
        case RopeWorldConfig():
            from wm.envs.rope import RopeWorld  # each imports its simulator

            return RopeWorld(config)
        case GranularWorldConfig():
            from wm.envs.granular import GranularWorld

            return GranularWorld(config)
        case _:
            assert_never(config)


def build_env(config: WorldConfig, **options: Any) -> WorldEnv:
    """A world as a gymnasium environment.

    Args:
        options: of `wm.envs.gym_env.WorldEnv`.
    """
    from wm.envs.gym_env import WorldEnv

    return WorldEnv(build_world(config), **options)


def vector_env(config: WorldConfig, num_envs: int, **options: Any) -> AsyncVectorEnv:
    """The same environment several times, each in a process of its own, stepped together.

    The processes import what calls this: a script needs `if __name__ == "__main__":` around it.

    Args:
        options: of `wm.envs.gym_env.WorldEnv`.
    """
    from wm.envs.gym_env import vector_env as in_processes

    if num_envs < 1:
        raise ValueError(f"num_envs is {num_envs}, expected at least 1")
    return in_processes([partial(build_env, config, **options)] * num_envs)


# The class of each world's script, imported when it is asked for.
EXPERTS: dict[str, str] = {
    "wall": "wm.envs.wall_expert:WallExpert",
    "linear": "wm.envs.linear_expert:LinearExpert",
    "point_maze": "wm.envs.point_maze_expert:PointMazeExpert",
    "pusht": "wm.envs.pusht_expert:PushTExpert",
    "rope": "wm.envs.push_expert:PushExpert",
    "granular": "wm.envs.push_expert:PushExpert",
    "lift": "wm.envs.robosuite_expert:RobosuiteExpert",
    "can": "wm.envs.robosuite_expert:RobosuiteExpert",
    "square": "wm.envs.robosuite_expert:RobosuiteExpert",
    "stack": "wm.envs.robosuite_expert:RobosuiteExpert",
}


def build_policy(policy: PolicyConfig | str, world: WorldConfig) -> Policy:
    """What acts in a world to make data.

    Args:
        policy: its settings, or a kind by name with its defaults.

    Raises:
        UserError: unknown name, or an expert where the world has none.
    """
    config = (
        config_of(policy_kinds(), policy, {}, "policy", "policy: unknown policy") if isinstance(policy, str) else policy
    )
    match config:
        case RandomPolicyConfig():
            # The Wall's data have always been made with this one: unclipped, of the published data's size.
            if isinstance(world, WallWorldConfig) and config == RandomPolicyConfig():
                return RandomPolicy()
            return RangePolicy(config.distribution, config.std)
        case SmoothPolicyConfig():
            return SmoothPolicy(config.time_constant, config.std)
        case WanderPolicyConfig():
            return WanderPolicy(**config.model_dump(exclude={"kind"}))
        case PushPolicyConfig():
            from wm.envs.push_policy import PushParticlesPolicy  # imports its simulator

            return PushParticlesPolicy(config.past)
        case ExpertPolicyConfig():
            return _build_expert(world)
        case ExpertNoisyPolicyConfig():
            return NoisyPolicy(_build_expert(world), config.std)
        case _:
            assert_never(config)


def _build_expert(world: WorldConfig) -> Policy:
    if isinstance(world, CustomWorldConfig):
        if world.expert is None:
            raise UserError("policy: this custom world has no expert; world.expert=package.module:Name would name one")
        return custom_expert(world.expert)
    if world.kind not in EXPERTS:
        raise UserError(f"policy: world '{world.kind}' has no expert; worlds with one: {', '.join(EXPERTS)}")
    return call_target(EXPERTS[world.kind], "policy", {})


def build_dataset(config: ExperimentConfig, root: Path, encoder_fingerprint: str) -> Dataset:
    """Sources, split and clips; tokens come from the store unless the config says `online`, or from the source itself.

    Raises UserError when a source's own tokens have another shape than `encoder.kind=precomputed` says, or no filesystem has
    the name that storage.tokens gives.
    """
    stored = encoder_fingerprint if config.data.tokens == "store" else None
    stride = config.data.clip.frameskip if config.encoder.looks_back else None
    mirror = None if config.storage.tokens is None else TokenMirror(config.storage.tokens)
    start = config.train.start
    # Read when it is first asked for: a trained checkpoint has its own, and what it started from may be gone.
    kept = None if start is None else lambda: open_start(root, start).statistics
    dataset = Dataset(config.data, root, stored, stride, mirror, kept)
    if isinstance(config.encoder, PrecomputedEncoderConfig):
        down, across = config.encoder.grid
        for name, source in dataset.features.items():
            if source.token_shape != (down * across, config.encoder.dim):
                tokens, dim = source.token_shape
                raise UserError(
                    f"data.sources.{name}: {tokens} tokens of {dim} channels a frame, but encoder.grid={[down, across]} and "
                    f"encoder.dim={config.encoder.dim}"
                )
    return dataset


def model_facts(config: ExperimentConfig, dataset: Dataset, encoder: Encoder) -> dict[str, Any]:
    """The sizes and statistics that rebuild the model without its data."""
    statistics = dataset.statistics
    facts: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "statistics": statistics.to_json(),
        "data_fingerprint": dataset.fingerprint,
        "encoder_fingerprint": encoder.fingerprint,
        "token_dim": encoder.dim,
        "tokens_per_frame": encoder.grid[0] * encoder.grid[1],
        "action_dim": dataset.action_dim,
        "proprio_dim": 0 if statistics.proprio is None else statistics.proprio.size,
        "frame_size": dataset.frame_size,
    }
    if dataset.action_adapters:
        facts["action_adapters"] = dataset.action_adapters
    if isinstance(config.model, ShortcutConfig):
        facts["network"] = NETWORK
    return facts


def build_model(config: ExperimentConfig, facts: dict[str, Any]) -> LatentModel:
    """A freshly initialised world model; `config.seed` decides its weights and leaves torch's own generator seeded by it."""
    statistics = DataStatistics.from_json(facts["statistics"])
    if facts["action_dim"] == 0:
        raise UserError("data.sources: no source has actions; a world model needs some")
    torch.manual_seed(config.seed)
    sizes = {name: facts[name] for name in ("token_dim", "tokens_per_frame", "action_dim")}
    sizes["action_adapters"] = facts.get("action_adapters")
    chosen = config.model
    if isinstance(chosen, ShortcutConfig):
        check_network(facts)
        kind = TeacherForcedModel if isinstance(chosen.forcing, TeacherForcingConfig) else ShortcutModel
        return kind(chosen, **sizes)
    model = WorldModel(
        chosen,
        **sizes,
        proprio_dim=facts["proprio_dim"],
        state_names=statistics.state_names,
        rollout_horizon=config.train.rollout_horizon,
    )
    model.add_terms({name: _build_term(model, name, term) for name, term in chosen.terms.items()})
    return model


def _build_term(model: WorldModel, name: str, config: CustomTerm) -> nn.Module:
    path = f"model.terms.{name}.target"
    # Random numbers of its own: with or without it the rest of the model starts from the same weights and trains on the same draws.
    with torch.random.fork_rng(devices=[]):
        term = call_target(config.target, path, config.config, model)
    if not isinstance(term, nn.Module):
        raise UserError(f"{path}: {config.target} must make an nn.Module, got {type(term).__name__}")
    if any(part is model for part in term.modules()):
        raise UserError(
            f"{path}: {config.target} keeps the model as a part of itself; take what is needed from it instead"
        )
    return term


def load(path: str | Path, device: str = "cpu") -> LoadedModel:
    """A run folder or a checkpoint folder -> the model that planning uses, with nothing drawn anew.

    Raises UserError when the checkpoint is missing or damaged, or when the encoder found here is not the one it was trained on.
    """
    checkpoint = load_checkpoint(find_checkpoint(Path(path)))
    facts = checkpoint.facts
    config = ExperimentConfig.model_validate_json(json.dumps(facts["config"]))
    encoder = build_encoder(config.encoder)
    # A checkpoint that was imported where its encoder was not at hand is tied to that encoder's name and sizes only.
    sizes = facts["tokens_per_frame"], facts["token_dim"]
    if facts["encoder_fingerprint"] is None and sizes != (encoder.grid[0] * encoder.grid[1], encoder.dim):
        raise UserError(
            f"{path}: trained on {sizes[0]} tokens of {sizes[1]}; encoder '{config.encoder.kind}' here gives others"
        )
    if facts["encoder_fingerprint"] not in (None, encoder.fingerprint):
        raise UserError(
            f"{path}: trained on encoder {facts['encoder_fingerprint']}, but encoder '{config.encoder.kind}' here is "
            f"{encoder.fingerprint}: other weights, or another version of torch or transformers"
        )
    model = build_model(config, facts)
    model.load_state_dict(checkpoint.weights)
    model.eval().requires_grad_(False)
    return LoadedModel(config, encoder, model.to(device), DataStatistics.from_json(facts["statistics"]), facts)


def plan(
    model: LoadedModel,
    start: np.ndarray,
    goal: np.ndarray,
    *,
    proprio: np.ndarray | None = None,
    goal_proprio: np.ndarray | None = None,
    planner: PlannerConfig | None = None,
    seed: int = 0,
) -> RawPlan:
    """Actions from one frame (H, W, 3) to another, in the world's own units; no simulator involved.

    Raises UserError where the model sees proprioception and is given none, for the start or for a goal where it counts.
    """
    settings = model.config.plan
    for name, given, counts in (
        ("proprio", proprio, model.sees_proprio),
        ("goal_proprio", goal_proprio, model.goal_needs_proprio(settings.objective.alpha)),
    ):
        if counts and given is None:
            raise UserError(f"{name}: must be given; raw: {', '.join(model.statistics.proprio_names)}")
    model = replace(model, precision=settings.precision)
    bounds = action_bounds(settings, model) if settings.bounds != "world" else None
    searcher = build_planner(planner or settings.planner, model, bounds=bounds)
    objective = build_objective(settings.objective, model.model)
    context = model.dynamics.encode(model.observe(start, proprio))
    target = model.dynamics.encode(model.observe(goal, goal_proprio))
    generator = torch.Generator().manual_seed(seed)
    found = searcher.plan(model.dynamics, objective, context, target, None, [generator])
    return RawPlan(model.env_actions(found.actions[0]), found)
