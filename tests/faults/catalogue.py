"""The faults of earlier code (SCIENCE.md section 2), each as a change that puts it back, and the tests that must then fail."""

from __future__ import annotations

from typing import NamedTuple

MODELS = "tests/wm/models/test_world_model.py"


class Fault(NamedTuple):
    """One fault.

    Args:
        name: what it is.
        file: where it is put back; change: (text, replacement), each text exactly once there.
        tests: of which at least one must fail.
    """

    name: str
    file: str
    change: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]


FAULTS = (
    Fault(
        "W created inside forward(): in no optimiser, in no checkpoint",
        "wm/models/terms.py",
        (
            (
                "readout = model.alignment_head(model.aligned(latents))",
                "readout = torch.nn.Linear(model.aligned_dim, len(model.state_indices))(model.aligned(latents))",
            ),
        ),
        (f"{MODELS}::test_every_parameter_learns_and_is_in_one_optimiser_group",),
    ),
    Fault(
        "the projection is held by no optimiser",
        "wm/training/optimizer.py",
        (
            (
                '        part = name.split(".", 1)[0]\n',
                '        part = name.split(".", 1)[0]\n        if part == "projection":\n            continue\n',
            ),
        ),
        (f"{MODELS}::test_one_step_moves_projection_w_and_reconstruction",),
    ),
    Fault(
        "the projection is not in the checkpoint: a planner draws a new one",
        "wm/training/loop.py",
        (
            (
                "model=self.model.state_dict(),",
                'model={k: v for k, v in self.model.state_dict().items() if "projection" not in k},',
            ),
        ),
        ("tests/wm/test_build.py",),
    ),
    Fault(
        "the projection gets no gradient",
        "wm/models/world_model.py",
        (("        visual = self.projection(tokens)\n", "        visual = self.projection(tokens).detach()\n"),),
        (MODELS,),
    ),
    Fault(
        "one target frame for all predicted ones, broadcast",
        "wm/models/world_model.py",
        (
            (
                "predicted, target = self.predict(latent), content[:, 1 : history + 1]",
                "predicted, target = self.predict(latent), content[:, history : history + 1].expand(-1, history, -1, -1)",
            ),
        ),
        (f"{MODELS}::test_the_loss_is_the_prediction_of_every_next_frame",),
    ),
    Fault(
        "shapes that broadcast are not refused",
        "wm/losses/prediction.py",
        (("    if predicted.shape != target.shape:\n", "    if False:\n"),),
        ("tests/wm/losses/test_prediction.py",),
    ),
    Fault(
        "the dynamics loss is the alignment loss again",
        "wm/models/terms.py",
        (
            (
                "        value = temporal_dynamics_loss(model, forward)\n",
                "        value = alignment_loss(model, forward)\n",
            ),
        ),
        ("tests/wm/models/test_variants.py", MODELS),
    ),
    Fault(
        "the dynamics loss is (z_pred - z_src)^2: copying is rewarded",
        "wm/models/terms.py",
        (
            (
                "mean_latent_loss(model.visual(forward.predicted), model.visual(forward.target), weights, ranks)",
                "mean_latent_loss(model.visual(forward.predicted), model.visual(forward.content[:, :-1]), weights, ranks)",
            ),
        ),
        ("tests/wm/models/test_variants.py",),
    ),
    Fault(
        "gradient flows through the target: a learned projection collapses",
        "wm/losses/prediction.py",
        (("latent_errors(predicted, target.detach(), kind)", "latent_errors(predicted, target, kind)"),),
        (f"{MODELS}::test_no_gradient_through_the_target",),
    ),
    Fault(
        "normalisation with another data set's constants",
        "wm/data/normalization.py",
        (
            (
                "    std = np.maximum(rows.std(axis=0, ddof=1) + added_to_std, MIN_STD)\n",
                "    std = np.maximum(rows.std(axis=0, ddof=1) * 0 + 0.2019, MIN_STD)\n",
            ),
        ),
        ("tests/wm/data", "tests/golden"),
    ),
    Fault(
        "a resumed run starts with a new optimiser",
        "wm/training/loop.py",
        (("        self._optimizer.load_state_dict(checkpoint.optimizer)\n", ""),),
        ("tests/wm/training/test_loop.py",),
    ),
    Fault(
        "a resumed run starts with new action embeddings",
        "wm/training/loop.py",
        (
            (
                "        self.model.load_state_dict(checkpoint.model)\n",
                '        kept = {k: v for k, v in checkpoint.model.items() if "action" not in k}\n'
                "        self.model.load_state_dict(kept, strict=False)\n",
            ),
        ),
        ("tests/wm/training/test_loop.py",),
    ),
    Fault(
        "validation keeps the graph",
        "wm/evaluation/validation.py",
        (("    @torch.no_grad()\n    def metrics", "    def metrics"),),
        ("tests/wm/evaluation/test_latent.py",),
    ),
    Fault(
        "a later frame is seen by an earlier one",
        "wm/models/predictor.py",
        (("k[:, :, :end], v[:, :, :end]", "k, v"),),
        ("tests/wm/models/test_predictor.py",),
    ),
    Fault(
        "two seeds are called settled",
        "experiments/comparison.py",
        (("CLAIM_SEEDS, CLAIM_PROBLEMS = 3, 50", "CLAIM_SEEDS, CLAIM_PROBLEMS = 2, 10"),),
        ("tests/experiments/test_comparison.py",),
    ),
)
