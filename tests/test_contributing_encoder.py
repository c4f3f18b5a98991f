"""CONTRIBUTING's encoder, as it stands on the page: written to a folder outside, held to the contract, trained on."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.contracts import test_encoder as contract
from tests.wm.data.samples import config, wall_folder
from wm.build import build_encoder, load
from wm.config.experiment import ExperimentConfig
from wm.config.resolve import Layer
from wm.config.yaml import read_yaml
from wm.contracts import Encoder
from wm.training.reporter import NullReporter
from wm.training_run import RunInputs

PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture
def resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExperimentConfig:
    """The page's class on the Python path, and a small run with the page's YAML in it."""
    place, code = re.findall(r"<!-- run: (\S+) -->\n```python\n(.*?)```", PAGE, re.DOTALL)[0]
    (tmp_path / place).parent.mkdir()
    (tmp_path / place).write_text(code, encoding="utf-8")
    (tmp_path / "spec.yaml").write_text(re.findall(r"<!-- run -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)[0])
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("my_lab", "my_lab.encoder"):  # of another test, and not for the next
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]
    given = Layer.from_tree("page", read_yaml(tmp_path / "spec.yaml")).values
    return config(data__sources__wall__path=str(wall_folder()), **given)


def test_it_keeps_the_contract(resolved: ExperimentConfig) -> None:
    encoder = build_encoder(resolved.encoder)
    assert isinstance(encoder, Encoder)
    assert encoder.grid == (4, 4)
    for held in (
        contract.test_frozen,
        contract.test_training_mode_does_not_reach_it,
        contract.test_autocast_does_not_reach_it,
        contract.test_a_batch_is_its_clips,
        contract.test_what_comes_after_is_not_needed,
        contract.test_no_clip_leaks_into_another,
        contract.test_frames_matter,
        contract.test_only_uint8_frames_are_taken,
    ):
        held(encoder)
    contract.test_no_later_frame_leaks_in(encoder, 2)
    other = resolved.encoder.model_copy(update={"config": {"image_size": 32, "seed": 1}})
    assert build_encoder(other).fingerprint != encoder.fingerprint  # type: ignore[arg-type]


def test_a_run_trains_on_it_and_is_loaded_again(resolved: ExperimentConfig, tmp_path: Path) -> None:
    run = RunInputs(resolved, tmp_path / "home")
    run.training(NullReporter(), run.local_batches).run()
    model = load(run.folder.path)
    assert model.encoder.fingerprint == run.encoder.fingerprint
    assert model.facts["tokens_per_frame"] == 16


def test_the_places_that_the_page_names_exist() -> None:
    section = PAGE[PAGE.index("**An encoder** from outside") : PAGE.index("**A spec**")]
    named = set(re.findall(r"`((?:wm|tests)/[\w/.]+)`", section))
    assert len(named) >= 5
    for path in named:
        assert (Path(__file__).parents[1] / path).exists(), path
