"""`wm eval`: the table, its file and pictures; mistakes are one line before any work."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import ray_jobs.eval as evaluation
from ray_jobs.eval import evaluate_checkpoint
from ray_jobs.eval_table import render_quality
from ray_jobs.runtime.progress import Narrator
from tests.wm.data import samples
from tests.wm.data.samples import inputs, train, trained, user_error, wall_folder
from tests.wm.shortcut import small_runs
from wm.config.resolve import Layer, resolve
from wm.evaluation import metric_names
from wm.evaluation.metric_names import METRICS
from wm.training.checkpoint import find_checkpoint
from wm.training_run import RunInputs

REPOSITORY = Path(__file__).parents[2]
SMALL = ["evaluate.clips=6", "evaluate.probe_clips=12"]


def run_eval(path: Path, root: Path, *overrides: str, out: Path | None = None) -> tuple[dict[str, Any], str]:
    """What it returns and what it says."""
    console = Console(width=120, record=True, file=io.StringIO())
    given = [f"storage.root={root}", *SMALL, *overrides]
    return evaluate_checkpoint(path, given, out, Narrator(console)), console.export_text()


def templates() -> set[str]:
    """Names without horizons, entries and places."""
    return {metric.name.split("_h{h}")[0].split("/")[0].split("_{where}")[0] for metric in METRICS}


def test_the_table_of_a_model_without_a_decoder(tmp_path: Path) -> None:
    """Horizons are those that fit; where nothing is said, 20 and 10 are left out with the longest possible."""
    run = trained("align")
    found, said = run_eval(run.folder.path, tmp_path, out=tmp_path / "out")
    # 40 env steps at frameskip 5 are 8 frames, 2 of them context
    assert found["horizons"] == [1, 5]
    assert "horizons 10, 20 left out: the longest possible is 6" in said
    assert found["clips"] == {"labelled": 6}
    assert "unlabelled" not in found
    assert found["images"] == {}
    saved = json.loads((tmp_path / "out" / "eval.json").read_text())
    assert saved["labelled"] == pytest.approx(found["labelled"])
    assert {"state_probe_r2/x", "aligned_probe_r2/y", "state_probe_rollout_r2_h5/x"} <= found["state"].keys()
    for part in ("labelled", "latent", "state"):
        for name in found[part]:
            assert name.split("_h")[0].split("/")[0] in templates(), name
    pictures = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert pictures == [*(f"patch_pca_{n}.png" for n in range(3)), *(f"rollout_strip_{n}.png" for n in range(3))]
    for words in ("copy_ratio", "action_sensitivity", "no decoder", "No unlabelled held-out clips", "eval.json"):
        assert words in said


def test_decoded_pictures_and_unlabelled_clips(tmp_path: Path) -> None:
    """Two sources, one without labels; tokens that are not in the store yet are encoded first."""
    sources = {
        "data__sources__video": {"kind": "dino_wm", "path": str(wall_folder()), "labels": "none"},
        "model__decoder": {"kind": "vqvae", "channel": 8, "num_blocks": 1, "block_channels": 4},
    }
    run = inputs(tmp_path, data__tokens="store", **sources)
    for store in run.dataset.stores.values():
        list(store.write(samples.encoder(), store.missing()))
    train(run)
    shutil.rmtree(tmp_path / "tokens")
    found, said = run_eval(run.folder.path, tmp_path, "evaluate.horizons=[1,3]")
    assert found["clips"] == {"labelled": 6, "unlabelled": 6}
    assert found["unlabelled"]["null_action_err_h3"] == found["unlabelled"]["z_visual_err_rollout_h3"]
    assert "action_sensitivity_h1" in found["labelled"]
    assert "action_sensitivity_h1" not in found["unlabelled"]
    for where in ("reconstructed", "pred_h1", "pred_h3"):
        assert np.isfinite(
            [found["images"][f"img_{name}_{where}"] for name in ("mse", "psnr", "ssim", "psnr_unit")]
        ).all()
    assert "LPIPS not available: give a backbone file" in said
    folder = run.folder.path / "evaluation" / "step_00000006"
    assert (folder / "eval.json").is_file()
    assert len(list(folder.glob("rollout_strip_*labelled_*.png"))) == 6


def test_futures_of_a_model_that_samples_them(tmp_path: Path) -> None:
    run = small_runs.inputs(tmp_path, "shortcut")  # of two kinds of clips
    train(run)
    found, _ = run_eval(run.folder.path, tmp_path, "evaluate.horizons=[1,2]", out=tmp_path / "out")
    names = {f"{name}_h{h}" for name in ("copy_ratio_mean", "spread_ratio", "spread_skill") for h in (1, 2)}
    for kind in ("labelled", "unlabelled"):
        assert names < set(found[kind])
        assert {name.split("_h")[0] for name in found[kind]} <= templates()
    films = sorted(path.name for path in (tmp_path / "out").glob("futures_*"))
    assert len(films) == 2 * 2 * 3
    assert films[:2] == ["futures_labelled_0.mp4", "futures_labelled_0.png"]


def test_the_longest_possible_horizon(tmp_path: Path) -> None:
    run = trained("align")
    message = user_error(lambda: run_eval(run.folder.path, tmp_path, "evaluate.horizons=[1,7]"))
    assert "7 is too long; the longest possible is 6" in message
    assert "40 env steps" in message
    found, _ = run_eval(run.folder.path, tmp_path, "evaluate.horizons=[6]", out=tmp_path / "out")
    assert "copy_ratio_h6" in found["labelled"]


def test_mistakes_come_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained("align")
    monkeypatch.setattr(evaluation, "_read", lambda *given: pytest.fail("work was begun"))

    def refused(*overrides: str, path: Path = run.folder.path, out: Path | None = None) -> str:
        return user_error(lambda: run_eval(path, tmp_path, *overrides, out=out))

    assert "no checkpoint there" in refused(path=tmp_path)
    assert "the checkpoint decides this" in refused("model.history_len=1")
    gone = refused(f"data.sources.wall.path={tmp_path / 'gone'}")
    assert "what it was trained on is not here" in gone
    assert "no such data folder" in gone
    other = samples.wall_copy(tmp_path / "other")
    file = other / "actions.pth"
    torch.save(torch.load(file, weights_only=True) * 2, file)
    assert "not those that" in refused(f"data.sources.wall.path={other}")
    backbone = [f"evaluate.perceptual.backbone={tmp_path / 'vgg.pth'}", "evaluate.perceptual.kind=lpips"]
    assert "no file" in refused(*backbone)
    (tmp_path / "file").write_text("x")
    assert "--out" in refused(out=tmp_path / "file" / "below")


def test_data_may_have_moved(tmp_path: Path) -> None:
    moved = samples.wall_copy(tmp_path / "moved")
    found, _ = run_eval(
        trained("align").folder.path, tmp_path, f"data.sources.wall.path={moved}", "evaluate.horizons=[1]"
    )
    assert found["clips"] == {"labelled": 6}


def test_a_horizon_is_a_column() -> None:
    found = {
        "horizons": [1, 5],
        "clips": {"labelled": 3},
        "labelled": {"copy_ratio_h1": 0.25, "copy_ratio_h5": 0.5},
        "latent": {"effective_rank": 7.0},
        "state": {"state_probe_r2/x": 0.9, "state_probe_rollout_r2_h5/x": 0.8},
        "images": {"img_psnr_reconstructed": 20.0, "img_psnr_pred_h1": 18.0},
        "lpips": "available",
    }
    console = Console(width=100, record=True, file=io.StringIO())
    for renderable in render_quality(found):
        console.print(renderable)
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["copy_ratio", "0.25", "0.50"] in lines
    assert ["state_probe_rollout_r2/x", "0.80"] in lines
    assert ["img_psnr_pred", "18.00"] in lines
    assert not any("LPIPS" in line for line in lines)


def test_the_page_of_metrics_is_the_table() -> None:
    """Write it again with: python -c "from wm.evaluation.metric_names import to_markdown; print(to_markdown(), end='')"."""
    assert (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8") == metric_names.to_markdown()


@pytest.mark.parametrize("side", [1, 2])
def test_features_without_frames(tmp_path: Path, side: int) -> None:
    """No frame is asked for: latents alone are measured and drawn, and one token a frame has no patches to colour."""
    random = np.random.default_rng(0)
    features = random.normal(size=(8, 30, side * side, 6)).astype(np.float16)
    folder = tmp_path / "features"
    folder.mkdir()
    np.savez(folder / "features.npz", features=features, actions=random.normal(size=(8, 30, 2)).astype(np.float32))
    values: dict[str, Any] = {
        "data.sources.f": {"kind": "precomputed", "path": str(folder)},
        "encoder": {"kind": "precomputed", "provenance": "random", "dim": 6, "grid": [side, side]},
        "model.proprio": "none",
        "model.predictor": {"depth": 1, "heads": 2, "head_dim": 8, "mlp_dim": 16},
        "train": {"batch_size": 4, "epochs": 1, "steps_per_epoch": 2, "device": "cpu"},
        "evaluate.horizons": [1],
    }
    run = RunInputs(resolve([Layer.from_tree("test", values)]), tmp_path)
    train(run)
    found, said = run_eval(run.folder.path, tmp_path, "evaluate.horizons=[1,2]", out=tmp_path / "out")
    assert "copy_ratio_h2" in found["labelled"]
    assert found["state"] == {}
    assert "No state to probe for" in said
    pictures = [path.name for path in (tmp_path / "out").glob("*.png")]
    assert len(pictures) == (3 if side == 2 else 0)
    assert all(name.startswith("patch_pca") for name in pictures)


def test_where_it_goes_and_which_checkpoint(tmp_path: Path) -> None:
    """Beside the checkpoint that was asked for: two that stand alone never share a folder."""
    run = inputs(tmp_path, "align", train__epochs=3, train__keep_checkpoints=3)
    train(run)
    run_eval(run.folder.path, tmp_path)
    assert (run.folder.path / "evaluation" / "step_00000009" / "eval.json").is_file()
    console = Console(quiet=True)
    found = evaluate_checkpoint(run.folder.path, [f"storage.root={tmp_path}", *SMALL], None, Narrator(console), "best")
    best = Path(found["checkpoint"])
    assert best == find_checkpoint(run.folder.path, "best")
    assert (run.folder.path / "evaluation" / best.name / "eval.json").is_file()
    alone = tmp_path / "imported"
    shutil.copytree(best, alone)
    evaluate_checkpoint(alone, [f"storage.root={tmp_path}", *SMALL], None, Narrator(console))
    assert (tmp_path / "evaluation" / "imported" / "eval.json").is_file()
