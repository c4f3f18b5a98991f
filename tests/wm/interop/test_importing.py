"""A checkpoint in the reference's format predicts here what it predicted there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import wm
from tests.golden.case import Golden, assert_golden
from tests.wm.data import samples
from tests.wm.data.layouts import write_layout
from tests.wm.data.samples import user_error
from tests.wm.interop.reference import content_of, golden_case, reference_modules, tiny_encoder, write_run
from wm.build import build_encoder
from wm.config.encoder import TinyEncoderConfig
from wm.data.dataset import Dataset
from wm.interop.importing import import_checkpoint
from wm.loaded import LoadedModel
from wm.training.checkpoint import load_checkpoint
from wm.types import Observation


def imported(folder: Path, case: Golden, *overrides: str, data: Path | None = None, **changes: Any) -> LoadedModel:
    source = write_run(folder / "theirs", case, **changes)
    import_checkpoint(source, folder / "ours", data, [*tiny_encoder(case), *overrides])
    return wm.load(folder / "ours")


@pytest.mark.parametrize("name", ["rollout_concat1", "rollout_concat1_hist1", "rollout_concat0"])
@pytest.mark.parametrize("attention", ["plain", "fused"])
@torch.no_grad()
def test_predictions_are_the_references(tmp_path: Path, name: str, attention: str) -> None:
    """Every latent of a rollout, from 1 and from 3 observed frames."""
    case = golden_case(name)
    model = imported(tmp_path, case, f"model.predictor.attention={attention}").model
    obs = Observation(case["in/visual_tokens"], case["in/proprio"])
    actions = case["in/action"]
    for given in (1, 3):
        context = model.encode_content(obs.slice(slice(given)))
        content = torch.cat([context, model.rollout(context, actions)], dim=1)
        reference = case[f"out/z_n{given}"]
        assert_golden(model.with_actions(content[:, :-1], actions), reference[:, :-1])
        assert_golden(content[:, -1:], reference[:, -1:, : content.shape[2], : content.shape[3]])
    assert not any(name.startswith("models") for name in sys.modules), "the reference's modules were imported"


@torch.no_grad()
def test_tiled_embeddings(tmp_path: Path) -> None:
    """num_proprio_repeat 3, num_action_repeat 2. The case has no predictor: one of zeros takes its place."""
    case, other = golden_case("encode_concat1_repeat"), golden_case("rollout_concat1")
    width = {12 + 4 + 4: 12 + 3 * 4 + 2 * 4}
    for key, value in other.arrays.items():
        if key.startswith("w/predictor."):
            case.arrays[key] = np.zeros([width.get(size, size) for size in value.shape], np.float32)
    model = imported(tmp_path, case).model
    assert_golden(
        model.encode(Observation(case["in/visual_tokens"], case["in/proprio"]), case["in/action"]), case["out/z"]
    )


@torch.no_grad()
def test_decoder(tmp_path: Path) -> None:
    """The picture of the first frame is the reference's."""
    case = golden_case("loss_concat1_decoder")
    model = imported(tmp_path, case, has_decoder=True, training__decoder_lr=1e-4)
    assert model.config.train.optimizer.decoder_lr == 1e-4
    content = model.model.encode_content(Observation(case["in/visual_tokens"], case["in/proprio"]))
    assert model.model.decoder is not None
    picture, _ = model.model.decoder(model.model.visual(content))
    assert_golden(picture[0, :1], case["out/visual_recon_frame0"])


def test_decoders_that_are_elsewhere(tmp_path: Path) -> None:
    without = write_run(tmp_path / "without", golden_case("rollout_concat1"), has_decoder=True)
    result = import_checkpoint(without, tmp_path / "a", None, tiny_encoder(golden_case("rollout_concat1")))
    assert any("trained apart" in note for note in result.notes)
    assert wm.load(tmp_path / "a").model.decoder is None
    case = golden_case("loss_concat1_decoder")
    result = import_checkpoint(write_run(tmp_path / "unsaid", case), tmp_path / "b", None, tiny_encoder(case))
    assert any("left out" in note for note in result.notes)
    assert wm.load(tmp_path / "b").model.decoder is None


