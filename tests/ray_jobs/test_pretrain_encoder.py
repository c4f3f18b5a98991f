"""What cannot work is said in one line, before a world is drawn or a cluster started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

import ray_jobs.cli as cli
from experiments.pretrain_spec import load_pretrain_spec
from ray_jobs.make_data import is_made
from ray_jobs.pretrain_encoder import debug_pass, missing_data, open_training, typed
from ray_jobs.runtime.encoder_export import export
from ray_jobs.runtime.progress import Narrator
from tests.integration.conftest import REPOSITORY
from tests.wm.data.samples import user_error
from wm.build import build_encoder
from wm.config.encoder import TinyEncoderConfig
from wm.config.errors import UserError
from wm.training.reporter import NullReporter

SPEC = REPOSITORY / "tests" / "ray_jobs" / "small_encoder.yaml"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ray_jobs.make_data import make_wall

    root = tmp_path_factory.mktemp("encoder")
    make_wall(root / "data" / "wall", episodes=10, steps=24, frame_size=28, layout="random")
    return root


def opened(home: Path, *overrides: str):
    spec, top = load_pretrain_spec(SPEC, overrides)
    return open_training(spec, spec.resolve(top), home)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.epoch=3", ("train.epoch", "train.epochs")),
        ("train.batch_size=4000", ("train.batch_size", "4000")),
        ("resources.num_workers=8", ("train.batch_size (4)", "multiple", "resources.num_workers (8)")),
        ("resources.cpus_per_worker=4000", ("CPUs", "resources.cpus_per_worker")),
        ("make.wall.world=wal", ("make.wall", "unknown world 'wal'", "wall")),
        ("make.wall.policy=wandr", ("make.wall", "unknown policy 'wandr'", "wander")),
        ("make.wall.shift=lite", ("make.wall", "lite", "light")),
        ("make.wall.settings=[world.sise=3]", ("make.wall", "sise")),
        ("make.wall.episodes=11", ("make.wall", "already holds another data set (episodes differ)")),
        ("data.sources.more.path=nowhere", ("nowhere", "no such data folder")),
        ("data.clip.frameskip=20", ("0 training clips (3 frames, frameskip 20)",)),
        ("train.best_metric=val/probe/state_r3", ("val/probe/state_r3", "val/probe/state_r2", "null")),
        ("encoder.image_size=30", ("image_size (30) must be a multiple",)),
    ],
)
def test_a_mistake_is_one_line(
    home: Path, override: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WM_HOME", str(home))
    result = CliRunner().invoke(cli.app, ["pretrain-encoder", str(SPEC), override])
    assert isinstance(result.exception, UserError), result.output
    message = str(result.exception)
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message
    assert "Start Ray" not in result.output
    assert not list(home.glob("encoders/*/checkpoints/*"))


def test_only_what_is_missing_is_made(home: Path, tmp_path: Path) -> None:
    spec, top = load_pretrain_spec(SPEC)
    config = spec.resolve(top)
    assert missing_data(spec, config, home) == {}
    (recipe, out) = missing_data(spec, config, tmp_path)["wall"]
    assert out == tmp_path / "data" / "wall"
    assert (recipe.episodes, recipe.steps) == (10, 24)
    arguments = {"episodes": 10, "steps": 24, "frame_size": 28, "layout": "random"}
    made = home / "data" / "wall"
    assert is_made("wall", made, **arguments)
    assert not is_made("wall", made, **{**arguments, "episodes": 11})
    assert not is_made("wall", made, **{**arguments, "layout": "fixed"})
    assert not is_made("wall", made, **arguments, seed=1)
    assert not is_made("wall", made, **arguments, policy="random")


def test_sources_that_must_be_there_are_asked_for_before_any_is_made(tmp_path: Path) -> None:
    spec, top = load_pretrain_spec(SPEC, ["data.sources.more.path=nowhere"])
    assert "nowhere: no such data folder" in user_error(lambda: missing_data(spec, spec.resolve(top), tmp_path))
    assert not (tmp_path / "data").exists()


def test_the_debug_pass_says_what_is_left_out(home: Path) -> None:
    assert debug_pass(opened(home)) == []
    hidden = opened(home, "data.sources.wall.labels=none", "train.best_metric=val/probe/time_neighbour")
    assert "wall: no states: the time probe alone" in debug_pass(hidden)
    message = user_error(lambda: debug_pass(opened(home, "data.sources.wall.labels=none")))
    assert message.startswith("train.best_metric: these data have no 'val/probe/state_r2'.")
    assert not list(home.glob("encoders/*/checkpoints/*"))


def test_what_was_typed_leaves_out_where_it_lies() -> None:
    given = ["train.epochs=3", "storage.root=/elsewhere", "tracking.uri=http://me:secret@there", "seed=1"]
    assert typed("tiny", given) == "wm pretrain-encoder tiny train.epochs=3 seed=1"


def test_the_chosen_weights_are_exported_with_a_card(home: Path, tmp_path: Path) -> None:
    """A training in this process, its export, and the encoder read back; then the export of its last weights."""
    training = opened(home, f"storage.root={tmp_path}", "data.sources.wall.path=" + str(home / "data" / "wall"))
    inputs = training.inputs
    inputs.root, inputs.folder = tmp_path, type(inputs.folder)(tmp_path / "encoders" / inputs.hash)
    scores = iter([0.9, 0.1])
    running = inputs.training(
        NullReporter(), inputs.local_batches, judge=lambda encoder: {"probe/state_r2": next(scores)}, commit="c0ffee"
    )
    history = running.run()
    inputs.folder.finish({"hash": inputs.hash, "history": history, "time_s": 1.5, "setup_s": 0.0})
    stage = Narrator(Console(quiet=True))
    with stage.step("export") as parts:
        out = export(training, "wm pretrain-encoder small", parts)
    files = {file.name for file in out.iterdir()}
    assert files == {
        *("config.json", "encoder.json", "model.safetensors", "MODEL_CARD.md", "loss.png", "probes.png", "patches.png")
    }
    encoder = build_encoder(TinyEncoderConfig(pretrained=str(out)))
    assert (encoder.dim, encoder.grid) == (32, (2, 2))
    card = (out / "MODEL_CARD.md").read_text()
    for words in (
        "step 4, the best by `val/probe/state_r2`",
        "8 of 8 steps",
        "`wall --episodes 10 --steps 24 --layout random --size 28`",
        "It is much too small.",
    ):
        assert words in card
    best = training.inputs.folder.checkpoints / "step_00000004"
    from safetensors.torch import load_file

    from wm.pretraining_run import teacher_weights

    kept = teacher_weights(load_file(best / "model.safetensors"))
    loaded: Any = encoder
    for name, value in loaded.network.state_dict().items():  # on disk transformers has names of its own
        assert (value == kept[name].half().float()).all(), name
    before = (out / "MODEL_CARD.md").stat().st_mtime_ns
    with stage.step("again") as parts:
        assert export(training, "something else", parts) == out
    assert (out / "MODEL_CARD.md").stat().st_mtime_ns == before

    changed = training.config.model_copy(
        update={"train": training.config.train.model_copy(update={"exported": "last"})}
    )
    inputs.config = changed
    with stage.step("last") as parts:
        assert export(training, "wm pretrain-encoder small train.exported=last", parts) == out
    assert "step 8, the last; " in (out / "MODEL_CARD.md").read_text()
    about = json.loads((out / "encoder.json").read_text())
    assert (about["step"], about["exported"]) == (8, "last")
    last = teacher_weights(load_file(training.inputs.folder.checkpoints / "step_00000008" / "model.safetensors"))
    again: Any = build_encoder(TinyEncoderConfig(pretrained=str(out)))
    assert all((value == last[name].half().float()).all() for name, value in again.network.state_dict().items())
