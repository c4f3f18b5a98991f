"""The README is true: its Python block runs, and the commands and files it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from ray_jobs.cli import app
from tests.wm.data import samples

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", re.findall(r"<!-- run -->\n```python\n(.*?)```", README, re.DOTALL))
def test_python_block_runs(block: str, tmp_path: Path) -> None:
    run = samples.inputs(tmp_path, "align_recon", model__proprio="none")  # as the shipped Wall specs
    samples.train(run)
    folder = run.folder.path
    code = block.replace("RUN_FOLDER", str(folder)).replace("(84, 84, 3)", f"({samples.SIZE}, {samples.SIZE}, 3)")
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["future"].shape[1] == 2  # type: ignore[attr-defined]  # the sample's planner looks two steps ahead


def test_commands_exist() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for name in set(re.findall(r"^wm ([\w-]+)", README, re.MULTILINE)) | set(re.findall(r"`wm ([\w-]+)", README)):
        assert name in commands, f"README names `wm {name}`"


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (REPOSITORY / target).exists(), f"README links to {target}"
