"""An exported rollout step, driven without the model's classes: what a robot's process holds.

Shape legend: B rows, H model actions, F env steps a model action, A numbers of an env action.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.export.passes import move_to_device_pass

from wm.config.errors import UserError
from wm.shortcut.driver import Step, StepDriver
from wm.shortcut.step_facts import StepFacts

FACTS = "rollout.json"
_COMPILED = "data/aotinductor/"


class ExportedRollout(StepDriver):
    """What `wm export-rollout` wrote, ready to see and to imagine.

    A file of machine code, or of a program, does what whoever wrote it wanted: open your own alone.

    Args:
        device: for a compiled step, the kind that it was compiled on.
        cuda_graph: as StepDriver.

    Attributes:
        about: what is known of the model: sizes, units of actions, encoder, commit.

    Raises:
        UserError: not such a file, or a compiled one of another kind of device.
    """

    def __init__(self, path: str | Path, device: str = "cpu", *, cuda_graph: bool = False) -> None:
        step, self.about = _read(Path(path), torch.device(device), cuda_graph)
        super().__init__(step, StepFacts(**self.about["step"]), torch.device(device), cuda_graph=cuda_graph)

    def model_actions(self, raw: Float[Tensor, "B HF A"]) -> Float[Tensor, "B H FA"]:
        """Raw env actions -> normalised model actions, (x - mean) / std, F after F in one vector."""
        mean, std = (raw.new_tensor(self.about["action"][name]) for name in ("mean", "std"))
        return ((raw - mean) / std).flatten(1).unflatten(1, (-1, self.facts.action_dim))


def _read(path: Path, device: torch.device, cuda_graph: bool) -> tuple[Step, dict[str, Any]]:
    """(the step, its facts); locks of several threads would break a capture."""
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path}: no exported rollout there; `wm export-rollout RUN --out FILE.pt2` writes one")
    with zipfile.ZipFile(path) as archive:
        is_compiled = any(_COMPILED in name for name in archive.namelist())
    if not is_compiled:
        extra = {FACTS: ""}
        program = torch.export.load(path, extra_files=extra)
        about = _facts(path, extra[FACTS])
        if about["device"] != device.type:
            program = move_to_device_pass(program, device)
        return cast(Step, program.module()), about
    compiled = torch._inductor.aoti_load_package(str(path), run_single_threaded=cuda_graph)
    about = _facts(path, compiled.get_metadata().get(FACTS, ""))
    if about["device"] != device.type:
        raise UserError(f"{path}: compiled for {about['device']}, not for {device.type}; export it there again")
    return compiled, about


def _facts(path: Path, saved: str) -> dict[str, Any]:
    if not saved:
        raise UserError(f"{path}: a program without {FACTS}; `wm export-rollout RUN --out FILE.pt2` writes one with it")
    return json.loads(saved)
