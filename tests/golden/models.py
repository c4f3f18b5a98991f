"""Our world model with the reference's weights, against the reference's latents, losses and gradients."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tests.golden.case import Golden, assert_golden, assert_golden_gradient
from wm.config.model import ActionConfig, DinoWmConfig, EmbeddedProprio, PredictorConfig
from wm.models.embedding import VectorEmbedding
from wm.models.predictor import CausalPredictor, frame_causal_mask
from wm.models.world_model import WorldModel
from wm.types import Batch, Observation

Attention = Literal["plain", "fused"]

# The reference's names of what ours calls otherwise; `predictor.*` is the same in both. Its embeddings are
# convolutions of width 1, ours are Linear.
OUR_NAME = {
    "proprio_encoder.patch_embed.weight": "proprio_embedding.linear.weight",
    "proprio_encoder.patch_embed.bias": "proprio_embedding.linear.bias",
    "action_encoder.patch_embed.weight": "action_embedding.linear.weight",
    "action_encoder.patch_embed.bias": "action_embedding.linear.bias",
}
OURS_ALONE = {"proprio_embedding.null", "action_embedding.null"}  # the reference has no rows without labels


def our_weights(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The reference's parameters under our names and in our shapes."""
    return {
        OUR_NAME.get(name, name): value.squeeze(-1) if ".patch_embed.weight" in name else value
        for name, value in theirs.items()
    }


def predictor_config(case: Golden, attention: Attention) -> PredictorConfig:
    return PredictorConfig(
        depth=case.size("depth"),
        heads=case.size("heads"),
        head_dim=case.size("dim_head"),
        mlp_dim=case.size("mlp_dim"),
        dropout=0.0,
        attention=attention,
    )


def build_predictor(case: Golden, attention: Attention = "plain") -> CausalPredictor:
    """The bare predictor of a `predictor_*` case."""
    frames, patches = case.size("num_frames"), case.size("num_patches")
    predictor = CausalPredictor(case.size("dim"), patches, frames, predictor_config(case, attention))
    predictor.load_state_dict(case.under("w/"))
    return predictor


def build_world_model(case: Golden, attention: Attention = "plain") -> WorldModel:
    """The whole world model of a case; a weight too many or too few is an error."""
    config = DinoWmConfig(
        history_len=case.size("num_hist"),
        concat="channel" if case.size("concat_dim") == 1 else "token",
        proprio=EmbeddedProprio(dim=case.size("proprio_emb_dim"), repeat=case.size("num_proprio_repeat")),
        action=ActionConfig(dim=case.size("action_emb_dim"), repeat=case.size("num_action_repeat")),
        predictor=predictor_config(case, attention),
    )
    model = WorldModel(
        config,
        token_dim=case.size("encoder_dim"),
        tokens_per_frame=case.size("num_patches"),
        action_dim=case.size("action_in"),
        proprio_dim=case.size("proprio_in"),
    )
    missing, unexpected = model.load_state_dict(our_weights(case.under("w/")), strict=False)
    lacking = [name for name in missing if name not in OURS_ALONE and not _unused(name, case)]
    assert (lacking, unexpected) == ([], [])
    return model


def _unused(name: str, case: Golden) -> bool:
    """The encode cases hold no predictor."""
    return name.startswith("predictor.") and "w/predictor.pos_embedding" not in case.arrays


def observation(case: Golden) -> Observation:
    return Observation(case["in/visual_tokens"], case["in/proprio"])


def batch_of(case: Golden) -> Batch:
    """The case's clips, every one of them labelled and of weight 1, with a gradient to the visual tokens."""
    clips = len(case["in/action"])
    every, none = torch.ones(clips, dtype=torch.bool), torch.zeros(clips, dtype=torch.bool)
    obs = Observation(case["in/visual_tokens"].requires_grad_(), case["in/proprio"])
    return Batch(obs, case["in/action"], every, None, none, torch.ones(clips))


def check_predictor(case: Golden) -> None:
    for attention in ("plain", "fused"):
        check_predictor_with(case, attention)


@torch.no_grad()
def check_predictor_with(case: Golden, attention: Attention) -> None:
    predictor = build_predictor(case, attention)
    patches = case.size("num_patches")

    def predict(tokens: Tensor) -> Tensor:
        return predictor(tokens.unflatten(1, (-1, patches))).flatten(1, 2)

    assert torch.equal(frame_causal_mask(case.size("num_frames"), patches), case["out/mask"] == 1)
    assert_golden(predict(case["in/x"]), case["out/y"])
    for frames in range(1, case.size("num_frames")):
        assert_golden(predict(case["in/x"][:, : frames * patches]), case[f"out/y_first{frames}"])


