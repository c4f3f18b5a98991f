"""Latent metrics where the answer is known: a model that copies, one that is perfect, latents of known rank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.wm.data.samples import same, trained
from wm.config.train import EvaluateConfig
from wm.evaluation import validation
from wm.evaluation.health import effective_rank, latent_health
from wm.evaluation.latent import imagine, rollout_errors
from wm.evaluation.probe import StateProbe
from wm.evaluation.quality import take
from wm.evaluation.retrieval import FrameBank, imagined_strip
from wm.evaluation.validation import Validator
from wm.training.reporter import NullReporter
from wm.types import Batch, Observation

Step = Callable[[Tensor, Tensor], Tensor]


class Toy(nn.Module):
    """Content is the tokens times `scale`; `step(content, actions)` advances it. The last channel is not visual."""

    def __init__(self, step: Step, scale: float = 1.0, history_len: int = 2) -> None:
        super().__init__()
        self.step = step
        self.history_len = history_len
        self.scale = nn.Parameter(torch.tensor(scale))
        self.modes: list[bool] = []
        self.is_aligned = False

    def encode_content(self, obs: Observation) -> Tensor:
        self.modes.append(self.training)
        return obs.visual * self.scale

    def rollout(self, context: Tensor, actions: Tensor, has_actions: Tensor | None = None) -> Tensor:
        frames, content = [], context[:, -1]
        for time in range(context.shape[1] - 1, actions.shape[1]):
            content = self.scale * self.step(content / self.scale, actions[:, time])
            frames.append(content)
        return torch.stack(frames, dim=1)

    def visual(self, content: Tensor) -> Tensor:
        return content[..., :3]

    def aligned(self, content: Tensor) -> Tensor:
        return content[..., :2].mean(dim=2)


def copy(content: Tensor, action: Tensor) -> Tensor:
    return content


def move(content: Tensor, action: Tensor) -> Tensor:
    """The truth of `clips`: every patch moves by the action; the channel that is not visual is never predicted."""
    return content + torch.cat([action, torch.ones(len(action), 1)], dim=-1)[:, None]


def clips(num_clips: int = 5, frames: int = 6, seed: int = 0) -> Batch:
    """Latents that move by their actions; the state is a linear map of them."""
    generator = torch.Generator().manual_seed(seed)
    actions = torch.randn(num_clips, frames, 3, generator=generator)
    start = torch.randn(num_clips, 1, 1, 3, generator=generator) + torch.randn(1, 1, 4, 3, generator=generator)
    steps = torch.cat([torch.zeros(num_clips, 1, 3), actions[:, :-1]], dim=1).cumsum(dim=1)
    visual = start + steps[:, :, None]
    tokens = torch.cat([visual, torch.zeros(num_clips, frames, 4, 1)], dim=-1)
    mixing = torch.tensor([[1.0, -2.0], [0.5, 1.0], [3.0, 0.0]])
    present = torch.ones(num_clips, dtype=torch.bool)
    state = visual.mean(dim=2) @ mixing
    return Batch(Observation(tokens), actions, present, state, present, torch.ones(num_clips))


def as_model(toy: Toy) -> Any:
    return toy


def test_copying_scores_exactly_one() -> None:
    batch = clips()
    metrics = rollout_errors(as_model(Toy(copy)), batch, (1, 2, 4))
    assert [metrics[f"copy_ratio_h{h}"] for h in (1, 2, 4)] == [1, 1, 1]
    for h in (1, 2, 4):
        moved = batch.actions[:, 1 : 1 + h].sum(dim=1)  # from the last of the two context frames on
        assert metrics[f"z_visual_err_rollout_h{h}"] == pytest.approx(float(moved.square().mean()), rel=1e-5)


def test_a_perfect_model_scores_zero() -> None:
    metrics = rollout_errors(as_model(Toy(move)), clips(), (1, 2, 4))
    assert metrics == {key: pytest.approx(0, abs=1e-10) for key in metrics}
    assert len(metrics) == 6


def test_half_the_way_is_a_quarter_of_the_error() -> None:
    half: Step = lambda content, action: move(content, action / 2)  # noqa: E731
    metrics = rollout_errors(as_model(Toy(half)), clips(), (1, 3))
    assert metrics["copy_ratio_h1"] == pytest.approx(0.25, rel=1e-5)
    assert metrics["copy_ratio_h3"] == pytest.approx(0.25, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 7.0])
def test_ratio_and_probe_do_not_feel_the_scale(scale: float) -> None:
    def worse(content: Tensor, action: Tensor) -> Tensor:
        return move(content, action * torch.tensor([0.5, 1.5, 0.9]))

    config = EvaluateConfig(horizons=(1, 4))
    plain, scaled = (
        Validator(config, clips(40), clips(60, seed=1)).metrics(as_model(Toy(worse, s))) for s in (1.0, scale)
    )
    assert scaled["val/z_visual_err_rollout_h4"] == pytest.approx(
        scale**2 * plain["val/z_visual_err_rollout_h4"], rel=1e-4
    )
    for key in plain:
        if "copy_ratio" in key or "r2" in key or "rank" in key:
            assert scaled[key] == pytest.approx(plain[key], rel=1e-4, abs=1e-6), key


def test_context_frames_are_not_predicted_from_the_future() -> None:
    """Only the context's frames and the actions reach the rollout."""
    batch = clips()
    changed = replace(batch, obs=Observation(batch.obs.visual.clone()))
    changed.obs.visual[:, 2:] += 5
    toy = as_model(Toy(move))
    assert torch.equal(imagine(toy, batch, 3)[1], imagine(toy, changed, 3)[1])


