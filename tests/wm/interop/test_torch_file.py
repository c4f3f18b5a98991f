"""Crafted files: each is refused by the name of what it tries, and nothing in it runs."""

from __future__ import annotations

import collections
import functools
import io
import os
import pickle
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.wm.data.samples import user_error
from tests.wm.interop.reference import reference_modules
from wm.interop.modules import module_state
from wm.interop.pickles import Record, StoredTensor
from wm.interop.torch_file import read_torch_file


class Calls:
    """Pickles as the call of anything."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.reduced


def zip_file(path: Path, data: bytes, **entries: bytes) -> Path:
    """An archive as torch.save lays it out, around any pickle."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in {"data.pkl": data, "byteorder": b"little", "version": b"3\n", **entries}.items():
            archive.writestr(f"archive/{name}", content)
    return path


def opcodes(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def touch(folder: Path) -> str:
    return f"touch {folder / 'pwned'}"


MALICIOUS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "os.system": (lambda f: Calls(os.system, touch(f)), "posix.system"),
    "eval": (lambda f: Calls(eval, f"open({str(f / 'pwned')!r}, 'w')"), "builtins.eval"),
    "exec": (lambda f: Calls(exec, f"open({str(f / 'pwned')!r}, 'w')"), "builtins.exec"),
    "open": (lambda f: Calls(open, str(f / "pwned"), "w"), "io.open"),
    "getattr": (lambda f: Calls(getattr, 1.5, "__class__"), "builtins.getattr"),
    "getattr of an allowed class": (lambda f: Calls(getattr, nn.Linear, "__init__"), "builtins.getattr"),
    "import": (lambda f: Calls(__import__, "os"), "builtins.__import__"),
    "partial": (lambda f: Calls(functools.partial, os.system, touch(f)), "functools.partial"),
    "Popen": (lambda f: Calls(subprocess.Popen, ["touch", str(f / "pwned")]), "subprocess.Popen"),
    "hub": (lambda f: Calls(torch.hub.load, "a/b", "c"), "torch.hub.load"),
    "torch.load": (lambda f: Calls(torch.load, str(f / "x")), "torch.serialization.load"),
    "bytes of another pickle": (
        lambda f: Calls(torch.storage._load_from_bytes, pickle.dumps(Calls(os.system, touch(f)))),
        "torch.storage._load_from_bytes",
    ),
    "another torch._utils": (lambda f: Calls(torch._utils._import_dotted_name, "os.system"), "_import_dotted_name"),
    "numpy": (lambda f: np.array([object()], dtype=object), "numpy"),
    "a method of an allowed class": (lambda f: Calls(nn.Linear.forward, 1), "torch.nn.modules.linear.Linear.forward"),
    "a Counter": (lambda f: collections.Counter("ab"), "collections.Counter"),
}


