"""Fine-tuning: a finished run goes on with new episodes, at low rates, and says what it forgot.

python -m ray_jobs.finetune wm_home/runs/HASH data.sources.new.path=FOLDER [path=value ...]      (or: wm finetune ...)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.spec import Spec
from ray_jobs.runtime.storage import storage_root
from wm.config.errors import UserError
from wm.config.experiment import ExperimentConfig
from wm.config.resolve import Layer, resolve
from wm.config.yaml import parse_override
from wm.training.start import Start, open_start

RATE = 0.1  # times every learning rate of the run
EMA_DECAY = 0.99  # where the run kept no average: of about the last hundred steps
OLD, NEW = "old", "new"
_OF_THE_OLD_DATA = {"sources", "mixture", "primary", "held_out_last"}
_OF_ONE_FOLDER = ("path", "episodes", "tags", "filter", "revision")


def finetune_spec(run: str, arguments: Sequence[str], old_share: float = 0.0) -> tuple[Spec, dict[str, Any]]:
    """A spec of one run, in memory, and the overrides that go with it, as `run_experiment` takes them.

    Args:
        run: its folder, or its hash under storage.root.
        arguments: path=value; a source that the run does not have holds the new episodes.
        old_share: of every batch that the run's own data make up, in [0, 1); 0 trains on the new episodes alone.

    Raises:
        UserError: no such finished run, no new episodes, or a setting that is wrong.
    """
    overrides = dict(map(parse_override, arguments))
    seeds = overrides.pop("seeds", None)
    start = _open(run, overrides)
    changed = Layer.from_tree("command line", overrides).values
    tree = _tree(start, _new_sources(start, changed), old_share, plans="plan.episodes" in changed)
    config = resolve([Layer.from_tree("run", tree), Layer.from_tree("command line", overrides)])
    horizons = sorted(config.evaluate.horizons)
    spec = Spec(
        name=f"finetune_{start.run}",
        question=f"What does run {start.run} learn from new episodes, and what does it forget?",
        reference="finetuned",
        runs={"finetuned": {}},
        seeds=(start.config.seed,) if seeds is None else tuple(seeds),
        config=tree,
        metric=f"val/copy_ratio_h{horizons[(len(horizons) - 1) // 2]}",
        mode="min",
    )
    return spec, overrides


def _open(run: str, overrides: Mapping[str, Any]) -> Start:
    folder = Path(run).expanduser().absolute()
    if folder.is_dir():
        if folder.parent.name != "runs":
            raise UserError(f"{run}: expected the folder of a run, storage.root/runs/HASH, or its hash")
        return open_start(folder.parent.parent, folder.name)
    return open_start(storage_root(overrides.get("storage.root")), run)


def _new_sources(start: Start, changed: Mapping[str, Any]) -> list[str]:
    """Names of the sources that the command line adds."""
    known = start.config.data.sources
    named = sorted({path.split(".")[2] for path in changed if path.startswith("data.sources.")})
    for name in named:
        if name in known:
            raise UserError(
                f"data.sources.{name}: run {start.run} was trained on a source of this name; give the new episodes another"
            )
    if not named:
        raise UserError("wm finetune: no new episodes; name their folder, as in data.sources.new.path=FOLDER")
    return named


def _tree(start: Start, new: Sequence[str], old_share: float, *, plans: bool) -> dict[str, Any]:
    """The run's own config, gentler, on other data; what it says of the old data alone is left out."""
    trained = start.config
    tree = trained.model_dump(mode="json", exclude={"seed": True, "data": _OF_THE_OLD_DATA, "tracking": {"experiment"}})
    tree["storage"]["root"] = str(start.checkpoint.parents[3])
    train = tree["train"]
    train |= {"start": start.run, "resolution": [], "ema_decay": trained.train.ema_decay or EMA_DECAY}
    rates = {name: float(f"{RATE * rate:.6g}") for name, rate in train["optimizer"].items() if name.endswith("_lr")}
    train["optimizer"] |= rates
    if not plans:
        tree["evaluate"]["grid"]["goal_horizons"] = []
    sources = {name: source.model_dump(mode="json") for name, source in trained.data.sources.items()}
    tree["data"]["sources"] = {name: {} for name in new}
    if len(sources) == 1:  # new episodes come from the same recorder, unless the command line says otherwise
        (only,) = sources.values()
        like = {key: value for key, value in only.items() if key not in _OF_ONE_FOLDER}
        tree["data"]["sources"] = {name: like for name in new}
    if old_share:
        tree["data"]["sources"] |= sources
        tree["data"]["primary"] = _primary(trained, start)
        tree["data"]["mixture"] = {
            "groups": {OLD: list(sources), NEW: list(new)},
            "weights": {OLD: {"start": old_share}, NEW: {"start": round(1 - old_share, 12)}},
        }
    return tree


def _primary(trained: ExperimentConfig, start: Start) -> str | None:
    """The source whose actions the model plans, said aloud where new names could come before it."""
    if trained.data.primary is not None or not start.statistics.adapters:
        return trained.data.primary
    return min(name for name, source in trained.data.sources.items() if source.labels == "all")


def main() -> None:
    """python -m ray_jobs.finetune RUN [path=value ...]: as `wm finetune`."""
    import sys

    from ray_jobs.cli import main as cli

    sys.argv[1:1] = ["finetune"]
    cli()


if __name__ == "__main__":
    main()
