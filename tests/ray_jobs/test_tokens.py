"""Filling token stores: on CPUs and on GPUs that are only said to be there, through deaths, with places for some actors alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.spec import load_spec
from ray_jobs.runtime import tokens
from ray_jobs.runtime.runs import Run, open_runs
from tests.integration.conftest import REPOSITORY, SPEC, finish, make_data
from tests.wm.data.samples import config, user_error

SCRIPT = """
import sys
import ray
from ray.util.state import list_actors
from experiments.spec import load_spec
from ray_jobs.runtime.cluster import cluster
from ray_jobs.runtime.runs import open_runs
from ray_jobs.runtime.tokens import encode_missing

spec, *arguments = sys.argv[1:]
runs = open_runs(*load_spec(spec, arguments))
with cluster(1, 2):
    seen = []
    print("ENCODED", encode_missing(runs, lambda done, total: seen.append((done, total))), seen[-1])
    print("AGAIN", encode_missing(runs, lambda done, total: None))
    actors = list_actors(ray.get_runtime_context().gcs_address, detail=True)
    print("ACTORS", len(actors), {actor.class_name for actor in actors})
    print("ASKED", {tuple(sorted(actor.required_resources.items())) for actor in actors})
"""


@pytest.mark.parametrize(
    ("changes", "gpus", "actors"),
    [
        ({}, 0, 0),
        ({}, 2, 4),
        ({"train.device": "cuda"}, 1, 2),
        ({"train.device": "cpu"}, 2, 0),
        ({"resources.gpus_per_encoding_actor": 0.0}, 2, 0),
        ({"resources.gpus_per_encoding_actor": 1.0}, 3, 3),
        ({"resources.gpus_per_encoding_actor": 0.3}, 2, 6),
        ({"resources.autoscaling": True, "resources.runs_at_once": 3, "resources.gpus_per_worker": 0.5}, 0, 4),
        ({"resources.autoscaling": True, "resources.runs_at_once": 3}, 0, 0),
    ],
)
def test_actors_share_the_cards(changes: dict[str, Any], gpus: float, actors: int) -> None:
    asked = config(**{path.replace(".", "__"): value for path, value in {"train.device": "auto", **changes}.items()})
    assert tokens.gpu_actors(asked, gpus) == actors


def test_a_process_that_finds_other_data_does_not_write(tmp_path: Path) -> None:
    """Fault: episodes encoded into a folder that nobody waits for."""
    make_data(tmp_path)
    run = _runs(tmp_path)[0]
    (missing,) = run.inputs.missing_tokens()
    given = (run.config.model_dump_json(), missing.source, missing.size)
    encoder, store = tokens._opened(*given, str(missing.store.folder), True)
    assert store.folder == missing.store.folder
    assert encoder.fingerprint == run.inputs.encoder.fingerprint
    assert "changed since" in user_error(lambda: tokens._opened(*given, str(tmp_path / "elsewhere"), False))


def _runs(root: Path, *more: str) -> list[Run]:
    spec = root / "small.yaml"
    spec.write_text(SPEC, encoding="utf-8")
    return open_runs(*load_spec(spec, [f"storage.root={root}", *more]))


class MortalActor(tokens.EncodingActor):
    """Dies on its first piece of work; another one, after it has encoded some."""

    def encode(self, work: Any) -> int:
        died = Path(work.folder).parent / f"died_{work.episodes[0]}"
        if not died.exists():
            died.parent.mkdir(exist_ok=True)
            died.touch()
            if work.episodes[0] == 0:
                tokens._encode(work._replace(episodes=work.episodes[:1]))
            os._exit(1)
        return super().encode(work)


@pytest.mark.ray
@pytest.mark.slow
def test_deaths_and_actors_without_a_place(tmp_path: Path, ray_cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four CPUs, six actors, pieces of two episodes: two actors never start, and whoever starts dies once on each piece."""
    make_data(tmp_path)
    no_gpu = "resources.gpus_per_encoding_actor=0"  # there is none to ask for
    runs = _runs(tmp_path, "data.token_format=int8", no_gpu)
    monkeypatch.setattr(tokens, "EncodingActor", MortalActor)
    monkeypatch.setattr(tokens, "_EPISODES_PER_TASK", 4)
    monkeypatch.setattr(tokens, "gpu_actors", lambda config, gpus: 6)
    seen: list[tuple[int, int]] = []
    assert tokens.encode_missing(runs, lambda done, total: seen.append((done, total))) == 12
    assert seen == [(4, 12), (8, 12), (12, 12)]
    assert len(list(tmp_path.glob("tokens/died_*"))) == 3
    store = runs[0].inputs.dataset.stores["wall"]
    assert store.missing() == []
    assert store.read(11, np.arange(40)).shape == (40, 4, 16)


@pytest.mark.ray
@pytest.mark.slow
def test_on_gpus_that_are_only_said_to_be_there(tmp_path: Path) -> None:
    """One CPU, two GPUs: four actors are asked for and one has a place. The tokens are those of any CPU."""
    make_data(tmp_path)
    runs = _runs(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "small.yaml"), f"storage.root={tmp_path}"],
        cwd=REPOSITORY,
        env={name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output = finish(process, 300)
    assert process.returncode == 0, output[-3000:]
    assert "ENCODED 12 (12, 12)" in output
    assert "AGAIN 0" in output
    assert "ACTORS 2 {'EncodingActor'}" in output  # 12 episodes are two pieces of work
    assert "ASKED {(('CPU', 1.0), ('GPU', 0.5))}" in output
    store, frames = runs[0].inputs.dataset.stores["wall"], np.arange(40)
    there = store.read(7, frames)
    store.path(7).unlink()
    list(store.write(runs[0].inputs.encoder, [7]))
    np.testing.assert_array_equal(store.read(7, frames), there)
