"""A checkpoint gives back, bit for bit, what was put in, or says which file is damaged."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.wm.data.samples import same, user_error
from wm.training import checkpoint as module
from wm.training.checkpoint import (
    MANIFEST,
    Best,
    Checkpoint,
    best_of,
    find_checkpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from wm.training.rng import restore_rng_state, rng_state


def some_checkpoint(step: int = 3, ema: bool = True, best: Best | None = None) -> Checkpoint:
    """After real optimiser steps, so that there are moments to keep."""
    torch.manual_seed(step)
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    optimizer = torch.optim.AdamW([{"params": model.parameters(), "lr": 0.1 + 0.2, "name": "all"}])
    for _ in range(2):
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
    weights = {key: value.detach().clone() for key, value in model.state_dict().items()}
    weights["transposed"] = torch.randn(3, 2).T  # not contiguous
    return Checkpoint(
        step=step,
        model=weights,
        optimizer=optimizer.state_dict(),
        rng=rng_state(),
        facts={"train_hash": "abc", "statistics": {"mean": [0.1, 1 / 3]}},
        history=[{"step": 1, "epoch": 0, "metrics": {"train/loss": 1 / 3}}],
        ema={key: value / 3 for key, value in weights.items()} if ema else None,
        elapsed_s=12.3,
        scaler={"scale": 2.0**15, "_growth_tracker": 3},
        micro_batch=4,
        health_at_start={"val/effective_rank": 1 / 3},
        best=best,
    )


@pytest.mark.parametrize("ema", [True, False])
def test_round_trip_is_exact(tmp_path: Path, ema: bool) -> None:
    saved = some_checkpoint(ema=ema, best=Best(3, "val/copy_ratio_h5", 1 / 3))
    loaded = load_checkpoint(save_checkpoint(tmp_path, saved, keep=2))
    names = ("step", "model", "rng", "facts", "history", "ema", "elapsed_s", "scaler", "micro_batch", "health_at_start")
    for name in (*names, "best"):
        assert same(getattr(loaded, name), getattr(saved, name)), name
    assert same(loaded.optimizer["state"], saved.optimizer["state"])
    assert loaded.optimizer["state"][0]["exp_avg"].any()
    fresh = torch.optim.AdamW(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)).parameters())
    fresh.load_state_dict(loaded.optimizer)
    assert fresh.param_groups[0]["lr"] == 0.1 + 0.2
    assert fresh.param_groups[0]["betas"] == [0.9, 0.999] or fresh.param_groups[0]["betas"] == (0.9, 0.999)
    assert loaded.weights is (loaded.ema if ema else loaded.model)


def test_random_state_goes_on_where_it_was(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, some_checkpoint(), keep=1)
    expected = torch.rand(4)
    torch.rand(100)
    restore_rng_state(load_checkpoint(path).rng)
    assert torch.equal(torch.rand(4), expected)


def test_the_folder_holds_no_code(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, some_checkpoint(), keep=1)
    names = sorted(file.name for file in path.iterdir())
    assert names == [MANIFEST, *(f"{name}.safetensors" for name in ("ema", "model", "optimizer", "rng"))]
    for file in path.glob("*.safetensors"):
        header = file.read_bytes()
        json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])


def test_a_flipped_byte_anywhere_is_found(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, some_checkpoint(), keep=1)
    for file in sorted(path.iterdir()):
        whole = file.read_bytes()
        for place in range(0, len(whole), max(1, len(whole) // 40)):
            damaged = bytearray(whole)
            damaged[place] ^= 1
            file.write_bytes(bytes(damaged))
            if file.name == MANIFEST and _same_json(whole, bytes(damaged)):
                continue  # such as a newline that became another blank
            assert file.name in user_error(lambda: load_checkpoint(path)) or file.name == MANIFEST
        file.write_bytes(whole)
    load_checkpoint(path)


def _same_json(first: bytes, second: bytes) -> bool:
    """Whether both say the same apart from the digest of the rest."""
    try:
        a, b = json.loads(first), json.loads(second)
    except ValueError:
        return False
    return {**a, "digest": ""} == {key: value for key, value in b.items() if key in a} | {"digest": ""}


def test_a_changed_number_in_the_manifest_is_found(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, some_checkpoint(), keep=1)
    text = (path / MANIFEST).read_text()
    (path / MANIFEST).write_text(text.replace('"step": 3', '"step": 2'))
    assert MANIFEST in user_error(lambda: load_checkpoint(path))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', "\xff"])
def test_a_manifest_of_something_else(tmp_path: Path, text: str) -> None:
    path = save_checkpoint(tmp_path, some_checkpoint(), keep=1)
    (path / MANIFEST).write_text(text, encoding="latin-1")
    assert MANIFEST in user_error(lambda: load_checkpoint(path))


def test_missing_parts_are_named(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, some_checkpoint(), keep=1)
    (path / "optimizer.safetensors").unlink()
    assert "optimizer.safetensors" in user_error(lambda: load_checkpoint(path))
    (path / MANIFEST).unlink()
    assert MANIFEST in user_error(lambda: load_checkpoint(path))
    assert list_checkpoints(tmp_path) == []
    assert str(tmp_path) in user_error(lambda: find_checkpoint(tmp_path))


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 100):
        save_checkpoint(tmp_path, some_checkpoint(step), keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00000010", "step_00000100"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000010", "step_00000100"]


METRIC = "val/copy_ratio_h5"


def rows(*values: float | None) -> list[dict[str, Any]]:
    """One row a step from 1 on; None is a row without a validation."""
    return [
        {"step": step, "metrics": {"train/loss": 1.0} if value is None else {METRIC: value}}
        for step, value in enumerate(values, 1)
    ]


@pytest.mark.parametrize(
    ("values", "mode", "step"),
    [
        ((0.9, 0.5, 0.7), "min", 2),
        ((0.9, 0.5, 0.7), "max", 1),
        ((None, 0.5, None, 0.5), "min", 2),  # the first of equals
        ((float("nan"), float("inf"), 0.7), "min", 3),
        ((float("-inf"), 0.7), "min", 2),
    ],
)
def test_best_row(values: tuple[float, ...], mode: Any, step: int) -> None:
    assert best_of(rows(*values), METRIC, mode) == Best(step, METRIC, values[step - 1])


def test_no_best_row() -> None:
    assert best_of([], METRIC, "min") is None
    assert best_of(rows(None, float("nan")), METRIC, "min") is None


def test_the_best_is_kept_and_found(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for step, best in ((5, 5), (10, 5), (15, 5), (20, 20), (25, 20), (30, 20)):
        newest = save_checkpoint(folder, some_checkpoint(step, best=Best(best, METRIC, 0.5)), keep=1)
        assert [int(path.name[5:]) for path in list_checkpoints(folder)] == sorted({best, step})
    for place in (tmp_path, folder):
        assert find_checkpoint(place) == newest
        assert find_checkpoint(place, "best").name == "step_00000020"
    assert find_checkpoint(newest, "best") == newest  # a step that is named is meant
    shutil.rmtree(folder / "step_00000020")
    assert METRIC in user_error(lambda: find_checkpoint(tmp_path, "best"))


def test_no_best_before_the_first_validation(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, some_checkpoint(), keep=1)
    assert "take the latest" in user_error(lambda: find_checkpoint(tmp_path, "best"))


def test_a_checkpoint_of_the_first_release_can_be_read(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, some_checkpoint(), keep=1)
    manifest = json.loads((path / MANIFEST).read_text())
    for name in ("scaler", "micro_batch", "health_at_start", "best", "digest"):
        del manifest[name]
    (path / MANIFEST).write_text(json.dumps(manifest))
    old = load_checkpoint(path)
    assert same(old.model, some_checkpoint().model)
    assert (old.scaler, old.micro_batch, old.health_at_start, old.best) == ({}, None, {}, None)


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, some_checkpoint(), keep=2)
    path = save_checkpoint(tmp_path, some_checkpoint(ema=False), keep=2)
    assert load_checkpoint(path).ema is None
    assert list_checkpoints(tmp_path) == [path]


def test_found_from_a_run_or_by_itself(tmp_path: Path) -> None:
    for step in (5, 10):
        newest = save_checkpoint(tmp_path / "checkpoints", some_checkpoint(step), keep=2)
    for place in (tmp_path, tmp_path / "checkpoints", newest):
        assert find_checkpoint(place) == newest
    assert "absent" in user_error(lambda: find_checkpoint(tmp_path / "absent"))


@pytest.mark.parametrize("at_file", [1, 3])
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_file: int) -> None:
    before = save_checkpoint(tmp_path, some_checkpoint(1), keep=1)
    written: list[Path] = []
    save_file = module.save_file

    def full(tensors: dict[str, Any], path: Path) -> None:
        written.append(path)
        if len(written) == at_file:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(tensors, path)

    monkeypatch.setattr(module, "save_file", full)
    message = user_error(lambda: save_checkpoint(tmp_path, some_checkpoint(2), keep=1))
    assert "step_00000002" in message
    assert "No space left" in message
    assert list(tmp_path.iterdir()) == [before]
    load_checkpoint(before)
