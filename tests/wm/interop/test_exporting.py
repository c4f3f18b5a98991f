"""Out under the reference's names, and back again bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import wm
from tests.wm.data import samples
from tests.wm.data.samples import same, user_error
from tests.wm.interop.reference import golden_case, tiny_encoder, write_run
from wm.interop.exporting import export_checkpoint, read_export
from wm.interop.importing import import_checkpoint
from wm.training.checkpoint import find_checkpoint, list_checkpoints, load_checkpoint


@pytest.mark.parametrize("variant", ["baseline", "align_recon"])
def test_back_and_forth_is_the_same_checkpoint(tmp_path: Path, variant: str) -> None:
    run = samples.trained(variant)
    before = load_checkpoint(find_checkpoint(run.folder.path))
    exported = export_checkpoint(run.folder.path, tmp_path / "out")
    after = load_checkpoint(import_checkpoint(tmp_path / "out", tmp_path / "back").path)
    assert same(after.weights, before.weights)
    assert (after.step, after.facts) == (before.step, before.facts)
    assert wm.load(tmp_path / "back").config.model_dump() == run.config.model_dump()
    mine = {"token_center", "projection.0", "alignment_head", "reconstruction_head"}
    heads = mine if variant == "align_recon" else set()
    assert set(exported.ours_alone) == {"action_embedding", "proprio_embedding", *heads}


def test_the_average_is_what_goes_out(tmp_path: Path) -> None:
    run = samples.inputs(tmp_path / "home", train__ema_decay=0.5)
    samples.train(run)
    checkpoint = load_checkpoint(find_checkpoint(run.folder.path))
    assert checkpoint.ema is not None
    export_checkpoint(run.folder.path, tmp_path / "out")
    assert same(read_export(tmp_path / "out").weights, checkpoint.ema)
    assert not same(checkpoint.ema, checkpoint.model)
    assert json.loads((tmp_path / "out" / "export.json").read_text(encoding="utf-8"))["averaged"] is True


def test_names_and_shapes_are_the_references(tmp_path: Path) -> None:
    """In from the reference's format, out again: its own state dicts and sizes."""
    case = golden_case("rollout_concat1")
    source = write_run(tmp_path / "theirs", case)
    import_checkpoint(source, tmp_path / "ours", None, tiny_encoder(case))
    export_checkpoint(tmp_path / "ours", tmp_path / "out")
    found = {
        f"{module}.{name}": value
        for module in ("predictor", "action_encoder", "proprio_encoder")
        for name, value in load_file(tmp_path / "out" / f"{module}.safetensors").items()
    }
    theirs = case.under("w/")
    assert found.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(found[name], value), name
    sizes = json.loads((tmp_path / "out" / "export.json").read_text(encoding="utf-8"))["sizes"]
    assert sizes["predictor"] == {
        "num_patches": 9, "num_frames": 3, "dim": 20, "depth": 2, "heads": 2, "dim_head": 8, "mlp_dim": 32, "dropout": 0.1,
    }  # fmt: skip
    assert sizes["action_encoder"] == {"in_chans": 10, "emb_dim": 4, "num_frames": 1, "tubelet_size": 1}
    assert (sizes["concat_dim"], sizes["num_action_repeat"], sizes["frameskip"]) == (1, 1, 5)
    assert set(load_file(tmp_path / "out" / "ours.safetensors")) == {"action_embedding.null", "proprio_embedding.null"}


@pytest.mark.parametrize("name", ["loss_concat1_decoder", "rollout_concat0"])
def test_a_decoder_and_tokens_come_back(tmp_path: Path, name: str) -> None:
    case = golden_case(name)
    source = write_run(tmp_path / "theirs", case, has_decoder="decoder" in name)
    path = import_checkpoint(source, tmp_path / "ours", None, tiny_encoder(case)).path
    export_checkpoint(path, tmp_path / "out")
    back = import_checkpoint(tmp_path / "out", tmp_path / "back").path
    assert same(load_checkpoint(back).weights, load_checkpoint(path).weights)
    modules = {file.stem for file in (tmp_path / "out").glob("*.safetensors")}
    assert modules - {"decoder"} == {"predictor", "action_encoder", "proprio_encoder", "ours"}
    assert ("decoder" in modules) == ("decoder" in name)
    sizes = json.loads((tmp_path / "out" / "export.json").read_text(encoding="utf-8"))["sizes"]
    assert sizes["concat_dim"] == case.size("concat_dim")
    assert sizes["predictor"]["num_patches"] == 9 + 2 * (1 - case.size("concat_dim"))


def test_wrong_exports_are_one_line(tmp_path: Path) -> None:
    run = samples.trained("baseline")
    assert "no checkpoint there" in user_error(lambda: export_checkpoint(tmp_path, tmp_path / "out"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    assert "already" in user_error(lambda: export_checkpoint(run.folder.path, tmp_path / "full"))
    export_checkpoint(list_checkpoints(run.folder.checkpoints)[-1], tmp_path / "out")
    message = user_error(lambda: import_checkpoint(tmp_path / "out", tmp_path / "ours", tmp_path))
    assert "its own config" in message
    weights = tmp_path / "out" / "predictor.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert "damaged" in user_error(lambda: import_checkpoint(tmp_path / "out", tmp_path / "ours"))
    weights.unlink()
    assert "missing" in user_error(lambda: import_checkpoint(tmp_path / "out", tmp_path / "ours"))
    (tmp_path / "out" / "export.json").write_text("{}", encoding="utf-8")
    assert "not an export" in user_error(lambda: import_checkpoint(tmp_path / "out", tmp_path / "ours"))
    (tmp_path / "out" / "export.json").write_text("{", encoding="utf-8")
    assert "not readable" in user_error(lambda: import_checkpoint(tmp_path / "out", tmp_path / "ours"))
