"""One golden case: its arrays, its sizes and its tolerance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wm.planning.noise import NoiseSource

GOLDEN = Path(__file__).parent


@dataclass(frozen=True)
class Golden:
    """`golden["out/mu"]` is a tensor, `golden.size("horizon")` and `golden.cfg("alpha")` are numbers."""

    arrays: dict[str, np.ndarray]

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key])

    def cfg(self, key: str) -> float:
        return self.arrays[f"cfg/{key}"].item()

    def size(self, key: str) -> int:
        return int(self.cfg(key))

    def under(self, prefix: str) -> dict[str, Tensor]:
        """Everything below `prefix`, without it."""
        return {key[len(prefix) :]: self[key] for key in self.arrays if key.startswith(prefix)}

    def states(self, when: str, problems: Sequence[int]) -> Tensor:
        """The toy world's states (B, 1, 1, 8) of some problems: [visual, flattened | proprio]."""
        parts = [self[f"in/{when}_{part}"][problems].flatten(1) for part in ("visual", "proprio")]
        return torch.cat(parts, dim=1)[:, None, None]


def load_case(path: Path) -> Golden:
    """The arrays of one .npz."""
    with np.load(path, allow_pickle=False) as arrays:
        return Golden({key: arrays[key] for key in arrays.files})


def assert_golden(value: Tensor, reference: Tensor, tolerance: float = 2e-6) -> None:
    """max |a - b| <= tolerance * max(1, max |reference|), as the golden README defines it."""
    assert value.shape == reference.shape, f"{tuple(value.shape)} is not {tuple(reference.shape)}"
    error, scale = float((value - reference).abs().max()), max(1.0, float(reference.abs().max()))
    assert error <= tolerance * scale, f"off by {error:.3g}, at most {tolerance * scale:.3g} allowed"


def assert_golden_gradient(value: Tensor, reference: Tensor, tolerance: float = 5e-6) -> None:
    """max |a - b| <= tolerance * max |reference|, per array."""
    assert value.shape == reference.shape, f"{tuple(value.shape)} is not {tuple(reference.shape)}"
    error, scale = float((value - reference).abs().max()), float(reference.abs().max())
    assert error <= tolerance * scale, f"off by {error:.3g}, at most {tolerance * scale:.3g} allowed"


def replay(recorded: Sequence[Sequence[Tensor]], generators: Sequence[torch.Generator]) -> NoiseSource:
    """A NoiseSource that hands each generator its own problem's recorded noise, one tensor a call."""
    rest = {generator: iter(noise) for generator, noise in zip(generators, recorded, strict=True)}

    def draw(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        noise = next(rest[generator])
        assert noise.shape == shape
        return noise

    return draw


Check = Callable[[Golden], None]  # raises AssertionError
