"""The golden check as a command."""

from __future__ import annotations

import shutil

import numpy as np

from tests.golden.case import GOLDEN
from tests.golden.check import CHECKS, check_for, main, run_case


def test_it_counts_and_tells(tmp_path):
    for name in ("embed", "objective"):
        shutil.copy(GOLDEN / "dino_wm" / f"{name}.npz", tmp_path)
    shutil.copy(tmp_path / "embed.npz", tmp_path / "nobody_checks_this.npz")
    said: list[str] = []
    assert main([str(tmp_path)], said.append) == 0
    assert [line.split(maxsplit=1) for line in said[:-1]] == [
        ["embed", "passed"],
        ["nobody_checks_this", "not covered yet"],
        ["objective", "passed"],
    ]
    assert said[-1] == "2 passed, 0 failed"

    with np.load(tmp_path / "embed.npz") as arrays:
        wrong = {key: arrays[key] for key in arrays.files}
    wrong["out/action_emb"] = wrong["out/action_emb"] + 1e-4
    np.savez(tmp_path / "embed.npz", **wrong)
    assert main([str(tmp_path)], said.append) == 1
    assert said[-1] == "1 passed, 1 failed"
    assert run_case(tmp_path / "embed.npz").verdict == "failed"


def test_an_empty_folder_is_no_success(tmp_path):
    said: list[str] = []
    assert main([str(tmp_path)], said.append) == 2
    assert "no .npz" in said[0]


def test_every_check_has_a_case():
    used = [check_for(path.stem) for path in GOLDEN.rglob("*.npz")]
    assert all(check in used for check in CHECKS.values())


def test_another_set_s_sizes_may_be_in_its_names():
    assert check_for("predictor_hist5") is CHECKS["predictor"]
    assert check_for("rollout_concat0_hist2") is CHECKS["rollout"]
    assert check_for("gdp") is None
