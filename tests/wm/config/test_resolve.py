"""Layers, kinds and the one line that bad input gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from wm.config.errors import UserError
from wm.config.experiment import ExperimentConfig
from wm.config.model import EmbeddedProprio, LinearProjection, NoProjection, NoProprio
from wm.config.plan import CemConfig, MppiConfig
from wm.config.resolve import Layer, resolve, variant_names, with_overrides
from wm.config.terms import InfoNceAlignment, NoAlignment


def resolved(*trees: Mapping[str, Any]) -> ExperimentConfig:
    """Layers named first, second, ..., lowest first."""
    names = ("first", "second", "third")
    return resolve([Layer.from_tree(name, tree) for name, tree in zip(names, trees, strict=False)])


def refusal(*trees: Mapping[str, Any]) -> str:
    with pytest.raises(UserError) as raised:
        resolved(*trees)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_nothing_given_is_the_published_recipe():
    config = resolved()
    assert config == ExperimentConfig()
    assert config.model.variant == "baseline"
    assert isinstance(config.model.projection, NoProjection)


def test_the_highest_layer_wins_and_the_rest_stays():
    config = resolved({"train": {"epochs": 3, "batch_size": 8}}, {"train.epochs": 5}, {"train": {"epochs": 7}})
    assert (config.train.epochs, config.train.batch_size) == (7, 8)


@pytest.mark.parametrize(
    ("variant", "projection", "alignment", "reconstruction", "dynamics", "sizes"),
    [
        ("baseline", "none", "none", "none", ("none", "none"), (10, 10, None)),
        ("align", "linear", "state_mse", "none", ("none", "none"), (32, 16, 128)),
        ("align_recon", "linear", "state_mse", "features", ("none", "none"), (32, 16, 128)),
        ("align_recon_dynamics", "linear", "state_mse", "features", ("none", "transition"), (32, 16, 128)),
        ("projected", "linear", "state_mse", "none", ("patch_mean", "none"), (32, 16, 64)),
    ],
)
def test_every_variant_is_what_it_says(variant, projection, alignment, reconstruction, dynamics, sizes):
    model = resolved({"model.variant": variant}).model
    assert model.variant == variant
    kinds = (model.projection.kind, model.alignment.kind, model.reconstruction.kind)
    assert kinds == (projection, alignment, reconstruction)
    assert (model.latent_dynamics.kind, model.temporal_dynamics.kind) == dynamics
    assert isinstance(model.proprio, EmbeddedProprio)
    width = model.projection.dim if isinstance(model.projection, LinearProjection) else None
    assert (model.proprio.dim, model.action.dim, width) == sizes
    assert model.keeps_proprio == (variant != "projected")


def test_there_is_a_test_for_every_variant():
    assert variant_names("dino_wm") == ["align", "align_recon", "align_recon_dynamics", "baseline", "projected"]
    assert variant_names("shortcut") == ["shortcut", "teacher_forced"]
    assert len(variant_names()) == 7


@pytest.mark.parametrize(("variant", "forcing"), [("shortcut", "shortcut"), ("teacher_forced", "teacher")])
def test_a_variant_of_another_kind_leaves_no_key_of_the_first_behind(variant, forcing):
    """What a spec says of alignment models is dropped where a run names a model of another kind; what both have stays."""
    layers = [
        Layer.from_tree("spec", {"model.history_len": 2, "model.projection.dim": 64}),
        Layer.from_tree("run", {"model.variant": variant}),
    ]
    model = resolve(layers).model
    assert (model.kind, model.variant, model.forcing.kind, model.history_len) == ("shortcut", variant, forcing, 2)
    assert "no such setting" in refusal({"model.variant": variant, "model.projection.dim": 64})


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"model.history_len": 64}, "history_len (64) must be below clip_frames (64)"),
        ({"model.sampling_steps": 3}, "sampling_steps (3) must divide forcing.k_max (64)"),
        ({"model.backbone.kv_heads": 5}, "heads (12) must be a multiple of kv_heads (5)"),
        ({"model.forcing.k_max": 48}, "k_max (48) must be a power of two"),
        ({"model.forcing.tau_power": 400.0}, "the signal must rise at every step of the grid"),
        ({"train.resolution": [{"size": 56, "until": 0.5}]}, "train.resolution"),
        ({"model.lengths": [{"frames": 80, "until": 0.5}]}, "lengths: 80 frames are more than clip_frames (64)"),
        (
            {"model.lengths": [{"frames": 8, "until": 0.5}, {"frames": 16, "until": 0.4}]},
            "must end after the one before it",
        ),
    ],
)
def test_a_shortcut_model_that_cannot_be_is_refused(values, why):
    assert why in refusal({"model.variant": "shortcut", **values})


@pytest.mark.parametrize("given", [[], [2, 0], 2.5, True, "four"])
def test_sampling_steps_are_one_number_or_one_for_each_iteration(given):
    config = resolved({"model.variant": "shortcut", "plan.sampling_steps": [1, 4]})
    assert config.plan.steps_by_iteration == (1, 4)
    assert type(config).model_validate_json(config.model_dump_json()).plan == config.plan
    assert resolved({"plan.sampling_steps": 2}).plan.steps_by_iteration == (2,)
    line = "plan.sampling_steps: expected a whole number above 0, or a list of them"
    assert refusal({"plan.sampling_steps": given}).count(line) == 1


def test_a_variant_of_ones_own_is_a_yaml_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("model.projection: {kind: mlp, dim: 24}\nmodel.alignment.kind: infonce\n")
    config = resolved({"model.variant": str(file), "model.alignment.temperature": 0.2})
    assert (config.model.variant, config.model.projection.kind) == (str(file), "mlp")
    file.unlink()  # a saved config has said all that the file did
    assert with_overrides(config, {"train.epochs": 3}).model == config.model
    assert "unknown variant" in refusal({"model.variant": str(file)})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model.variant": "projected", "plan.objective.alpha": 1.0}, "alpha must be 0 with projection.of=joint"),
        ({"model.proprio": "none", "plan.objective.alpha": 1.0}, "alpha must be 0 with model.proprio.kind=none"),
        ({"model.temporal_dynamics": "transition"}, "it needs alignment.kind other than none"),
        ({"model.concat": "token", "model.action.repeat": 2}, "concat=token has no channels to repeat"),
        ({"model.variant": "projected", "model.concat": "token"}, "projection.of must be visual"),
        ({"model.terms.z.target": "a:B"}, "terms.z: a term's name must be a word of its own"),
        ({"model.terms.smooth.target": "no_colon"}, "model.terms.smooth.target: String should match pattern"),
        ({"model.masking": {"kind": "tubes"}}, "unknown kind 'tubes' (in the first). Did you mean 'tube'?"),
    ],
)
def test_what_a_variant_cannot_serve_is_refused(given, words):
    assert words in refusal(given)


def test_a_layer_overrides_its_preset():
    config = resolved({"model.variant": "align", "model.projection.dim": 64, "model.alignment.kind": "infonce"})
    assert (config.model.projection.dim, config.model.alignment.kind) == (64, "infonce")


def test_the_last_named_variant_is_the_one():
    assert resolved({"model.variant": "align"}, {"model.variant": "baseline"}).model == ExperimentConfig().model


# -- kinds first ----


def test_a_new_kind_drops_what_it_lacks_and_keeps_what_is_shared():
    cem = {"plan.planner": {"kind": "cem", "horizon": 7, "num_elites": 9, "num_samples": 90}}
    planner = resolved(cem, {"plan.planner.kind": "mppi"}).plan.planner
    assert planner == MppiConfig(horizon=7, num_samples=90)
    assert resolved(cem).plan.planner == CemConfig(horizon=7, num_samples=90, num_elites=9)


def test_sampling_the_alignment_keeps_its_state_keys():
    spec = {"model": {"variant": "align", "alignment": {"state_keys": ["x"], "weight": {"start": 0.5}}}}
    alignment = resolved(spec, {"model.alignment.kind": "infonce"}).model.alignment
    assert isinstance(alignment, InfoNceAlignment)
    assert (alignment.state_keys, alignment.weight.start) == (("x",), 0.5)


@pytest.mark.parametrize(
    "trees",
    [
        ({"plan.planner": {"kind": "mppi", "num_elites": 9}},),
        ({"plan.planner.kind": "mppi"}, {"plan.planner.num_elites": 9}),
    ],
    ids=["same layer", "higher layer"],
)
def test_a_value_that_the_final_kind_lacks_is_refused_from_its_own_layer_or_above(trees):
    message = refusal(*trees)
    assert "plan.planner.num_elites: kind 'mppi' has no such setting" in message
    assert "Did you mean 'num_samples'" in message or "Valid:" in message


def test_a_kind_changed_back_finds_its_values_again():
    cem = {"plan.planner": {"kind": "cem", "num_elites": 9}}
    assert resolved(cem, {"plan.planner.kind": "mppi"}, {"plan.planner.kind": "cem"}).plan.planner.num_elites == 9


def test_a_preset_s_kinds_have_the_authority_of_the_layer_that_names_the_variant():
    sizes = {"model.projection.dim": 64}
    # Named above: the baseline has no projection, and drops what the spec says of one.
    assert isinstance(resolved(sizes, {"model.variant": "baseline"}).model.projection, NoProjection)
    assert resolved(sizes, {"model.variant": "align"}).model.projection == LinearProjection(dim=64)
    # Named below or beside: the size was meant, and cannot be had.
    assert "projection.dim: kind 'none'" in refusal({"model.variant": "baseline"}, sizes)
    assert "projection.dim: kind 'none'" in refusal({"model.variant": "baseline", **sizes})
    assert "projection.dim: kind 'none'" in refusal(sizes)


def test_kinds_below_kinds():
    spec = {"model": {"variant": "align", "alignment.weight": {"kind": "cosine", "end": 0.5, "start": 2.0}}}
    weight = resolved(spec, {"model.alignment.weight.kind": "constant"}).model.alignment.weight
    assert (weight.kind, weight.start) == ("constant", 2.0)
    assert isinstance(resolved(spec, {"model.alignment.kind": "none"}).model.alignment, NoAlignment)


def test_a_bare_word_is_a_kind():
    config = resolved({"model.variant": "align"}, {"model.proprio": "none"})
    assert isinstance(config.model.proprio, NoProprio)  # and the preset's dim went with it
    assert resolved({"model.proprio": "none"}, {"model.proprio": {"kind": "embed", "dim": 4}}).model.proprio.dim == 4


def test_the_same_path_twice_in_a_layer_is_refused():
    assert "train.epochs: given twice in the first" in refusal({"train": {"epochs": 1}, "train.epochs": 2})
    assert "model.proprio.kind: given twice" in refusal({"model.proprio": "none", "model.proprio.kind": "embed"})


# -- named entries and lists ----


def test_sources_are_named():
    config = resolved(
        {"data.sources": {"a": {"path": "one"}}}, {"data.sources.b.path": "two", "data.sources.a.episodes": 3}
    )
    assert {name: (s.path, s.episodes) for name, s in config.data.sources.items()} == {
        "a": ("one", 3),
        "b": ("two", None),
    }
    assert "data.sources: expected named entries, got 'wall'" in refusal({"data.sources": "wall"})
    assert "data.sources.a.path: must be given" in refusal({"data.sources.a.episodes": 3}).lower()


def test_lists_replace_lists():
    config = resolved({"evaluate.horizons": [1, 2, 3]}, {"evaluate": {"horizons": [4]}})
    assert config.evaluate.horizons == (4,)
    assert "evaluate.horizons: input should be a valid tuple (got 5)" in refusal({"evaluate.horizons": 5})
    assert "evaluate.horizons.1: input should be a valid integer (got 'b')" in refusal({"evaluate.horizons": [1, "b"]})
    assert "evaluate.horizons" in refusal({"evaluate.horizons": []})


# -- one line for bad input ----


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("trian.epochs", "train"),
        ("train.epoch", "train.epochs"),
        ("train.optimizer.predictor_rl", "train.optimizer.predictor_lr"),
        ("data.sources.wall.pth", "data.sources.wall.path"),
        ("plan.planner.num_sample", "plan.planner.num_samples"),
        ("evaluate.grid.goal_horizon", "evaluate.grid.goal_horizons"),
    ],
)
def test_a_misspelt_key_at_any_depth_gets_the_nearest_one(path, meant):
    message = refusal({path: 3})
    assert f"Did you mean '{meant}'?" in message
    assert "no such setting (in the first)" in message


def test_a_misspelt_key_below_a_kind():
    message = refusal({"model.variant": "align", "model.alignment.weight.strat": 3})
    assert "model.alignment.weight.strat: no such setting" in message
    assert "Did you mean 'model.alignment.weight.start'?" in message


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (
            {"model.variant": "algn"},
            "model.variant: unknown variant 'algn' (a shipped one, or a .yaml file). Did you mean 'align'?",
        ),
        (
            {"model.variant": None},
            "unknown variant 'None' (a shipped one, or a .yaml file). Valid: align, align_recon,",
        ),
        ({"plan.planner.kind": "cemm"}, "plan.planner.kind: unknown kind 'cemm' (in the first). Did you mean 'cem'?"),
        ({"plan.planner": "mpi"}, "plan.planner.kind: unknown kind 'mpi' (in the first). Did you mean 'mppi'?"),
        ({"plan.planner.kind": ["cem"]}, "plan.planner.kind: unknown kind ['cem']"),
        ({"plan.planner": None}, "plan.planner: expected settings below it, got None"),
        ({"train": 3}, "train: expected settings below it, got 3"),
        ({"train.epochs.max": 3}, "train.epochs is a single value and has no settings below it"),
        ({"train.epochs": "many"}, "train.epochs: input should be a valid integer (got 'many')"),
        ({"train.epochs": 1.5}, "train.epochs: input should be a valid integer (got 1.5)"),
        ({"train.epochs": True}, "train.epochs: input should be a valid integer (got True)"),
        ({"train.epochs": 0}, "train.epochs: input should be greater than or equal to 1 (got 0)"),
        ({"train.device": "gpu"}, "train.device: input should be 'auto', 'cpu' or 'cuda' (got 'gpu')"),
        ({"seed": -1}, "seed: input should be greater than or equal to 0 (got -1)"),
        ({"plan.planner.init_std": float("nan")}, "plan.planner.init_std: input should be a finite number (got nan)"),
        ({"plan.planner.num_elites": 400}, "num_elites (400) must be at most num_samples (300)"),
        ({"plan.execute_steps": 6}, "execute_steps (6) must be at most planner.horizon (5)"),
        ({"model.variant": "align", "model.alignment.dim": 129}, "alignment.dim (129) must be at most projection.dim"),
        ({"model.reconstruction": "features"}, "reconstruction.kind=features needs a projection"),
        ({"resources.num_workers": 3}, "train.batch_size (32) must be a multiple of resources.num_workers (3)"),
        ({"model.proprio": "none", "plan.objective.alpha": 1.0}, "plan.objective.alpha must be 0"),
        ({"data.tokens": "online", "data.token_format": "int8"}, "tokens=online stores none"),
        ({"storage.tokens": "tokens"}, "storage.tokens: expected an absolute folder or a URL as s3://bucket/tokens"),
        ({"storage.tokens": "file://tokens"}, "storage.tokens: expected an absolute folder or a URL"),
        ({"storage.tokens": "memory://tokens"}, "this is gone with the process (got 'memory://tokens')"),
        (
            {
                "encoder": {"kind": "precomputed", "grid": [1, 1], "dim": 4, "provenance": "x"},
                "data.token_format": "int8",
            },
            "data.token_format is of the token store",
        ),
        ({"train.accumulation": 33}, "train.accumulation (33) must be at most the 32 clips of a worker"),
        (
            {"train.accumulation": 17, "resources.num_workers": 2},
            "train.accumulation (17) must be at most the 16 clips of a worker",
        ),
        (
            {"model.variant": "align", "model.alignment": {"kind": "infonce"}, "train.accumulation": 2},
            "model.alignment.kind=infonce needs train.accumulation=1",
        ),
        (
            {"model.variance.kind": "hinge", "train.accumulation": 2},
            "model.variance.kind=hinge needs train.accumulation=1",
        ),
        ({"train.precision": "bf8"}, "train.precision: input should be 'fp32', 'bf16' or 'fp16' (got 'bf8')"),
        ({"train.best_metric": "train/loss"}, "train.best_metric"),
        (
            {"train.optimizer.schedule": {"kind": "linear", "warmup": 0.5, "over": 0.4}},
            "warmup (0.5) must be at most over",
        ),
        ({"train.ema_decay": 1.0}, "ema_decay must be below 1"),
        (
            {"encoder": {"kind": "tiny", "pretrained": "none", "image_size": 85}},
            "image_size (85) must be a multiple of patch_size (14)",
        ),
    ],
)
def test_bad_input_gets_one_line(tree, words):
    assert words in refusal(tree)


@pytest.mark.parametrize("url", ["/tokens", "file:///tokens", "s3://bucket/tokens", "simplecache::s3://bucket/tokens"])
def test_tokens_are_kept_where_all_find_them(url):
    assert resolve([Layer("given", {"storage.tokens": url})]).storage.tokens == url


def test_the_tag_of_a_union_is_no_part_of_a_path():
    message = refusal({"plan.planner": {"kind": "gradient", "lr": -1.0}})
    assert message == "plan.planner.lr: input should be greater than 0 (got -1.0)"


def test_several_faults_get_a_line_each():
    with pytest.raises(UserError) as raised:
        resolved({"train": {"epochs": 0, "batch_size": "x"}})
    assert [line.split(":")[0] for line in str(raised.value).splitlines()] == ["train.batch_size", "train.epochs"]


# -- saved configs ----


@pytest.mark.parametrize("variant", variant_names())
def test_a_saved_config_is_the_same_config(variant):
    config = resolved({"model.variant": variant, "data.sources.w.path": "x", "model.proprio": "none"})
    assert ExperimentConfig.model_validate_json(config.model_dump_json()) == config
    assert with_overrides(config, {}) == config
    # A new kind has its own defaults; what was chosen for the old one survives where the new one has it.
    assert with_overrides(config, {"plan.planner.kind": "mppi"}).plan.planner == MppiConfig()
    longer = with_overrides(config, {"plan.planner.horizon": 7})
    assert with_overrides(longer, {"plan.planner": "mppi"}).plan.planner == MppiConfig(horizon=7)
