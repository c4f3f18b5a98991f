"""What CONTRIBUTING shows is done here, with its own lines: a loss term and a variant from outside."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

from tests.wm.data.samples import user_error
from wm.build import build_model
from wm.config.experiment import ExperimentConfig
from wm.config.resolve import Layer, resolve
from wm.config.yaml import parse_yaml
from wm.models.world_model import WorldModel
from wm.training.optimizer import build_optimizer
from wm.types import Batch, Observation

PAGE = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
SMALL = {
    "model.predictor": {"depth": 1, "heads": 2, "head_dim": 4, "mlp_dim": 8, "dropout": 0.0},
    "model.history_len": 2,
    "model.proprio": "none",
}
FACTS = {
    "token_dim": 12,
    "tokens_per_frame": 4,
    "action_dim": 6,
    "proprio_dim": 0,
    "statistics": {
        "action": None,
        "proprio": None,
        "state": {"names": ["x", "y"], "mean": [0.0, 0.0], "std": [1.0, 1.0]},
    },
}


def shown(language: str, containing: str) -> str:
    """The one code block of CONTRIBUTING in this language that holds these words."""
    (block,) = [b for b in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if containing in b]
    return block


def resolved(*trees: dict[str, object]) -> ExperimentConfig:
    return resolve([Layer.from_tree(f"tree {n}", tree) for n, tree in enumerate((SMALL, *trees))])


def batch(clips: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(0)
    every = torch.ones(clips, dtype=torch.bool)
    tokens, actions, state = (torch.randn(clips, 3, *s, generator=generator) for s in ((4, 12), (6,), (2,)))
    return Batch(Observation(tokens), actions, every, state, every, torch.ones(clips))


@pytest.fixture
def my_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "my_lab"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    yield package
    for name in [name for name in sys.modules if name.split(".")[0] == "my_lab"]:
        del sys.modules[name]


def test_a_loss_term_from_outside(my_lab: Path) -> None:
    (my_lab / "smooth.py").write_text(shown("python", "class Smooth"), encoding="utf-8")
    config = resolved(parse_yaml(shown("yaml", "my_lab.smooth"), "CONTRIBUTING"))
    model = build_model(config, FACTS)
    terms = model.losses(batch(), progress=0.5)
    assert float(terms.parts["smooth_loss"]) > 0
    torch.testing.assert_close(terms.weighted["smooth_loss"].detach(), 0.25 * terms.parts["smooth_loss"])
    terms.total.backward()
    assert model.terms["smooth"].readout.weight.grad.abs().max() > 0
    held = {id(p) for group in build_optimizer(model, config.train.optimizer).param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()}
    # The same weights come back, and those of the rest are what they are without the term.
    again = build_model(config, FACTS)
    again.load_state_dict(model.state_dict())
    plain = build_model(resolved(), FACTS).state_dict()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in plain.items())


def test_a_variant_from_outside(tmp_path: Path) -> None:
    file = tmp_path / "slow_features.yaml"
    file.write_text(shown("yaml", "slow_features.yaml"), encoding="utf-8")
    model: WorldModel = build_model(resolved({"model.variant": str(file)}), FACTS)
    assert model.losses(batch()).weighted.keys() == {"z_loss", "alignment_loss", "variance_loss"}
    assert model.visual_dim == 32


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "'my_lab.smooth' has no 'Smooth'"),
        ("import nothing_like_it", "cannot be imported (ModuleNotFoundError: No module named 'nothing_like_it')"),
        ("def Smooth(model, dim): return dim", "must make an nn.Module, got int"),
        ("def Smooth(model): return model", "failed: TypeError"),
        (
            "import torch\nclass Smooth(torch.nn.Module):\n    def __init__(self, model, dim):\n        super().__init__()\n"
            "        self.model = model",
            "keeps the model as a part of itself",
        ),
    ],
)
def test_a_bad_term_gets_one_line(my_lab: Path, source: str, words: str) -> None:
    (my_lab / "smooth.py").write_text(source, encoding="utf-8")
    config = resolved(parse_yaml(shown("yaml", "my_lab.smooth"), "CONTRIBUTING"))
    message = user_error(lambda: build_model(config, FACTS))
    assert message.startswith("model.terms.smooth.target: ")
    assert words in message
