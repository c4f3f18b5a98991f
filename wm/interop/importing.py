"""A DINO-WM checkpoint, or a folder that `export_checkpoint` wrote, as a checkpoint of ours."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from wm.build import build_encoder, build_model
from wm.config.data import DinoWmSourceConfig
from wm.config.errors import UserError
from wm.config.experiment import ExperimentConfig
from wm.config.resolve import Layer, resolve
from wm.config.yaml import parse_override
from wm.contracts import Encoder
from wm.data.dataset import Dataset
from wm.data.normalization import DataStatistics
from wm.data.sources.pusht_noise import PushTNoiseSource
from wm.interop.exporting import EXPORT, read_export
from wm.interop.hydra_config import HydraRun, Translated, translate
from wm.interop.keys import to_ours
from wm.interop.reference_run import ReferenceCheckpoint, find_run, read_checkpoint
from wm.interop.reference_statistics import reference_statistics
from wm.training.checkpoint import Checkpoint, list_checkpoints, read_manifest, save_checkpoint

CHANGEABLE = ("encoder", "data", "plan", "evaluate", "resources", "storage", "tracking")
ATTENTION = "model.predictor.attention"  # the same function, computed in another way
LAYOUTS = {
    "wall": "wall_single",
    "point_maze": "point_maze",
    "pusht": "pusht_noise",
    "rope": "deformable",
    "granular": "deformable",
}


@dataclass(frozen=True)
class Imported:
    """Where the checkpoint lies now, and what a person should know about it, a line each."""

    path: Path
    notes: list[str]


@dataclass(frozen=True)
class _Sizes:
    token_dim: int
    tokens_per_frame: int
    action_dim: int
    proprio_dim: int
    head_dim: int


def import_checkpoint(source: Path, target: Path, data: Path | None = None, overrides: Sequence[str] = ()) -> Imported:
    """Write `target/checkpoints/step_*`, which loads, plans and is evaluated as one that was trained here.

    Its step counts epochs: the reference keeps no number of optimiser steps.

    Args:
        source: a DINO-WM run folder, one of its .pth files, or a folder of `export_checkpoint`.
        target: a new folder, or one that earlier epochs of the same run were imported to.
        data: the folder that the model was trained on, for its statistics and for planning problems.
        overrides: path=value of what the weights do not decide: encoder.*, plan.*, evaluate.*, data.*, ...

    Raises:
        UserError: one line for anything that cannot be read, is not stated, or has no counterpart here.
    """
    if (source / EXPORT).is_file():
        if data is not None or overrides:
            raise UserError(
                f"{source}: an export holds its own config and statistics; --data and overrides are for DINO-WM runs"
            )
        checkpoint = read_export(source)
        identity = str(checkpoint.facts.get("train_hash"))
        return Imported(_save(target, checkpoint, identity), [])
    hydra, file = find_run(source)
    run = HydraRun(hydra)
    translated = translate(run)
    theirs = read_checkpoint(file, run)
    notes: list[str] = []
    settings = _with_decoder(translated, theirs, notes)
    sizes = _sizes(run, theirs, settings)
    settings["model.predictor.head_dim"] = sizes.head_dim
    frameskip = run.count("frameskip")
    if sizes.action_dim % frameskip:
        raise UserError(
            f"{file}: its actions have {sizes.action_dim} numbers, no multiple of frameskip {frameskip} ({hydra})"
        )
    statistics = reference_statistics(run, data, sizes.action_dim // frameskip, sizes.proprio_dim)
    config = resolve([Layer(str(hydra), settings | _data(run, data)), _command_line(overrides)])
    encoder = _encoder(config, translated, sizes, any(text.startswith("encoder.") for text in overrides), notes)
    dataset = Dataset(config.data, Path("/"), None) if config.data.sources else None
    if dataset is not None:
        _check_sizes(dataset, statistics, data)
    identity = hashlib.sha256(hydra.read_bytes()).hexdigest()[:16]
    facts: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "statistics": statistics.to_json(),
        "data_fingerprint": None if dataset is None else dataset.fingerprint,
        "encoder_fingerprint": None if encoder is None else encoder.fingerprint,
        "token_dim": sizes.token_dim,
        "tokens_per_frame": sizes.tokens_per_frame,
        "action_dim": sizes.action_dim,
        "proprio_dim": sizes.proprio_dim,
        "frame_size": None if dataset is None else dataset.frame_size,
        "train_hash": f"imported-{theirs.sha256[:12]}",
        "imported": {
            "from": str(file.resolve()),
            "sha256": theirs.sha256,
            "run": identity,
            "epoch": theirs.epoch,
            "no_eval": _no_data(data, dataset),
            "no_plan": _no_data(data, dataset),
        },
    }
    weights = _weights(config, facts, theirs, file)
    path = _save(target, Checkpoint(theirs.epoch, weights, {"state": {}, "param_groups": []}, {}, facts), identity)
    for command in ("eval", "plan"):
        reason = facts["imported"][f"no_{command}"]
        if reason:
            notes.append(f"`wm {command}` will refuse it: {reason}")
    return Imported(path, notes)


def _sizes(run: HydraRun, theirs: ReferenceCheckpoint, settings: dict[str, Any]) -> _Sizes:
    """What hydra.yaml leaves to the data and the encoder, read off the weights."""
    predictor = theirs.states["predictor"]
    try:
        _, positions, width = predictor["pos_embedding"].shape
        rows = predictor["transformer.layers.0.0.to_qkv.weight"].shape[0]
        inputs = {part: theirs.states[f"{part}_encoder"]["patch_embed.weight"].shape for part in ("action", "proprio")}
        (_, action_dim, action_kernel), (_, proprio_dim, proprio_kernel) = inputs["action"], inputs["proprio"]
    except (KeyError, ValueError) as error:
        raise UserError(f"{theirs.file}: not the weights of a DINO-WM ({error})") from error
    history, heads = run.count("num_hist"), theirs.heads
    if positions % history or rows % (3 * heads):
        raise UserError(
            f"{theirs.file}: {positions} positions for num_hist {history}, {rows} rows for {heads} heads: {run.file} differs"
        )
    if (action_kernel, proprio_kernel) != (1, 1):
        raise UserError(
            f"{theirs.file}: embeddings over several frames (tubelet_size above 1) have no counterpart here"
        )
    tokens = positions // history
    if settings["model.concat"] == "token":
        tokens -= 2
    else:
        width -= sum(settings[f"model.{part}.dim"] * settings[f"model.{part}.repeat"] for part in ("action", "proprio"))
    if width < 1 or tokens < 1:
        raise UserError(f"{theirs.file}: too small for the embeddings and concat_dim that {run.file} states")
    return _Sizes(width, tokens, action_dim, proprio_dim, rows // (3 * heads))


def _with_decoder(translated: Translated, theirs: ReferenceCheckpoint, notes: list[str]) -> dict[str, Any]:
    """Settings with a decoder where the file holds one and hydra.yaml says which. `theirs` loses what has no place."""
    settings = dict(translated.settings)
    is_named, is_there = "model.decoder.kind" in settings, "decoder" in theirs.states
    if is_named and is_there:
        if not settings.get("model.decoder.quantize", True):  # the reference keeps a codebook that it does not use
            state = theirs.states["decoder"]
            theirs.states["decoder"] = {k: v for k, v in state.items() if not k.startswith("quantize_b.")}
        return settings
    if is_named:
        notes.append("its decoder is not in the checkpoint (it was trained apart): imported without one")
    if is_there:
        notes.append("hydra.yaml says has_decoder: false: the decoder in the checkpoint is left out")
        del theirs.states["decoder"]
    return {path: value for path, value in settings.items() if not path.startswith("model.decoder.")}


def _data(run: HydraRun, data: Path | None) -> dict[str, Any]:
    """The folder as a source, where the world's layout is known, split as the reference splits it."""
    if data is None or run.world not in LAYOUTS:
        return {}
    source: dict[str, Any] = {"kind": "dino_wm", "path": str(data.resolve()), "layout": LAYOUTS[run.world]}
    if run.has("env.dataset.n_rollout"):
        source["episodes"] = run.count("env.dataset.n_rollout")
    if run.world == "pusht":
        source["with_velocity"] = run.get("env.dataset.with_velocity", bool)
    by_folder = run.has("env.dataset.split_mode") and run.get("env.dataset.split_mode", str) == "folder"
    num_val = _num_val(source, data) if run.world == "pusht" else 0
    if by_folder and not num_val:
        raise UserError(f"{data}: the model was trained on its train/ and judged on its val/, and these are not in it")
    ratio = run.get("env.dataset.split_ratio", float)
    return {
        **{f"data.sources.{run.world}.{key}": value for key, value in source.items()},
        **({"data.held_out_last": num_val} if num_val else {"data.val_fraction": round(1 - ratio, 10)}),
    }