@pytest.mark.parametrize("name", MALICIOUS)
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("where", ["zip", "legacy", "bare", "nested", "state"])
def test_each_is_refused_by_name(tmp_path: Path, name: str, protocol: int, where: str) -> None:
    make, expected = MALICIOUS[name]
    evil = make(tmp_path)
    file = tmp_path / "model_latest.pth"
    if where == "zip":
        torch.save({"epoch": 1, "predictor": evil}, file, pickle_protocol=protocol)
    elif where == "legacy":
        torch.save({"predictor": evil}, file, pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    elif where == "bare":
        file.write_bytes(pickle.dumps(evil, protocol=protocol))
    elif where == "nested":
        layer = nn.Linear(2, 2)
        layer.register_buffer("x", torch.ones(2))
        layer.extra = [{"a": (1, evil)}]
        torch.save({"predictor": layer}, file, pickle_protocol=protocol)
    else:  # what a call leaves behind is given to OrderedDict's __setstate__
        torch.save(Calls(collections.OrderedDict, state=evil), file, pickle_protocol=protocol)
    message = user_error(lambda: read_torch_file(file))
    assert "refused: " in message
    assert "is not part of a checkpoint" in message
    if protocol == 2:  # it has no dotted names
        expected = {"torch.nn.modules.linear.Linear.forward": "builtins.getattr"}.get(expected, expected)
    assert expected in message
    assert not (tmp_path / "pwned").exists()


def test_the_same_files_do_run_where_pickles_are_trusted(tmp_path: Path) -> None:
    """The side effect that the other tests look for is real."""
    pickle.loads(pickle.dumps(Calls(os.system, touch(tmp_path))))
    assert (tmp_path / "pwned").exists()


RAW: dict[str, tuple[bytes, str]] = {
    "an allowed class of another module": (b"cevil.vit\nViTPredictor\n", "evil.vit.ViTPredictor"),
    "an allowed name joined otherwise": (b"ctorch.nn.modules\nlinear.Linear\n", "torch.nn.modules.linear.Linear"),
    "a dotted way through torch": (b"\x8c\x05torch\x8c\x09os.system\x93", "torch.os.system"),
    "a module of the reference, not named": (b"cmodels.vit\ngenerate_mask_matrix\n", "models.vit.generate_mask_matrix"),
    "an old class opcode": (b"(" + text("true") + b"iposix\nsystem\n", "posix.system"),
    "an old object opcode": (b"(cmodels.vit\nViTPredictor\no", "OBJ"),
    "an extension code": (b"\x82\x01", "EXT1"),
    "a text persistent id": (b"Pposix.system\n", "PERSID"),
    "a persistent id that is code": (b"cposix\nsystem\n" + text("true") + b"\x85RQ", "posix.system"),
    "a persistent id of a module": (text("module") + b"cmodels.vit\nViTPredictor\n\x86Q", "persistent id"),
    "calling an allowed class": (b"cmodels.vit\nViTPredictor\n)R", "models.vit.ViTPredictor"),
    "calling a storage": (b"ctorch\nFloatStorage\nJ\xff\xff\xff\x7f\x85R", "torch.FloatStorage"),
    "calling a rebuilder with anything": (b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x02K\x03K\x04tR", "tensor"),
    "calling a record": (b"cmodels.vit\nViTPredictor\n)\x81)R", "models.vit.ViTPredictor"),
    "an object of a function": (b"ctorch._utils\n_rebuild_parameter\n)\x81", "torch._utils._rebuild_parameter"),
    "an object of a container": (b"ccollections\nOrderedDict\n)\x81", "collections.OrderedDict"),
    "changing a class": (b"cmodels.vit\nViTPredictor\n}" + text("forward") + b"K\x01sb", "models.vit.ViTPredictor"),
    "changing a list": (b"]}b", "changing a list"),
    "a state that is no state": (b"cmodels.vit\nViTPredictor\n)\x81K\x01b", "models.vit.ViTPredictor"),
    "appending to a class": (b"cmodels.vit\nViTPredictor\nK\x01a", "models.vit.ViTPredictor"),
    "a name that is no text": (b"K\x01K\x02\x93", "no text"),
    "a name with line breaks": (b"\x8c\x05a\nb\rc\x8c\x01d\x93", "refused: 'a\\nb\\rc.d'"),
}


@pytest.mark.parametrize("name", RAW)
def test_tricks_of_single_opcodes(tmp_path: Path, name: str) -> None:
    body, expected = RAW[name]
    file = zip_file(tmp_path / "model_latest.pth", opcodes(body))
    message = user_error(lambda: read_torch_file(file))
    assert "refused: " in message
    assert expected in message


BROKEN: dict[str, bytes] = {
    "no end": b"\x80\x02}",
    "empty": b"",
    "an empty stack": b"\x80\x020.",
    "two objects": b"\x80\x02NN.",
    "no mark": b"\x80\x02t.",
    "no such memo": b"\x80\x02h\x07.",
    "a list as a key": b"\x80\x02}]Ns.",
    "an odd number of items": b"\x80\x02}(Nu.",
    "not a pickle": b"hello world",
    "a length beyond the end": b"\x80\x02X\xff\xff\xff\x7fabc.",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_pickles_are_one_line(tmp_path: Path, name: str) -> None:
    file = zip_file(tmp_path / "a.pth", BROKEN[name])
    assert "not a whole pickle" in user_error(lambda: read_torch_file(file))


def tensor_pickle(numel: int, offset: int = 0, size: tuple[int, ...] = (2,), stride: tuple[int, ...] = (1,)) -> bytes:
    """One tensor over storage `0`, with any numbers in its shape."""

    def number(value: int) -> bytes:
        data = value.to_bytes(8, "little", signed=True)
        return b"\x8a\x08" + data

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cuda:0") + number(numel) + b"tQ"
    return opcodes(
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + number(offset)
        + numbers(size)
        + numbers(stride)
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )


def test_shapes_stay_within_their_storage(tmp_path: Path) -> None:
    good = zip_file(
        tmp_path / "good.pth", tensor_pickle(4, 1, (3,), (1,)), **{"data/0": np.arange(4, dtype="<f4").tobytes()}
    )
    assert read_torch_file(good).load().tolist() == [1, 2, 3]
    for number, (shape, word) in enumerate(
        [
            ({"offset": 3}, "larger than its storage"),
            ({"size": (10**12,), "stride": (0,)}, "larger than its storage"),
            ({"size": (2, 2), "stride": (3, 1)}, "larger than its storage"),
            ({"size": (-1,)}, "negative"),
            ({"offset": -4}, "negative"),
            ({"size": (2, 2)}, "shape"),
        ]
    ):
        file = zip_file(tmp_path / f"{number}.pth", tensor_pickle(4, **shape), **{"data/0": bytes(16)})
        assert word in user_error(lambda file=file: read_torch_file(file))
    lacking = zip_file(tmp_path / "lacking.pth", tensor_pickle(4))
    assert "no storage '0'" in user_error(lambda: read_torch_file(lacking))
    short = zip_file(tmp_path / "short.pth", tensor_pickle(10**15), **{"data/0": bytes(16)})
    assert "16 bytes" in user_error(lambda: read_torch_file(short))


def test_tensors_that_share_a_storage_cannot_fill_the_memory(tmp_path: Path) -> None:
    module = nn.Linear(64, 64, bias=False)
    for index in range(400):
        module.register_buffer(f"b{index}", module.weight.data)
    file = tmp_path / "a.pth"
    torch.save(module, file)
    message = user_error(lambda: module_state(read_torch_file(file), file, "predictor"))
    assert "more bytes than the file" in message


def test_zip_bombs_and_damage(tmp_path: Path) -> None:
    whole = tmp_path / "whole.pth"
    torch.save({"epoch": 1, "predictor": nn.Linear(50, 50)}, whole)
    data = whole.read_bytes()

    def refused(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        return user_error(lambda: read_torch_file(tmp_path / name))

    assert "truncated or damaged" in refused("cut", data[: len(data) // 2])
    assert "not a whole pickle" in refused("empty", b"")
    assert "not a whole pickle" in refused("text", b"a picture, not a checkpoint")
    assert "not a whole pickle" in refused("zeros", bytes(1000))
    assert "bare pickle" in refused("bare", pickle.dumps({"a": 1}))

    compressed = tmp_path / "bomb.pth"
    with zipfile.ZipFile(compressed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    assert "is compressed" in user_error(lambda: read_torch_file(compressed))

    torch.save({"epoch": 1, "predictor": nn.Linear(50, 50)}, tmp_path / "old", _use_new_zipfile_serialization=False)
    old = (tmp_path / "old").read_bytes()
    assert "truncated or damaged" in refused("old_cut", old[:-100])
    assert "not a whole pickle" in refused("old_cut_early", old[:200])
    grown = old.replace(struct.pack("<q", 2500), struct.pack("<q", 2**60))
    assert "truncated or damaged" in refused("old_grown", grown)

    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02N.")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("archive/data.pkl", b"\x80\x02K\x01.")
    assert "there twice" in refused("twice", twice.getvalue())

    overlapping = zip_file(tmp_path / "o.pth", opcodes(b"N"), **{f"data/{i}": bytes(5000) for i in range(4)})
    content = bytearray(overlapping.read_bytes())
    claimed = content.replace(struct.pack("<II", 5000, 5000), struct.pack("<II", 500000, 500000))
    assert "overlap" in refused("overlap", bytes(claimed))

    assert "0 entries data.pkl" in refused("other", _zip_of("notes.txt"))
    flipped = bytearray(data)
    flipped[data.index(whole_weights(whole))] ^= 1
    (tmp_path / "flipped").write_bytes(flipped)
    content = read_torch_file(tmp_path / "flipped")
    assert "damaged" in user_error(lambda: module_state(content["predictor"], tmp_path / "flipped", "predictor"))

    big = zip_file(tmp_path / "big.pth", opcodes(b"N"), byteorder=b"big")
    assert "endian" in user_error(lambda: read_torch_file(big))
    assert "no such file" in user_error(lambda: read_torch_file(tmp_path / "absent"))


def _zip_of(name: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(name, "x")
    return content.getvalue()


def whole_weights(file: Path) -> bytes:
    with zipfile.ZipFile(file) as archive:
        return archive.read("whole/data/0")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_what_torch_saves_is_read(tmp_path: Path, zipped: bool, protocol: int) -> None:
    """Modules, buffers, shared and strided tensors, every storage type: as torch's own state dict has them."""
    with reference_modules() as classes:
        module = classes["ViTPredictor"]()
        module.pool, module.mask = "mean", torch.ones(2, 2)
        module.embed = nn.Linear(3, 4)
        module.layers = nn.ModuleList([nn.Sequential(nn.LayerNorm(4), nn.GELU()), nn.Conv1d(2, 3, 1)])
        base = torch.arange(24.0).view(4, 6)
        module.register_buffer("turned", base.T[1:3])
        module.register_buffer("same", base)
        module.register_buffer("left_out", torch.ones(3), persistent=False)
        for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool):
            module.register_buffer(f"of_{dtype}".replace(".", "_"), torch.tensor([0, 1, 1]).to(dtype))
        module.register_buffer("scalar", torch.tensor(3))
        module.register_buffer("nothing", torch.zeros(0, 4))
        module.register_parameter("absent", None)
        file = tmp_path / "a.pth"
        torch.save({"m": module, "epoch": 3}, file, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
        expected = module.state_dict()
    content = read_torch_file(file)
    assert content["epoch"] == 3
    assert isinstance(content["m"], Record)
    assert str(content["m"].name) == "models.vit.ViTPredictor"
    assert content["m"].state["pool"] == "mean"
    assert isinstance(content["m"].state["mask"], StoredTensor)
    found = module_state(content["m"], file, "m")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


def test_what_accelerate_wraps_is_read(tmp_path: Path) -> None:
    """The reference's optimisers are wrapped and drag accelerate's own state along."""
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    model = nn.Linear(2, 2)
    optimizer = accelerator.prepare(torch.optim.AdamW(model.parameters()))
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    torch.save({"predictor_optimizer": optimizer, "epoch": 1}, tmp_path / "a.pth")
    assert (
        str(read_torch_file(tmp_path / "a.pth")["predictor_optimizer"].name)
        == "accelerate.optimizer.AcceleratedOptimizer"
    )


def test_a_tree_without_end_is_walked_once(tmp_path: Path) -> None:
    first, second = nn.Sequential(), nn.Sequential()
    first.add_module("a", second)
    second._modules["b"] = first
    second.register_buffer("x", torch.ones(1))
    torch.save(first, tmp_path / "a.pth")
    assert list(module_state(read_torch_file(tmp_path / "a.pth"), tmp_path / "a.pth", "p")) == ["a.x"]