@torch.no_grad()
def check_embed(case: Golden) -> None:
    for kind in ("proprio", "action"):
        embedding = VectorEmbedding(case.size(f"{kind}_in"), case.size(f"{kind}_emb_dim"))
        prefix = f"{kind}_embedding."
        weights = our_weights(case.under("w/"))
        embedding.load_state_dict(
            {**{k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}, "null": embedding.null}
        )
        assert_golden(embedding(case[f"in/{kind}"]), case[f"out/{kind}_emb"])


@torch.no_grad()
def check_encode(case: Golden) -> None:
    model = build_world_model(case)
    content = model.encode_content(observation(case))
    latent = model.encode(observation(case), case["in/action"])
    assert_golden(latent, case["out/z"])
    assert torch.equal(model.visual(latent), case["in/visual_tokens"])
    assert torch.equal(model.visual(latent), case["out/sep_visual"])
    assert_golden(first_proprio(model, content), case["out/sep_proprio"])
    assert_golden(first_action(model, latent), case["out/sep_action"])
    assert_golden(model.with_actions(content, case["in/new_action"]), case["out/z_replaced"])


def first_proprio(model: WorldModel, content: Tensor) -> Tensor:
    """(B, T, E): from the first patch and its first copy, as the reference reads it."""
    proprio = model.proprio(content)
    assert proprio is not None
    assert model.proprio_embedding is not None
    return proprio[:, :, 0, : model.proprio_embedding.dim]


def first_action(model: WorldModel, latent: Tensor) -> Tensor:
    """(B, T, E) of the action, likewise."""
    if model.config.concat == "token":
        return latent[:, :, -1]
    return latent[:, :, 0, model.content_dim : model.content_dim + model.action_embedding.dim]


def content_of(model: WorldModel, latent: Tensor) -> Tensor:
    """The latent without its action."""
    return latent[:, :, : model.tokens_per_frame + model.vector_tokens, : model.content_dim]


def check_loss(case: Golden) -> None:
    for attention in ("plain", "fused"):
        check_loss_with(case, attention)


def check_loss_with(case: Golden, attention: Attention) -> None:
    """Losses and the gradient of every parameter and of the visual tokens."""
    model = build_world_model(case, attention)
    batch = batch_of(case)
    history = model.history_len
    latent = model.encode(batch.obs, batch.actions)
    assert_golden(model.predictor(latent[:, :history]).detach(), case["out/z_pred"])

    terms = model.losses(batch)
    assert_golden(terms.total.detach(), case["out/loss/loss"])
    assert_golden(terms.parts["z_loss"], case["out/loss/z_loss"])
    assert_golden(terms.parts["z_visual_loss"], case["out/loss/z_visual_loss"])
    assert_golden(terms.parts["z_proprio_loss"], case["out/loss/z_proprio_loss"])

    terms.total.backward()
    checked = check_gradients(case, dict(model.named_parameters()), batch)
    assert {"predictor.pos_embedding", "action_embedding.linear.weight"} <= checked
    assert batch.obs.visual.grad is not None
    assert not batch.obs.visual.grad[:, -1].any()


def check_gradients(case: Golden, parameters: dict[str, Tensor], batch: Batch) -> set[str]:
    """Every recorded gradient, of parameters by our names and of the visual tokens; returns the names."""
    references = our_weights(case.under("out/grad/"))
    for name, reference in references.items():
        gradient = parameters[name].grad
        assert gradient is not None, name
        assert_golden_gradient(gradient, reference)
    assert batch.obs.visual.grad is not None
    assert_golden_gradient(batch.obs.visual.grad, case["out/grad_visual_tokens"])
    return set(references)


@torch.no_grad()
def check_rollout(case: Golden) -> None:
    """From each number of observed frames: every latent, with its action where one is left."""
    model = build_world_model(case)
    actions = case["in/action"]
    for given in sorted(int(key.removeprefix("z_n")) for key in case.under("out/") if key.startswith("z_n")):
        reference = case[f"out/z_n{given}"]
        context = model.encode_content(observation(case).slice(slice(given)))
        future = model.rollout(context, actions)
        assert future.shape[1] == actions.shape[1] - given + 1
        content = torch.cat([context, future], dim=1)
        assert_golden(content, content_of(model, reference), 5e-6)
        assert_golden(model.with_actions(content[:, :-1], actions), reference[:, :-1], 5e-6)
        assert_golden(first_proprio(model, content), case[f"out/proprio_n{given}"], 5e-6)