def _num_val(source: dict[str, Any], data: Path) -> int:
    """Episodes that the reference holds out by their folder; none where there is only one."""
    return PushTNoiseSource(DinoWmSourceConfig.model_validate(source), "pusht", data).num_val or 0


def _check_sizes(dataset: Dataset, statistics: DataStatistics, data: Path | None) -> None:
    """Raises UserError when the data has other vectors than the model was trained on."""
    source = next(iter(dataset.sources.values()))
    for key, trained in (("action", statistics.action), ("proprio", statistics.proprio)):
        size = len(getattr(source, f"{key}_names"))
        if trained is not None and size != trained.size:
            raise UserError(f"{data}: {key}s of {size} numbers, but the checkpoint's weights take {trained.size}")


def _no_data(data: Path | None, dataset: Dataset | None) -> str | None:
    """Why held-out episodes cannot be read for this checkpoint, or None."""
    if dataset is None and data is None:
        return "it was imported without its data; import it again with --data FOLDER"
    return f"the layout of {data} cannot be read here" if dataset is None else None


def _command_line(overrides: Sequence[str]) -> Layer:
    values: dict[str, Any] = {}
    for path, value in map(parse_override, overrides):
        if path.split(".", 1)[0] not in CHANGEABLE and path != ATTENTION:
            allowed = ", ".join([*(f"{name}.*" for name in CHANGEABLE), ATTENTION])
            raise UserError(f"{path}: the checkpoint decides this; an import takes {allowed}")
        values[path] = value
    return Layer.from_tree("command line", values)