def test_facts_statistics_and_settings(tmp_path: Path) -> None:
    case = golden_case("rollout_concat1")
    model = imported(tmp_path, case, training__predictor_lr=1e-4, training__seed=3)
    config, facts = model.config, model.facts
    assert (config.model.history_len, config.data.clip.frameskip, config.seed) == (3, 5, 3)
    assert (config.model.predictor.heads, config.model.predictor.head_dim, config.model.predictor.depth) == (2, 8, 2)
    assert config.train.optimizer.predictor_lr == 1e-4
    assert (facts["token_dim"], facts["tokens_per_frame"], facts["action_dim"], facts["proprio_dim"]) == (12, 9, 10, 4)
    assert facts["encoder_fingerprint"] == model.encoder.fingerprint
    action, proprio, state = model.statistics.action, model.statistics.proprio, model.statistics.state
    assert action is not None
    assert proprio is not None
    assert state is not None
    np.testing.assert_allclose(action.mean, [-0.0087, 0.0068], rtol=1e-6)  # SCIENCE section 1
    np.testing.assert_allclose(action.std, [0.2019, 0.2002], rtol=1e-6)
    np.testing.assert_allclose(proprio.mean, state.mean[[0, 1, 5, 6]])
    np.testing.assert_allclose(state.std[-1], 74.14009094, rtol=1e-6)


def test_a_frame_in_a_plan_out(tmp_path: Path) -> None:
    """From Python: what `wm plan` needs beyond this is a simulator."""
    case = golden_case("rollout_concat1_hist1")
    model = imported(tmp_path, case, "plan.planner.num_samples=8", "plan.planner.num_elites=2",
                     "plan.planner.num_iterations=2")  # fmt: skip
    frames = np.random.default_rng(0).integers(0, 255, (2, 42, 42, 3), dtype=np.uint8)
    found = wm.plan(model, frames[0], frames[1], proprio=np.zeros(4), goal_proprio=np.ones(4))
    assert found.actions.shape == (25, 2)
    assert np.isfinite(found.actions).all()


def test_every_weight_is_carried_bit_for_bit(tmp_path: Path) -> None:
    case = golden_case("rollout_concat1")
    source = write_run(tmp_path / "theirs", case)
    weights = load_checkpoint(import_checkpoint(source, tmp_path / "ours", None, tiny_encoder(case)).path).weights
    theirs = case.under("w/")
    assert torch.equal(weights["predictor.transformer.layers.1.1.net.4.weight"],
                       theirs["predictor.transformer.layers.1.1.net.4.weight"])  # fmt: skip
    assert torch.equal(weights["action_embedding.linear.weight"], theirs["action_encoder.patch_embed.weight"][..., 0])
    ours_alone = {"action_embedding.null", "proprio_embedding.null"}
    assert len(weights) == len(theirs) + len(ours_alone)
    assert not any(weights[name].any() for name in ours_alone)


def test_several_epochs_and_a_single_file(tmp_path: Path) -> None:
    case = golden_case("rollout_concat1")
    source = write_run(tmp_path / "theirs", case)
    with reference_modules() as classes:
        for epoch in (9, 10):
            torch.save(content_of(case, classes, epoch=epoch), source / "checkpoints" / f"model_{epoch}.pth")
    for file in (source, source / "checkpoints" / "model_9.pth"):
        import_checkpoint(file, tmp_path / "ours", None, tiny_encoder(case))
    (source / "checkpoints" / "model_latest.pth").unlink()
    newest = import_checkpoint(source, tmp_path / "ours", None, tiny_encoder(case))
    assert newest.path.name == "step_00000010"
    assert sorted(p.name for p in (tmp_path / "ours" / "checkpoints").iterdir()) == [
        "step_00000007", "step_00000009", "step_00000010",
    ]  # fmt: skip
    other = write_run(tmp_path / "other", case, training__seed=5)
    message = user_error(lambda: import_checkpoint(other, tmp_path / "ours", None, tiny_encoder(case)))
    assert "another run" in message


def test_wall_takes_its_statistics_and_problems_from_its_data(tmp_path: Path) -> None:
    """As the reference takes them: over all episodes, the held-out ones too."""
    case, data = golden_case("rollout_concat1_hist1"), samples.wall_folder()
    case.arrays["w/proprio_encoder.patch_embed.weight"] = case.arrays["w/proprio_encoder.patch_embed.weight"][:, :2]
    wall = {"env__name": "wall"}
    source = write_run(tmp_path / "theirs", case, **wall)
    message = user_error(lambda: import_checkpoint(source, tmp_path / "ours", None, tiny_encoder(case)))
    assert "--data" in message
    assert not (tmp_path / "ours").exists()
    result = import_checkpoint(source, tmp_path / "ours", data, tiny_encoder(case))
    model = wm.load(result.path)
    states, actions = samples.wall_source().states.reshape(-1, 2), samples.wall_source().actions.reshape(-1, 2)
    assert model.statistics.action is not None
    assert model.statistics.proprio is not None
    np.testing.assert_allclose(model.statistics.action.std, actions.std(axis=0, ddof=1), rtol=1e-5)
    np.testing.assert_allclose(model.statistics.proprio.mean, states.mean(axis=0), rtol=1e-5)
    assert model.config.plan.world.kind == "wall"
    assert model.config.data.val_fraction == 0.1
    assert (model.facts["imported"]["no_plan"], model.facts["imported"]["no_eval"]) == (None, None)
    assert model.facts["data_fingerprint"] == samples.wall_dataset().fingerprint


