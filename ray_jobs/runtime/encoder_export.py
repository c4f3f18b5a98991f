"""What a training of an encoder ends with: the encoder's folder, with its card in it."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import yaml

from experiments.encoder_card import CARD, LOSS, CardFacts, SourceRow, draw_losses, write_card
from experiments.encoder_report import EncoderReport, encoder_report
from experiments.figures import to_png
from experiments.pretrain_spec import WorldRecipe
from ray_jobs.runtime.judging import ProbeJudge, build_judge
from ray_jobs.runtime.pretraining import Pretraining
from ray_jobs.runtime.progress import Stage
from wm.config.encoder import TinyEncoderConfig
from wm.config.pretrain import PretrainConfig
from wm.data.atomic import atomic_file
from wm.data.writers.writer import RECIPE
from wm.encoders.trained import ABOUT, WEIGHTS
from wm.encoders.vit import tiny_encoder
from wm.evaluation.control_features import control_tokens
from wm.evaluation.encoder_probes import tokens_of
from wm.pretraining.export import export_encoder
from wm.pretraining_run import build_distillation, teacher_weights
from wm.training.checkpoint import find_checkpoint, load_checkpoint

PROBES, PATCHES = "probes.png", "patches.png"


def export(training: Pretraining, command: str, stage: Stage) -> Path:
    """Write the encoder of a complete training, its card and its figures; the folder. What is there already stays.

    Args:
        command: what a person typed.
    """
    out, config = training.exported, training.config
    wants_best = config.train.best_metric is not None and config.train.exported == "best"
    exported = "best" if wants_best else "last"
    if (out / CARD).is_file() and _exported(out, config) == exported:  # the card is written last
        return out
    checkpoint = load_checkpoint(find_checkpoint(training.inputs.folder.path, "best" if wants_best else "latest"))
    network: Any = build_distillation(config).teacher.network
    network.load_state_dict(teacher_weights(checkpoint.weights))
    row = next((row for row in checkpoint.history if row["step"] == checkpoint.step), {"metrics": {}})
    export_encoder(
        out,
        network,
        {
            "name": training.spec.name,
            "purpose": training.spec.purpose,
            "licence": training.spec.licence,
            "image_size": config.encoder.image_size,
            "hash": training.inputs.hash,
            "step": checkpoint.step,
            "exported": exported,
            "commit": training.provenance["commit"],
            "data_fingerprint": training.inputs.dataset.fingerprint,
            "sources": {name: _world(training, name) for name in training.inputs.dataset.sources},
            "probes": {key: value for key, value in row["metrics"].items() if key.startswith("val/")},
            "wm": _version(),
        },
    )
    stage.update(1, 3, note="weights")
    judge = build_judge(config, training.inputs.dataset)
    report = None if judge is None else _report(training, judge)
    stage.update(2, 3, note="probes")
    result = training.result
    assert result is not None  # the training is complete
    files = {LOSS: to_png(draw_losses(result["history"], checkpoint.step, config.train.best_metric))}
    pictures: dict[str, str] = {}
    if report is not None:
        files |= {PROBES: report.table, PATCHES: report.patches}
        pictures = {PROBES: "The probes beside their controls", PATCHES: "Principal components of patches"}
    facts = CardFacts(
        name=training.spec.name,
        purpose=training.spec.purpose,
        licence=training.spec.licence,
        limits=training.spec.limits,
        hash=training.inputs.hash,
        parameters=sum(each.numel() for each in network.parameters()),
        weight_bytes=(out / WEIGHTS).stat().st_size,
        image_size=network.config.image_size,
        patch_size=network.config.patch_size,
        dim=network.config.hidden_size,
        depth=network.config.num_hidden_layers,
        heads=network.config.num_attention_heads,
        step=checkpoint.step,
        total_steps=training.total_steps,
        batch_frames=config.train.batch_size * config.clip_frames,
        seconds=result["time_s"],
        history=result["history"],
        best_metric=config.train.best_metric if wants_best else None,
        sources=_sources(training),
        command=command,
        config=_yaml(config),
        provenance=training.provenance,
        probes=None if report is None else report.markdown,
        pictures=pictures,
    )
    files[CARD] = write_card(facts).encode()
    for name, content in files.items():  # the card is the last
        with atomic_file(out / name) as partial:
            partial.write_bytes(content)
    stage.update(3, 3, note="card")
    return out


def _exported(out: Path, config: PretrainConfig) -> str:
    """Which weights an export is of. Older ones do not say: there was no choice then."""
    about: dict[str, Any] = json.loads((out / ABOUT).read_text(encoding="utf-8"))
    return about.get("exported", "best" if config.train.best_metric else "last")


def _report(training: Pretraining, judge: ProbeJudge) -> EncoderReport:
    """The encoder as it was written, beside its controls."""
    encoder = tiny_encoder(TinyEncoderConfig(pretrained=str(training.exported)))
    config = training.config
    untrained = tiny_encoder(config.encoder.model_copy(update={"seed": config.seed}))  # what training began with
    return encoder_report(
        judge.frames, {"trained": tokens_of(encoder), **control_tokens(untrained, config.encoder.shape.image_size)}
    )


def _sources(training: Pretraining) -> list[SourceRow]:
    dataset = training.inputs.dataset
    return [
        SourceRow(
            name=name,
            made_by="" if name not in training.spec.make else _words(training.spec.make[name]),
            episodes=len(dataset.split[name][0]),
            held_out=len(dataset.split[name][1]),
            frames=sum(source.lengths),
            fingerprint=source.fingerprint,
        )
        for name, source in dataset.sources.items()
    ]


def _words(recipe: WorldRecipe) -> str:
    """As `wm data make` takes it."""
    flags = recipe.model_dump(exclude={"world", "settings"}, exclude_defaults=True)
    return (
        " ".join([f"`{recipe.world}", *recipe.settings, *(f"--{flag} {value}" for flag, value in flags.items())]) + "`"
    )


def _world(training: Pretraining, name: str) -> str:
    """The world that a source is of; empty where nobody knows."""
    if name in training.spec.make:
        return training.spec.make[name].world
    file = training.inputs.dataset.folder_of(name) / RECIPE
    found: Any = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return str(found.get("world", "")) if isinstance(found, dict) else ""


def _yaml(config: PretrainConfig) -> str:
    """What decides the numbers, in lines."""
    tree = config.model_dump(mode="json", exclude={"storage", "tracking", "resources"})
    tree["resources"] = {"num_workers": config.resources.num_workers}
    tree["data"]["sources"] = {  # a line each: there may be dozens
        name: {"kind": source.kind, **source.model_dump(mode="json", exclude_defaults=True)}
        for name, source in config.data.sources.items()
    }
    return yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, width=130)


def _version() -> str:
    try:
        return importlib.metadata.version("wm")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"


def describe(out: Path) -> str:
    """One line for people."""
    about = json.loads((out / ABOUT).read_text(encoding="utf-8"))
    return f"{out}: the encoder of step {about['step']}; use it by encoder.kind=tiny encoder.pretrained={out}"