def test_short_clips_are_refused() -> None:
    with pytest.raises(ValueError, match="clips of 7 frames needed, got 6"):
        rollout_errors(as_model(Toy(copy)), clips(frames=6), (5,))


def test_effective_rank_of_known_latents() -> None:
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert effective_rank(signs) == pytest.approx(2, rel=1e-6)
    eye = torch.cat([torch.eye(5), -torch.eye(5)])
    assert effective_rank(eye + 3) == pytest.approx(5, rel=1e-6)  # the mean does not count
    one = torch.linspace(-1, 1, 10)[:, None] * torch.tensor([[1.0, 2.0, 3.0]])
    assert effective_rank(one) == pytest.approx(1, abs=1e-4)
    assert effective_rank(torch.full((10, 4), 0.3)) == 0
    shares = np.array([3, 1]) / 4  # singular values 3 : 1
    two = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert effective_rank(two) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-6)
    assert effective_rank(two * 1e-4) == pytest.approx(effective_rank(two), rel=1e-5)


def test_latent_health_by_hand() -> None:
    latents = torch.zeros(2, 2, 1, 2)
    latents[..., 0] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[..., None]
    health = latent_health(latents)
    assert health["latent_std"] == pytest.approx(np.std([1, 2, 3, 4], ddof=1) / 2)
    assert health["latent_std_min"] == 0
    assert health["effective_rank"] == pytest.approx(1)


def test_probe_reads_a_linear_state_and_nothing_from_noise() -> None:
    rng = np.random.default_rng(0)
    latents, mixing = rng.normal(size=(400, 5)), rng.normal(size=(5, 2))
    states = latents @ mixing + 3
    probe = StateProbe(latents[:300], states[:300])
    assert (probe.r2(latents[300:], states[300:]) > 0.9999).all()
    noise = rng.normal(size=(400, 2))
    assert (StateProbe(latents[:300], noise[:300]).r2(latents[300:], noise[300:]) < 0.05).all()
    tiny = StateProbe(1e-6 * latents[:300] + 100, states[:300])
    assert (tiny.r2(1e-6 * latents[300:] + 100, states[300:]) > 0.999).all()


def test_r2_is_sklearns() -> None:
    from sklearn.metrics import r2_score

    rng = np.random.default_rng(1)
    latents = rng.normal(size=(60, 4))
    states = latents[:, :2] + rng.normal(size=(60, 2))
    probe = StateProbe(latents[:40], states[:40])
    predicted = probe._ridge.predict(probe._standardize(latents[40:]))
    np.testing.assert_allclose(
        probe.r2(latents[40:], states[40:]), r2_score(states[40:], predicted, multioutput="raw_values")
    )


