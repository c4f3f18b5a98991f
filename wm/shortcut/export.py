"""A static step as a file: torch.export's program, or the machine code that AOTInductor makes of it.

Source: torch's manuals, torch.export and AOTInductor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler
from torch.export import ExportedProgram

from wm.config.errors import UserError
from wm.data.atomic import atomic_file
from wm.shortcut.driver import step_inputs
from wm.shortcut.exported import FACTS
from wm.shortcut.static_step import StaticStep


@torch.no_grad()
def program_of(step: StaticStep) -> ExportedProgram:
    """The step with its weights and without any of the model's Python."""
    return torch.export.export(step, step_inputs(step.facts, step.model.token_mean.device))


def write_program(program: ExportedProgram, facts: Mapping[str, Any], path: Path) -> None:
    """A file that `torch.export.load` reads, with the facts as JSON beside the program."""
    program.example_inputs = None  # a whole ring of zeros
    with atomic_file(path) as partial, TemporaryDirectory(dir=path.parent) as folder:
        whole = Path(folder) / path.name  # torch names what is inside after the file
        torch.export.save(program, whole, extra_files={FACTS: json.dumps(facts, indent=1, allow_nan=False)})
        whole.replace(partial)


def write_compiled(program: ExportedProgram, facts: Mapping[str, Any], path: Path) -> None:
    """A file that `torch._inductor.aoti_load_package` reads, with the facts as its metadata; for this kind of device alone.

    Raises:
        UserError: no C++ compiler is here.
    """
    check_compiler()
    configs = {"aot_inductor.metadata": {FACTS: json.dumps(facts, allow_nan=False)}}
    with atomic_file(path) as partial, TemporaryDirectory(dir=path.parent) as folder:
        whole = Path(folder) / path.name
        torch._inductor.aoti_compile_and_package(program, package_path=str(whole), inductor_configs=configs)
        whole.replace(partial)


def check_compiler() -> None:
    """Raises UserError where AOTInductor would find no C++ compiler."""
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise UserError("--compile: no C++ compiler here; install g++, or name one by CXX") from error
