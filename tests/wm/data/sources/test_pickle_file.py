"""Plain values come out of a pickle as they went in; anything that would run is refused."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.wm.data.samples import refusal, same, user_error
from wm.data.sources.pickle_file import load_pickle

VALUES: list[Any] = [
    [3, 4, 5],
    ["T", "L"],
    np.array([3, 4]),
    np.array(["T", "small_tee"]),
    [np.int64(3), np.float32(0.5)],
    torch.tensor([[3, 4], [5, 6]])[:, 1],
    {"episode_lengths": [3, 4], "more": OrderedDict(a=(1, None, True))},
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", VALUES, ids=str)
def test_plain_values_come_back(tmp_path: Path, value: Any, protocol: int) -> None:
    file = tmp_path / "values.pkl"
    file.write_bytes(pickle.dumps(value, protocol))
    assert same(load_pickle(file), value)


def test_names_of_numpy_1(tmp_path: Path) -> None:
    file = tmp_path / "values.pkl"
    file.write_bytes(pickle.dumps(np.array([3, 4]), 2).replace(b"numpy._core.", b"numpy.core."))
    assert load_pickle(file).tolist() == [3, 4]


class Bomb:
    """Unpickling this makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.target,)


class TensorBomb(Bomb):
    """The same by way of what a tensor's storage may be read with."""

    def __reduce__(self) -> tuple[Any, ...]:
        return torch.storage._load_from_bytes, (pickle.dumps(Bomb(self.target)),)


@pytest.mark.parametrize("bomb", [Bomb, TensorBomb])
@pytest.mark.parametrize("place", ["alone", "in a list", "in an array"])
def test_what_would_run_does_not(tmp_path: Path, bomb: type[Bomb], place: str) -> None:
    file, target = tmp_path / "values.pkl", tmp_path / "executed"
    thing = bomb(target)
    held = {"alone": thing, "in a list": [1, [thing]], "in an array": np.array([thing], object)}[place]
    file.write_bytes(pickle.dumps(held))
    assert str(file) in user_error(lambda: load_pickle(file))
    assert not target.exists()


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "builtins.getattr", "numpy.load", "torch.load"])
def test_a_name_outside_the_table_is_said(tmp_path: Path, name: str) -> None:
    module, _, attribute = name.rpartition(".")
    (tmp_path / "values.pkl").write_bytes(f"c{module}\n{attribute}\n.".encode())
    assert name in user_error(lambda: load_pickle(tmp_path / "values.pkl"))


def test_damaged_bytes_never_give_a_traceback(tmp_path: Path) -> None:
    file, rng = tmp_path / "values.pkl", np.random.default_rng(0)
    refused = 0
    for content in (pickle.dumps(np.arange(9)), pickle.dumps(torch.arange(9)), pickle.dumps(list(range(90)))):
        whole = np.frombuffer(content, np.uint8)
        for _ in range(100):
            damaged = whole.copy()
            damaged[rng.integers(0, len(whole), size=2)] = rng.integers(0, 256, size=2)
            file.write_bytes(damaged.tobytes()[: rng.integers(1, 2 * len(whole))])
            message = refusal(lambda: load_pickle(file))
            assert message is None or str(file) in message
            refused += message is not None
    assert refused > 100
    assert str(tmp_path / "none.pkl") in user_error(lambda: load_pickle(tmp_path / "none.pkl"))
