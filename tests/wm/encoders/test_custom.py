"""`kind: custom`: what is refused, and in which words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.wm.data.samples import user_error
from tests.wm.encoders.samples import MeanColour, some_frames
from wm.build import build_encoder
from wm.config.encoder import CustomEncoderConfig
from wm.config.errors import UserError
from wm.config.resolve import Layer, resolve

HERE = "tests.wm.encoders.test_custom"


class Wide(MeanColour):
    dim = 4  # its tokens are 3 wide


class Double(MeanColour):
    def encode(self, frames: Tensor) -> Tensor:
        return super().encode(frames).double()


class Learning(MeanColour):
    def encode(self, frames: Tensor) -> Tensor:
        return super().encode(frames) * torch.ones(1, requires_grad=True)


class Nameless(MeanColour):
    def __init__(self) -> None:
        super().__init__()
        self.fingerprint = ""


class Flat(MeanColour):
    grid = 4  # type: ignore[assignment]


class Failing(MeanColour):
    def encode(self, frames: Tensor) -> Tensor:
        raise RuntimeError("out of tune\nand more")


def build(target: str, config: dict[str, Any] | None = None) -> Any:
    return build_encoder(CustomEncoderConfig(target=target, config=config or {}))


def test_its_config_becomes_keyword_arguments():
    encoder = build("tests.wm.encoders.samples:MeanColour", {"gain": 3.0})
    torch.testing.assert_close(encoder.encode(some_frames()), 3 * MeanColour().encode(some_frames()))


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("my_lab.encoder", "expected package.module:Name (got 'my_lab.encoder')"),
        ("no_lab.encoder:Mine", "'no_lab.encoder' cannot be imported (ModuleNotFoundError: No module named 'no_lab')"),
        ("tests.wm.encoders.samples:MeanColor", "has no 'MeanColor'. Did you mean 'MeanColour'?"),
        ("builtins:object", "builtins:object is no encoder: it has no dim, grid, fingerprint, encode"),
        (f"{HERE}:Wide", "must give (B, T, P, D) = (1, 2, 4, 4), got (1, 2, 4, 3)"),
        (f"{HERE}:Double", "tokens must be float32, got torch.float64"),
        (f"{HERE}:Learning", "no gradient"),
        (f"{HERE}:Nameless", "fingerprint must be a text"),
        (f"{HERE}:Flat", "grid must be (patches down, patches across), got 4"),
        (f"{HERE}:Failing", "failed: RuntimeError: out of tune"),
    ],
)
def test_what_breaks_the_contract_is_refused_in_one_line(target, says):
    message = user_error(lambda: build(target))
    assert message.startswith("encoder.target: ")
    assert says in message


def test_a_setting_that_the_class_does_not_take_is_refused():
    message = user_error(lambda: build("tests.wm.encoders.samples:MeanColour", {"gian": 2.0}))
    assert "MeanColour(gian=2.0) failed: TypeError" in message


def test_its_settings_are_free_but_the_rest_is_not():
    tree = {
        "encoder.kind": "custom",
        "encoder.target": "a:B",
        "encoder.config.gain": 1,
        "encoder.config": {"nested": {"list": [1, 2], "on": True}},
    }
    config = resolve([Layer.from_tree("spec", tree), Layer.from_tree("run", {"encoder.config.gain": 2.5})])
    assert isinstance(config.encoder, CustomEncoderConfig)
    assert config.encoder.config == {"gain": 2.5, "nested": {"list": [1, 2], "on": True}}
    assert type(config).model_validate_json(config.model_dump_json()) == config
    with pytest.raises(UserError, match=r"encoder\.traget: no such setting.*'encoder\.target'"):
        resolve([Layer.from_tree("spec", {**tree, "encoder.traget": "a:B"})])
    deeper = Layer.from_tree("run", {"encoder.config.gain.of": 3})
    with pytest.raises(UserError, match=r"encoder\.config\.gain\.of: is set below a single value \(in the run\)"):
        resolve([Layer.from_tree("spec", tree), deeper])
    # Another kind drops what only a custom one has.
    other = resolve([Layer.from_tree("spec", tree), Layer.from_tree("run", {"encoder.kind": "tiny"})])
    assert other.encoder.kind == "tiny"


def test_temporal_encoders_look_back():
    assert CustomEncoderConfig(target="a:B", temporal=True).looks_back
    assert not CustomEncoderConfig(target="a:B").looks_back