def _encoder(
    config: ExperimentConfig, translated: Translated, sizes: _Sizes, is_asked_for: bool, notes: list[str]
) -> Encoder | None:
    """The encoder, if it is at hand. Raises UserError when it is not the one that the weights need."""
    try:
        encoder = build_encoder(config.encoder)
    except UserError as error:
        if is_asked_for:
            raise
        notes.append(
            f"the encoder is not at hand, so that the checkpoint is tied to its name and sizes only ({config.encoder.kind}); "
            f"`wm.load` will look for it; to tie it to its weights import again with encoder.weights=FOLDER [{error}]"
        )
        _check_encoder("the encoder in hydra.yaml", translated.token_dim, translated.tokens_per_frame, sizes)
        return None
    _check_encoder(f"encoder '{config.encoder.kind}'", encoder.dim, encoder.grid[0] * encoder.grid[1], sizes)
    theirs = translated.settings["encoder.kind"]
    if config.encoder.kind != theirs:
        notes.append(
            f"encoder '{config.encoder.kind}' stands in for the {theirs} that the model was trained on: its plans mean little"
        )
    return encoder


def _check_encoder(who: str, dim: int, tokens: int, sizes: _Sizes) -> None:
    if (dim, tokens) != (sizes.token_dim, sizes.tokens_per_frame):
        raise UserError(
            f"{who} gives {tokens} tokens of {dim}, but the weights take {sizes.tokens_per_frame} tokens of {sizes.token_dim}"
        )


def _weights(
    config: ExperimentConfig, facts: dict[str, Any], theirs: ReferenceCheckpoint, file: Path
) -> dict[str, Tensor]:
    """All tensors of our model: theirs, and nothing for rows without labels (null embeddings are zero). One too many is an error."""
    with torch.random.fork_rng(devices=[]):
        expected = build_model(config, facts).state_dict()
    found = {name: value for part, state in theirs.states.items() for name, value in to_ours(part, state).items()}
    ours_alone = {name: value for name, value in expected.items() if name.endswith("_embedding.null")}
    found |= ours_alone
    for name in sorted(expected.keys() | found.keys()):
        shapes = [tuple(side[name].shape) if name in side else None for side in (found, expected)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"{file}: {name}: the file has {shapes[0] or 'none'}, the model of hydra.yaml {shapes[1] or 'none'}"
            )
    return {name: found[name].to(expected[name].dtype) for name in expected}


def _save(target: Path, checkpoint: Checkpoint, identity: str) -> Path:
    """Into a new folder, or beside other epochs of the same run."""
    if target.is_file():
        raise UserError(f"{target}: a file is there; expected a new folder")
    folder = target / "checkpoints"
    there = list_checkpoints(folder) if folder.is_dir() else []
    if not there and target.is_dir() and any(target.iterdir()):
        raise UserError(f"{target}: not empty; import into a new folder")
    for path in there:
        facts = cast(dict[str, Any], read_manifest(path)["facts"])
        if identity not in (facts.get("imported", {}).get("run"), facts.get("train_hash")):
            raise UserError(f"{path}: a checkpoint of another run; import into a new folder")
    return save_checkpoint(folder, checkpoint, keep=sys.maxsize)