def test_without_its_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes of a real DINOv2-S, whose weights are not here: imported, said, and tied to no weights."""
    case = wide_case()
    result = import_checkpoint(write_run(tmp_path / "theirs", case), tmp_path / "ours")
    assert any("not at hand" in note for note in result.notes)
    facts = load_checkpoint(result.path).facts
    assert facts["encoder_fingerprint"] is None
    assert facts["config"]["encoder"] == facts["config"]["encoder"] | {
        "kind": "dinov2", "weights": "facebook/dinov2-small", "image_size": 48, "encode_size": 42,
    }  # fmt: skip
    assert "no DINOv2 found" in user_error(lambda: wm.load(tmp_path / "ours"))
    fitting = build_encoder(TinyEncoderConfig(image_size=42, hidden_size=384, depth=1, heads=2))
    monkeypatch.setattr("wm.build.build_encoder", lambda config: fitting)
    assert wm.load(tmp_path / "ours").encoder is fitting
    monkeypatch.setattr("wm.build.build_encoder", lambda config: samples.encoder())
    assert "9 tokens of 384" in user_error(lambda: wm.load(tmp_path / "ours"))


def test_sizes_are_checked_without_the_encoder_too(tmp_path: Path) -> None:
    narrow = write_run(tmp_path / "narrow", golden_case("rollout_concat1"))
    assert "384" in user_error(lambda: import_checkpoint(narrow, tmp_path / "ours"))
    case = wide_case()
    large = write_run(tmp_path / "large", case, img_size=64)
    assert "16 tokens of 384" in user_error(lambda: import_checkpoint(large, tmp_path / "ours"))


def wide_case() -> Golden:
    """The golden sizes, but for DINOv2-S's 384 channels; weights are zero."""
    case = golden_case("rollout_concat1")
    wide = 384 + 8
    for key, value in list(case.arrays.items()):
        if key.startswith("w/predictor."):
            shape = [wide if size == 20 else size for size in value.shape]
            case.arrays[key] = np.zeros(shape, np.float32)
    case.arrays["cfg/encoder_dim"] = np.array(384.0)
    return case


