"""Units at the door: raw frames, proprio and actions on one side, normalised tensors on the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.wm.data.samples import STEPS, trained, user_error, wall_source
from wm.build import load
from wm.data.clip_reader import to_batch
from wm.loaded import LoadedModel
from wm.types import ClipRef, Observation


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load(trained("align_recon").folder.path)


def test_actions_survive_both_ways(model: LoadedModel) -> None:
    raw = np.random.default_rng(0).normal(size=(15, 2))
    normal = model.model_actions(raw)
    assert normal.shape == (3, 10)
    back = model.env_actions(normal)
    assert back.dtype == np.float64
    np.testing.assert_allclose(back, raw, atol=1e-6)
    action = model.statistics.action
    assert action is not None
    np.testing.assert_allclose(normal[1, 2:4], (raw[6] - action.mean) / action.std, rtol=1e-5)  # step-major


def test_actions_and_observations_are_those_of_training(model: LoadedModel) -> None:
    """What the planner is given has the very numbers that the reader made for training."""
    run, episode = trained("align_recon"), wall_source().episode(0)
    batch = to_batch(run.dataset.reader.read([ClipRef("wall", 0, 5, 5, 2)]))
    assert episode.actions is not None
    assert episode.proprio is not None
    torch.testing.assert_close(model.model_actions(episode.actions[5:15]), batch.actions[0], rtol=0, atol=0)
    seen = model.observe(episode.frames([5])[0], episode.proprio[5])
    assert seen.visual.dtype == torch.uint8
    torch.testing.assert_close(seen.visual, batch.obs.visual[:, :1])
    assert batch.obs.proprio is not None
    torch.testing.assert_close(seen.proprio, batch.obs.proprio[:, :1], rtol=0, atol=0)


def test_encode_and_rollout(model: LoadedModel) -> None:
    run = trained("align_recon")
    batch = run.batch([ClipRef("wall", 0, 0, 5, 4), ClipRef("wall", 1, 3, 5, 4)])
    z = model.encode(batch.obs, batch.actions)
    content = model.dynamics.encode(batch.obs)
    assert z.shape[:3] == content.shape[:3] == (2, 4, 4)
    torch.testing.assert_close(z[..., : content.shape[-1]], content)
    torch.testing.assert_close(z, model.model.encode(batch.obs, batch.actions))
    imagined = model.rollout(batch.obs.slice(slice(0, 2)), batch.actions[:, :3])
    torch.testing.assert_close(imagined, model.model.rollout(content[:, :2], batch.actions[:, :3]))
    assert imagined.shape == (2, 2, *content.shape[2:])
    assert not z.requires_grad
    assert not imagined.requires_grad


def test_pixels_and_their_tokens_are_one(model: LoadedModel) -> None:
    frames = torch.from_numpy(wall_source().episode(0).frames([0, 5]))[None]
    actions = torch.zeros(1, 2, 10)
    tokens = Observation(model.encoder.encode(frames))
    torch.testing.assert_close(model.encode(Observation(frames), actions), model.encode(tokens, actions))


def test_proprio_is_dropped_where_the_model_has_none(model: LoadedModel) -> None:
    frame = wall_source().episode(0).frames([0])[0]
    no_proprio = replace(model, config=_without_proprio(model))
    assert no_proprio.observe(frame, np.zeros(2)).proprio is None
    assert model.observe(frame, None).proprio is None
    assert model.observe(frame, np.zeros(2)).proprio is not None


def _without_proprio(model: LoadedModel):
    from wm.config.model import NoProprio

    return model.config.model_copy(update={"model": model.config.model.model_copy(update={"proprio": NoProprio()})})


def test_a_model_without_actions_cannot_plan(model: LoadedModel) -> None:
    unlabelled = replace(model, statistics=replace(model.statistics, action=None))
    assert "without actions" in user_error(lambda: unlabelled.env_actions(torch.zeros(1, 10)))
    assert "without actions" in user_error(lambda: unlabelled.model_actions(np.zeros((5, 2))))


def test_frameskip_is_the_configs(model: LoadedModel) -> None:
    assert model.frameskip == 5
    assert model.frameskip < STEPS