def test_an_entry_that_stands_still_has_no_part_in_the_mean() -> None:
    """Held-out rows of which the second entry hardly varies: any error there would be thousands of its variances."""
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(400, 5))
    states = latents[:, :2] + 0.1 * rng.normal(size=(400, 2))
    probe = StateProbe(latents[:300], states[:300])
    still = states[300:].copy()
    still[:, 1] = 1e-4 * states[300:, 1]
    both, one = probe.r2(latents[300:], states[300:]), probe.r2(latents[300:], still)
    assert np.isfinite(both).all()
    assert one[0] == both[0] > 0.9
    assert np.isnan(one[1])
    assert validation._mean("r2", one) == {"r2": one[0]}
    assert validation._mean("r2", one[1:]) == {}


def test_validator_on_a_perfect_and_on_a_copying_model() -> None:
    validator = Validator(EvaluateConfig(horizons=(1, 4)), clips(40), clips(60, seed=1))
    perfect = validator.metrics(as_model(Toy(move)))
    by_horizon = ("z_visual_err_rollout", "copy_ratio", "state_probe_rollout_r2")
    names = [f"{name}_h{horizon}" for name in by_horizon for horizon in (1, 4)]
    names += ["latent_std", "latent_std_min", "effective_rank", "state_probe_r2"]
    assert set(perfect) == {f"val/{name}" for name in names}
    for key in ("state_probe_r2", "state_probe_rollout_r2_h1", "state_probe_rollout_r2_h4"):
        assert perfect[f"val/{key}"] == pytest.approx(1, abs=1e-4)
    assert perfect["val/copy_ratio_h4"] == pytest.approx(0, abs=1e-9)
    copied = validator.metrics(as_model(Toy(copy)))
    assert copied["val/copy_ratio_h1"] == pytest.approx(1)
    assert copied["val/state_probe_rollout_r2_h4"] < copied["val/state_probe_rollout_r2_h1"] < 0.95
    assert copied["val/state_probe_r2"] == perfect["val/state_probe_r2"]


def test_a_model_without_any_error_gives_numbers() -> None:
    """Exactly 0, which once became 0 / 0."""
    still = clips()
    still = replace(still, actions=torch.zeros_like(still.actions), obs=Observation(torch.ones_like(still.obs.visual)))
    metrics = Validator(EvaluateConfig(horizons=(1,)), still, clips()).metrics(as_model(Toy(copy)))
    assert metrics["val/copy_ratio_h1"] == 0


def test_aligned_probe_reads_the_aligned_channels() -> None:
    toy = Toy(move)
    toy.is_aligned = True
    metrics = Validator(EvaluateConfig(horizons=(1,)), clips(40), clips(60, seed=1)).metrics(as_model(toy))
    assert metrics["val/state_probe_r2"] > 0.999 > metrics["val/aligned_probe_r2"]


def test_without_states_there_is_no_probe() -> None:
    batch, none = clips(), torch.zeros(5, dtype=torch.bool)
    for hidden in (replace(batch, state=None, has_state=none), replace(batch, has_state=none)):
        for held_out, probe in ((hidden, batch), (batch, hidden)):
            metrics = Validator(EvaluateConfig(horizons=(1,)), held_out, probe).metrics(as_model(Toy(move)))
            assert not any("r2" in name for name in metrics)


def test_probes_are_of_the_clips_that_have_the_state() -> None:
    held_out, probe = clips(8), clips(40, seed=1)
    keep = [torch.arange(len(batch.has_state)) % 3 > 0 for batch in (held_out, probe)]
    some = [
        replace(batch, has_state=rows, state=torch.where(rows[:, None, None], batch.state, 1e6))  # type: ignore[arg-type]
        for batch, rows in zip((held_out, probe), keep, strict=True)
    ]
    config = EvaluateConfig(horizons=(1, 3))
    found = Validator(config, *some).metrics(as_model(Toy(copy)))
    alone = Validator(config, take(held_out, keep[0]), take(probe, keep[1])).metrics(as_model(Toy(copy)))
    names = [name for name in found if "r2" in name]
    assert len(names) == 3
    assert {name: found[name] for name in names} == pytest.approx({name: alone[name] for name in names}, rel=1e-5)