def test_normalisation_that_was_switched_off(tmp_path: Path) -> None:
    model = imported(tmp_path, golden_case("rollout_concat1"), env__dataset__normalize_action=False)
    assert model.statistics.action is not None
    assert (model.statistics.action.mean == 0).all()
    assert (model.statistics.action.std == 1).all()
    assert model.statistics.state is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_hist": None}, ("num_hist", "does not state")),
        ({"frameskip": None}, ("frameskip", "does not state")),
        ({"normalize_action": None, "env__dataset__normalize_action": None}, ("normalize_action", "does not state")),
        ({"num_hist": "three"}, ("num_hist", "whole number", "three")),
        ({"frameskip": 3}, ("10 numbers", "frameskip 3")),
        ({"num_pred": 2}, ("num_pred", "2")),
        ({"model__train_encoder": True}, ("model.train_encoder",)),
        ({"encoder__name": "dinov2_vitx14"}, ("encoder.name", "dinov2_vitx14", "dinov2_vit")),
        ({"encoder__feature_key": "cls"}, ("encoder.feature_key", "x_norm_clstoken")),
        ({"action_encoder___target_": "models.dummy.DummyRepeatActionEncoder"}, ("action_encoder", "Dummy")),
        ({"predictor__heads": 4}, ("2 heads", "predictor.heads 4")),
        ({"predictor__depth": 3}, ("transformer.layers.2", "none")),
        ({"predictor__mlp_dim": 16}, ("net.1", "(32,)", "(16,)")),
        ({"action_emb_dim": 3}, ("tokens of 12", "tokens of 13")),
        ({"num_hist": 2}, ("27 positions", "num_hist 2")),
        ({"env__name": "kitchen"}, ("env.name", "kitchen")),
        ({"env__name": "point_maze"}, ("point_maze", "--data")),
        ({"env__dataset__with_velocity": False}, ("proprios of 2", "take 4")),
        ({"concat_dim": 2}, ("concat_dim", "found 2")),
        ({"concat_dim": 0}, ("7 tokens of 20",)),
        (
            {"has_decoder": True, "decoder___target_": "models.other.Decoder"},
            ("decoder._target_", "models.other.Decoder"),
        ),
        ({"has_decoder": True, "decoder__quantize": "no"}, ("decoder.quantize", "true or false")),
    ],
)
def test_what_cannot_be_carried_over_is_one_line(
    tmp_path: Path, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    case = golden_case("rollout_concat1")
    source = write_run(tmp_path / "theirs", case, **changes)
    message = user_error(lambda: import_checkpoint(source, tmp_path / "ours", None, tiny_encoder(case)))
    for word in words:
        assert word in message
    assert not (tmp_path / "ours").exists()


def test_wrong_sources_and_targets(tmp_path: Path) -> None:
    case = golden_case("rollout_concat1")
    source = write_run(tmp_path / "theirs", case)
    tiny = tiny_encoder(case)
    assert "no such file or folder" in user_error(lambda: import_checkpoint(tmp_path / "no", tmp_path / "ours"))
    assert "no hydra.yaml" in user_error(lambda: import_checkpoint(source / "checkpoints", tmp_path / "ours"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine", encoding="utf-8")
    assert "not empty" in user_error(lambda: import_checkpoint(source, tmp_path / "full", None, tiny))
    assert "the checkpoint decides" in user_error(
        lambda: import_checkpoint(source, tmp_path / "ours", None, [*tiny, "model.history_len=2"])
    )
    assert "tokens of 16" in user_error(
        lambda: import_checkpoint(source, tmp_path / "ours", None, [*tiny, "encoder.hidden_size=16"])
    )
    alone = tmp_path / "alone" / "checkpoints" / "model_1.pth"
    alone.parent.mkdir(parents=True)
    alone.write_bytes((source / "checkpoints" / "model_latest.pth").read_bytes())
    assert "no hydra.yaml beside it" in user_error(lambda: import_checkpoint(alone, tmp_path / "ours"))
    (source / "checkpoints" / "model_latest.pth").unlink()
    assert "no model_latest.pth" in user_error(lambda: import_checkpoint(source, tmp_path / "ours"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"predictor": None}, ("no 'predictor'",)),
        ({"predictor": {"a": 1}}, ("predictor", "expected models.vit.ViTPredictor", "a dict")),
        ({"predictor": torch.nn.Linear(2, 2)}, ("predictor", "torch.nn.modules.linear.Linear")),
        ({"epoch": "seven"}, ("epoch", "whole number")),
    ],
)
def test_a_checkpoint_of_another_kind(tmp_path: Path, change: dict[str, Any], words: tuple[str, ...]) -> None:
    case = golden_case("rollout_concat1")
    with reference_modules() as classes:
        content = {key: value for key, value in content_of(case, classes, **change).items() if value is not None}
        source = write_run(tmp_path / "theirs", case, content)
    message = user_error(lambda: import_checkpoint(source, tmp_path / "ours", None, tiny_encoder(case)))
    for word in words:
        assert word in message


def test_pusht_takes_its_split_from_its_folders(tmp_path: Path) -> None:
    case = golden_case("rollout_concat1")
    write_layout("pusht_noise", tmp_path / "data", episodes=20)
    settings = [
        ({}, 2, 18),
        ({"env__dataset__n_rollout": 1}, 1, 1),
        ({"env__dataset__split_mode": "folder"}, 2, 18),
    ]
    for number, (changes, num_val, num_train) in enumerate(settings):
        model = imported(tmp_path / str(number), case, data=tmp_path / "data", **changes)
        assert model.config.data.held_out_last == num_val
        dataset = Dataset(model.config.data, Path("/"), None)
        assert [len(part) for part in dataset.split["pusht"]] == [num_train, num_val]
        assert model.facts["data_fingerprint"] == dataset.fingerprint
    train = imported(tmp_path / "train", case, data=tmp_path / "data" / "train")
    assert (train.config.data.held_out_last, train.config.data.val_fraction) == (None, 0.1)
    message = user_error(
        lambda: imported(tmp_path / "b", case, data=tmp_path / "data" / "train", env__dataset__split_mode="folder")
    )
    assert "judged on its val/" in message


def test_pusht_data_of_other_vectors_than_the_weights(tmp_path: Path) -> None:
    case = golden_case("rollout_concat1")
    write_layout("pusht_noise", tmp_path / "data")
    for part in ("train", "val"):
        (tmp_path / "data" / part / "velocities.pth").unlink()
    message = user_error(lambda: imported(tmp_path, case, data=tmp_path / "data"))
    assert "proprios of 2 numbers" in message
    assert "take 4" in message
    key = "w/proprio_encoder.patch_embed.weight"
    case.arrays[key] = case.arrays[key][:, :2]
    model = imported(tmp_path / "small", case, data=tmp_path / "data", env__dataset__with_velocity=False)
    assert model.statistics.state_names == ("agent_x", "agent_y", "block_x", "block_y", "angle")
