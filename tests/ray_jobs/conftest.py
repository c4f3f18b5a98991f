"""A storage root with twelve Wall episodes and a small spec, opened as sweeps; a file server and an empty storage root."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.runtime.searched import Searched, open_sweep
from tests.integration.conftest import SPEC, make_data
from tests.wm.data.file_server import FileServer, serving

GOALS = ("evaluate.grid.goal_horizons=[5]", "evaluate.horizons=[1,5]", "metric=plan/success_rate_gh5")


def make_small_home(root: Path) -> Path:
    make_data(root)
    (root / "small.yaml").write_text(SPEC, encoding="utf-8")
    return root


def open_small(root: Path, *arguments: str, space: str = "alignment", **more: Any) -> Searched:
    return open_sweep(str(root / "small.yaml"), space, [*GOALS, *arguments, f"storage.root={root}"], **more)


@pytest.fixture(scope="module")
def small_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def opened(small_home: Path) -> Callable[..., Searched]:
    """`opened("sweep.seed=1", space="horizon")`."""

    def make(*arguments: str, **more: Any) -> Searched:
        return open_small(small_home, *arguments, **more)

    return make


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(FileServer()) as found:
        yield found


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
