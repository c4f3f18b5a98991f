"""An exported step imagines what the model does, in a process that has never seen the model's classes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._inductor import config as inductor_config

from tests.wm.data.samples import user_error
from tests.wm.shortcut.test_model import A
from tests.wm.shortcut.test_static_step import ROWS, calm, given
from wm.shortcut.export import check_compiler, program_of, write_compiled, write_program
from wm.shortcut.exported import FACTS, ExportedRollout
from wm.shortcut.model import BackboneModel
from wm.shortcut.static_step import StaticStep

REPOSITORY = Path(__file__).parents[3]
ABOUT = {"device": "cpu", "action": {"mean": [1.0], "std": [2.0]}}
NEAR = {"rtol": 0, "atol": 1e-5}


def facts(step: StaticStep) -> dict[str, Any]:
    return {"step": asdict(step.facts), **ABOUT}


def small(kind: str) -> BackboneModel:
    return calm(kind).float().eval().requires_grad_(False)


def exported(model: BackboneModel, path: Path) -> Path:
    step = StaticStep(model, ROWS)
    write_program(program_of(step), facts(step), path)
    return path


def in_a_fresh_process(code: str, folder: Path, inputs: tuple[Tensor, ...], **environment: str) -> list[Tensor]:
    """What `code` leaves in `found`, given `inputs`, and the names of the modules of wm that it imported."""
    torch.save(inputs, folder / "inputs.pt")
    script = (
        'import sys, torch\ninputs = torch.load("inputs.pt")\n'
        + code
        + '\ntorch.save((found, [name for name in sys.modules if name.split(".")[0] == "wm"]), "found.pt")\n'
    )
    subprocess.run([sys.executable, "-c", script], cwd=folder, env=environment, check=True, timeout=300)
    return torch.load(folder / "found.pt")


@pytest.mark.slow
def test_a_shortcut_step_without_its_classes(tmp_path: Path) -> None:
    """Over more than a round of the ring, after context frames that entered by the same step."""
    model, (context, actions) = small("shortcut"), given(2, 9, torch.float32)
    exported(model, tmp_path / "step.pt2")
    code = (
        "from wm.shortcut.exported import ExportedRollout\n"
        'rollout = ExportedRollout("step.pt2")\nfound = rollout.rollout(*inputs)'
    )
    found, modules = in_a_fresh_process(code, tmp_path, (context, actions), PYTHONPATH=str(REPOSITORY))
    torch.testing.assert_close(found, model.rollout(context, actions), **NEAR)
    assert "wm.shortcut.exported" in modules
    assert not {"wm.shortcut.model", "wm.shortcut.backbone", "wm.shortcut.static_step", "wm.models"} & {*modules}


def test_the_page_s_loop_with_torch_alone(tmp_path: Path) -> None:
    """A teacher-forced model, as it takes no noise."""
    model, (context, actions) = small("teacher"), given(1, 8, torch.float32)
    exported(model, tmp_path / "step.pt2")
    page = (REPOSITORY / "docs/shortcut.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"<!-- torch alone -->\n```python\n(.*?)```", page, re.DOTALL)
    code = f"frame, actions = inputs[0], inputs[1].unbind(dim=1)\n{block}\nfound = frame"
    found, modules = in_a_fresh_process(code, tmp_path, (context, actions))
    torch.testing.assert_close(found, model.rollout(context, actions)[:, -1:], **NEAR)
    assert not modules


def test_raw_actions_are_normalised(tmp_path: Path) -> None:
    path = exported(small("teacher"), tmp_path / "step.pt2")
    rollout = ExportedRollout(path)
    raw = torch.arange(2.0 * 2 * A).reshape(2, 2 * A, 1)
    torch.testing.assert_close(rollout.model_actions(raw), ((raw - 1) / 2).reshape(2, 2, A))
    assert rollout.about["action"] == ABOUT["action"]
    assert path.stat().st_size < 1.5e6  # no ring of zeros beside the weights


def test_what_is_no_exported_rollout_gets_a_line(tmp_path: Path) -> None:
    (tmp_path / "junk.pt2").write_text("junk")
    for name in ("junk.pt2", "nowhere.pt2"):
        line = user_error(lambda name=name: ExportedRollout(tmp_path / name))
        assert (
            line == f"{tmp_path / name}: no exported rollout there; `wm export-rollout RUN --out FILE.pt2` writes one"
        )
    other = torch.export.export(torch.nn.Linear(1, 1), (torch.zeros(1, 1),))
    torch.export.save(other, tmp_path / "other.pt2")
    assert f"other.pt2: a program without {FACTS}" in user_error(lambda: ExportedRollout(tmp_path / "other.pt2"))


def test_no_compiler() -> None:
    check_compiler()  # of this machine
    with inductor_config.patch({"cpp.cxx": ("no-such-compiler",)}):
        line = user_error(check_compiler)
    assert line == "--compile: no C++ compiler here; install g++, or name one by CXX"


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_compiled_step_is_the_model_s(dtype: torch.dtype, tmp_path: Path) -> None:
    model, (context, actions) = small("shortcut").weights_in(dtype), given(2, 9, torch.float32)
    step = StaticStep(model, ROWS)
    write_compiled(program_of(step), facts(step), tmp_path / "step.pt2")
    found = ExportedRollout(tmp_path / "step.pt2").rollout(context, actions)
    expected = model.rollout(context, actions)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 0.1)
    metadata = torch._inductor.aoti_load_package(str(tmp_path / "step.pt2")).get_metadata()
    assert json.loads(metadata[FACTS])["step"]["ring_dtype"] == str(dtype).removeprefix("torch.")
