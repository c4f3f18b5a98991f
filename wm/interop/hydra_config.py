"""DINO-WM's hydra.yaml as our settings: one table, read once. A fact that it does not state is asked for, never guessed.

Source: gaoyuezhou/dino_wm, conf/*.yaml and train.py (which writes hydra.yaml with every value resolved).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from wm.config.errors import UserError, nearest
from wm.config.yaml import read_yaml

PIXELS_PER_PATCH = 16  # the reference resizes img_size to (img_size / 16) patches of the encoder's own size
PATCH_SIZE = 14  # of every DINOv2
ENCODERS = {  # torch.hub name -> (hub id, token dim)
    f"dinov2_vit{size}14{registers}": (f"facebook/dinov2{words}-{name}", dim)
    for size, name, dim in (("s", "small", 384), ("b", "base", 768), ("l", "large", 1024), ("g", "giant", 1536))
    for registers, words in (("", ""), ("_reg", "-with-registers"))
}
DECODERS = {  # their class -> our kind, and their settings by our names
    "models.vqvae.VQVAE": (
        "vqvae",
        {
            "channel": "channel",
            "n_res_block": "num_blocks",
            "n_res_channel": "block_channels",
            "n_embed": "num_codes",
            "quantize": "quantize",
        },
    ),
    "models.decoder.transposed_conv.TransposedConvDecoder": (
        "transposed_conv",
        {"depth": "depth", "kernel_size": "kernel_size", "stride": "stride"},
    ),
}

_Value = TypeVar("_Value")


class HydraRun:
    """A run folder's hydra.yaml. Every reading names the key that is missing or wrong."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._tree = read_yaml(file)

    def get(self, path: str, kind: type[_Value]) -> _Value:
        """The value at a dotted path. Raises UserError when it is not stated or of another type."""
        node: Any = self._tree
        for step in path.split("."):
            if not isinstance(node, Mapping) or step not in node:
                raise UserError(
                    f"{self.file}: it does not state '{path}'; write it there as it was when the model was trained"
                )
            node = cast(Mapping[str, Any], node)[step]
        if kind is float and isinstance(node, int) and not isinstance(node, bool):
            node = float(node)
        if not isinstance(node, kind) or (kind is int and isinstance(node, bool)):
            raise UserError(f"{self.file}: {path}: expected {_WORDS[kind]}, found {node!r}")
        return node

    def has(self, path: str) -> bool:
        """Whether a value other than null is stated there."""
        node: Any = self._tree
        for step in path.split("."):
            node = cast(Mapping[str, Any], node).get(step) if isinstance(node, Mapping) else None
        return node is not None

    def count(self, path: str, least: int = 1) -> int:
        """A whole number of at least `least`."""
        value = self.get(path, int)
        if value < least:
            raise UserError(f"{self.file}: {path}: expected at least {least}, found {value}")
        return value

    def refuse(self, path: str, reason: str) -> UserError:
        """The error for a setting that has no counterpart here."""
        return UserError(f"{self.file}: {path}: {reason}")

    @property
    def world(self) -> str:
        """Our name of the env: wall, pusht, point_maze, rope or granular."""
        name = self.get("env.name", str)
        return self.get("env.dataset.object_name", str) if name == "deformable_env" else name

    @property
    def normalizes(self) -> bool:
        """Whether actions, proprio and state were normalised."""
        dataset = "env.dataset.normalize_action"
        return self.get(dataset if self.has(dataset) else "normalize_action", bool)