def test_clips_with_and_without_actions_have_errors_of_their_own() -> None:
    batch = clips(9)
    rows = torch.arange(9) % 3 > 0
    config = EvaluateConfig(horizons=(1, 3))
    found = Validator(config, replace(batch, has_actions=rows), clips(5)).metrics(as_model(Toy(copy)))
    for kind, its in (("labelled", rows), ("unlabelled", ~rows)):
        alone = rollout_errors(as_model(Toy(copy)), take(batch, its), (1, 3))
        assert {name: found[f"val/{kind}/{name}"] for name in alone} == pytest.approx(alone)
    whole = Validator(config, batch, clips(5)).metrics(as_model(Toy(copy)))
    assert {name: found[name] for name in whole} == pytest.approx(whole)
    assert not any("labelled" in name for name in whole)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_restored_and_nothing_is_kept(training: bool) -> None:
    toy = Toy(move).train(training)
    before = torch.get_rng_state()
    Validator(EvaluateConfig(horizons=(1,)), clips(), clips()).metrics(as_model(toy))
    assert toy.training is training
    assert not any(toy.modes)
    assert toy.scale.grad is None
    assert torch.equal(torch.get_rng_state(), before)

    def broken(content: Tensor, action: Tensor) -> Tensor:
        raise RuntimeError("broken")

    toy.step = broken
    with pytest.raises(RuntimeError, match="broken"):
        Validator(EvaluateConfig(horizons=(1,)), clips(), clips()).metrics(as_model(toy))
    assert toy.training is training


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    half: Step = lambda content, action: content + torch.cat([action**2, action[:, :1]], -1)[:, None]  # noqa: E731
    validator = Validator(EvaluateConfig(horizons=(1, 3)), clips(7), clips(9, seed=1))
    whole = validator.metrics(as_model(Toy(half)))
    direct = rollout_errors(as_model(Toy(half)), clips(7), (1, 3))
    monkeypatch.setattr(validation, "_CLIPS_AT_ONCE", 3)
    assert validator.metrics(as_model(Toy(half))) == {key: pytest.approx(v, rel=1e-4) for key, v in whole.items()}
    assert all(whole[f"val/{key}"] == pytest.approx(value, rel=1e-6) for key, value in direct.items())


def test_clips_go_to_where_the_model_is(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[torch.device] = []
    to = Batch.to

    def watched(self: Batch, device: torch.device) -> Batch:
        moved.append(device)
        return to(self, device)

    monkeypatch.setattr(Batch, "to", watched)
    toy = Toy(move)
    Validator(EvaluateConfig(horizons=(1,)), clips(), clips()).metrics(as_model(toy))
    assert len(moved) == 4  # errors, content, probe, imagined
    assert set(moved) == {toy.scale.device}


def test_a_real_models_metrics_are_repeatable() -> None:
    run = trained("align_recon")
    model = run.training(NullReporter(), run.local_batches, keep_checkpoints=False).model
    first, second = run.validator().metrics(model), run.validator().metrics(model)
    assert same(first, second)
    assert "val/aligned_probe_r2" in first
    assert all(np.isfinite(value) for value in first.values())


def test_strip_of_imagined_frames() -> None:
    """The bank is the clip itself, and the model is perfect: the nearest frames are the true ones."""
    run = trained("align")
    dataset = run.dataset
    (clip,) = dataset.held_out_clips(5).spread(1, seed=0)
    batch = run.batch([clip])
    toy = Toy(copy, history_len=2)
    toy.visual = lambda content: content  # type: ignore[method-assign]
    truth = batch.obs.visual
    toy.rollout = lambda context, actions, has_actions=None: truth[:, 2:]  # type: ignore[method-assign]
    toy.encode_content = lambda obs: obs.visual  # type: ignore[method-assign]
    own = FrameBank(as_model(toy), dataset, [clip], batch)
    rows = imagined_strip(as_model(toy), dataset, clip, batch, own)
    true, imagined = rows.values()
    assert true.shape == imagined.shape == (5, 28, 28, 3)
    assert true.dtype == imagined.dtype == np.uint8
    np.testing.assert_array_equal(true, dataset.sources["wall"].episode(clip.episode).frames(clip.frame_indices))
    np.testing.assert_array_equal(true, imagined)
    bank = dataset.train_clips(2)[""].spread(4, seed=0)
    others = FrameBank(as_model(toy), dataset, bank, run.batch(bank))
    other = list(imagined_strip(as_model(toy), dataset, clip, batch, others).values())[1]
    np.testing.assert_array_equal(other[:2], true[:2])
    known = [frame for ref in bank for frame in dataset.sources["wall"].episode(ref.episode).frames(ref.frame_indices)]
    assert all(any(np.array_equal(frame, candidate) for candidate in known) for frame in other[2:])