_WORDS: dict[type, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false", list: "a list"}


@dataclass(frozen=True)
class Translated:
    """What hydra.yaml says, in our words.

    Args:
        settings: config paths and values.
        token_dim: D of the encoder it names, and tokens_per_frame: P.
    """

    settings: dict[str, Any]
    token_dim: int
    tokens_per_frame: int


def translate(run: HydraRun) -> Translated:
    """Our settings for a run. Raises UserError for one that this model cannot represent."""
    for path, wanted in (("num_pred", 1), ("has_predictor", True), ("model.train_encoder", False)):
        found = run.get(path, type(wanted))
        if found != wanted:
            raise run.refuse(path, f"{found}: only models with {path}={wanted} have a counterpart here")
    for part in ("action_encoder", "proprio_encoder"):
        target = run.get(f"{part}._target_", str)
        if target != "models.proprio.ProprioceptiveEmbedding":
            raise run.refuse(f"{part}._target_", f"{target} has no counterpart here (a learned embedding has)")
    encoder, token_dim, tokens = _encoder(run)
    settings = {**_model(run), **encoder, **_decoder(run), **_training(run), "plan.world.kind": run.world}
    return Translated(settings, token_dim, tokens)


def _model(run: HydraRun) -> dict[str, Any]:
    concat_dim = run.count("concat_dim", least=0)
    if concat_dim > 1:
        raise run.refuse("concat_dim", f"expected 0 (tokens) or 1 (channels), found {concat_dim}")
    token = concat_dim == 0
    return {
        "model.variant": "baseline",
        "model.history_len": run.count("num_hist"),
        "model.concat": "token" if token else "channel",
        "model.action.dim": run.count("action_emb_dim"),
        "model.proprio.dim": run.count("proprio_emb_dim"),
        # The reference repeats channels only; with tokens of their own its numbers of repeats have no effect.
        "model.action.repeat": 1 if token else run.count("num_action_repeat"),
        "model.proprio.repeat": 1 if token else run.count("num_proprio_repeat"),
        "model.predictor.depth": run.count("predictor.depth"),
        "model.predictor.heads": run.count("predictor.heads"),
        "model.predictor.mlp_dim": run.count("predictor.mlp_dim"),
        "model.predictor.dropout": run.get("predictor.dropout", float),
    }


def _encoder(run: HydraRun) -> tuple[dict[str, Any], int, int]:
    target, name = run.get("encoder._target_", str), run.get("encoder.name", str)
    if target != "models.dino.DinoV2Encoder" or name not in ENCODERS:
        raise run.refuse("encoder.name", f"{target} '{name}' has no counterpart here.{nearest(name, ENCODERS)}")
    feature = run.get("encoder.feature_key", str)
    tokens = {"x_norm_patchtokens": "patch", "x_norm_clstoken": "cls"}.get(feature)
    if tokens is None:
        raise run.refuse("encoder.feature_key", f"expected x_norm_patchtokens or x_norm_clstoken, found '{feature}'")
    weights, dim = ENCODERS[name]
    side = run.count("img_size", PIXELS_PER_PATCH)
    settings = {
        "encoder.kind": "dinov2",
        "encoder.weights": weights,
        "encoder.image_size": side,
        "encoder.encode_size": side // PIXELS_PER_PATCH * PATCH_SIZE,
    }
    if tokens == "cls":
        settings["encoder.tokens"] = "cls"
    return settings, dim, 1 if tokens == "cls" else (side // PIXELS_PER_PATCH) ** 2


def _decoder(run: HydraRun) -> dict[str, Any]:
    if not run.get("has_decoder", bool):
        return {}
    target = run.get("decoder._target_", str)
    if target not in DECODERS:
        raise run.refuse("decoder._target_", f"{target} has no counterpart here.{nearest(target, DECODERS)}")
    kind, fields = DECODERS[target]
    settings: dict[str, Any] = {"model.decoder.kind": kind}
    for theirs, ours in fields.items():
        expected = bool if theirs == "quantize" else int
        settings[f"model.decoder.{ours}"] = run.get(f"decoder.{theirs}", expected)
    if kind == "transposed_conv":
        shape = cast(list[Any], run.get("decoder.observation_shape", list))
        if len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2]:
            raise run.refuse("decoder.observation_shape", f"expected [3, side, side], found {shape}")
        settings["model.decoder.image_size"] = shape[1]
    return {**settings, "train.optimizer.decoder_lr": run.get("training.decoder_lr", float)}


def _training(run: HydraRun) -> dict[str, Any]:
    return {
        "data.clip.frameskip": run.count("frameskip"),
        "train.epochs": run.count("training.epochs"),
        "train.batch_size": run.count("training.batch_size"),
        "train.optimizer.predictor_lr": run.get("training.predictor_lr", float),
        "train.optimizer.embedding_lr": run.get("training.action_encoder_lr", float),
        "seed": run.count("training.seed", least=0),
    }
