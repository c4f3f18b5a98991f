"""The metrics of `wm eval`: each name once, with its formula. Names are the reference's where it has the metric.

z is the encoded and z^ the imagined latent (visual channels), H the context frames, z_0 the last of them, h model steps ahead; a
mean is over clips, patches and channels. `{h}`, `{state}` and `{where}` stand for a horizon, a state entry, and `reconstructed`
(decoded from encoded latents) or `pred_h{h}` (decoded from imagined ones).
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Metric(NamedTuple):
    """One row of the table.

    Args:
        better: which way is better, or none.
    """

    name: str
    formula: str
    better: Literal["lower", "higher", "-"]


def to_markdown() -> str:
    """The table as docs/metrics.md holds it."""
    lines = [
        "# Metrics of `wm eval`",
        "",
        *(__doc__ or "").strip().splitlines(),
        "",
        "| name | formula | better |",
        "|---|---|---|",
    ]
    lines += _rows(METRICS)
    lines += ["", "# Probes of an encoder", "", *PROBES_TEXT.strip().splitlines(), ""]
    lines += ["| name | formula | better |", "|---|---|---|", *_rows(PROBES)]
    return "\n".join(lines) + "\n"


def _rows(metrics: tuple[Metric, ...]) -> list[str]:
    return [f"| `{name}` | {formula.replace('|', chr(92) + '|')} | {better} |" for name, formula, better in metrics]


METRICS = (
    Metric("z_visual_err_rollout_h{h}", "mean (z^ - z)^2 after a rollout of h steps from H frames", "lower"),
    Metric("z_visual_err_rollout_1framestart_h{h}", "the same from the one frame z_0, to the same frame", "lower"),
    Metric("z_proprio_err_rollout_h{h}", "as z_visual_err_rollout, of the embedded proprio", "lower"),
    Metric("z_proprio_err_rollout_1framestart_h{h}", "the same from the one frame z_0", "lower"),
    Metric("z_visual_err_copy_h{h}", "mean (z_0 - z)^2: the error of copying the last context frame", "-"),
    Metric("copy_ratio_h{h}", "z_visual_err_rollout / z_visual_err_copy; 1 or more: nothing learnt", "lower"),
    Metric("copy_ratio_1framestart_h{h}", "z_visual_err_rollout_1framestart / z_visual_err_copy", "lower"),
    Metric(
        "action_sensitivity_h{h}",
        "z_visual_err_rollout under another clip's actions from z_0 on / under its own; near 1: actions are ignored",
        "higher",
    ),
    Metric(
        "null_action_err_h{h}", "z_visual_err_rollout under the learned null action, clips without actions", "lower"
    ),
    Metric(
        "copy_ratio_mean_h{h}", "copy_ratio of the mean z^ of S = 8 futures, of models that sample futures", "lower"
    ),
    Metric("spread_ratio_h{h}", "variance of z^ over the futures / z_visual_err_copy", "-"),
    Metric(
        "spread_skill_h{h}",
        "sqrt((1 + 1/S) variance over futures / error of their mean): 1 where the truth is as one more future, below: too sure",
        "-",
    ),
    Metric("latent_std", "std of each visual channel over clips, frames and patches, mean over channels", "-"),
    Metric("latent_std_min", "the smallest of them; 0: a dead channel", "-"),
    Metric("effective_rank", "exp(entropy of the normalised singular values of centred patch latents)", "higher"),
    Metric(
        "state_probe_r2/{state}",
        "1 - sum (s^ - s)^2 / sum (s - mean s)^2, s^ by ridge regression from z, fitted on training clips; not where s hardly varies",
        "higher",
    ),
    Metric("aligned_probe_r2/{state}", "the same from the patch mean of the aligned channels alone", "higher"),
    Metric("state_probe_rollout_r2_h{h}/{state}", "the probe of state_probe_r2 applied to z^ after h steps", "higher"),
    Metric("img_l1_{where}", "mean |decoded - frame|, pixels in [-1, 1]", "lower"),
    Metric("img_mse_{where}", "mean (decoded - frame)^2, pixels in [-1, 1]", "lower"),
    Metric("img_psnr_{where}", "-10 log10(img_mse): peak 1 on [-1, 1], as the reference has it", "higher"),
    Metric("img_ssim_{where}", "SSIM, 11 x 11 Gaussian of sigma 1.5, zeros outside, peak 1 on [-1, 1]", "higher"),
    Metric("img_psnr_unit_{where}", "the usual PSNR: pixels clamped and moved to [0, 1], peak 1", "higher"),
    Metric("img_ssim_unit_{where}", "the usual scale of SSIM: pixels clamped and moved to [0, 1], peak 1", "higher"),
    Metric("img_lpips_{where}", "LPIPS, where evaluate.perceptual names a backbone file", "lower"),
)

PROBES_TEXT = """
How good a frozen encoder's latents are for a world model (`wm.evaluation.encoder_probes`): `probe/SOURCE/NAME` of a source of
the data set, `probe/NAME` the mean over the sources that have it. z are all patch tokens of one picture, d(z, z') = mean (z -
z')^2 over patches and channels, which is planning's objective. Fitted on training episodes, tested on held-out ones;
`ProbesConfig` says on how many.

What is asked for (`wm.evaluation.state_targets`): the entries of the state that one picture can show and that vary. Velocities
are left out; angles are cos and sin, and no target for Push-T's shapes that a turn maps onto themselves; of particles the
cloud's mean, spread and correlation, since no picture tells which is which; of robosuite's objects the task's key points
instead of quaternions.

A world's distance is its own (`World.distance`), with the goal's velocities, in thousandths of the largest to the same goal, so
that what trembles is a tie. Of robosuite's tasks it is that of the objects: a hand on its way to a cube that lies still moves
the latent and not the distance, and no encoder comes near 1. Controls, with as many values a picture: `untrained` (the same
architecture), `pixels` (the picture made small), `patches` (a random projection of each patch).
"""

PROBES = (
    Metric(
        "state_r2",
        "1 - mean (s^ - s)^2 / var s, mean over targets; s^ by ridge regression from z, its penalty chosen per target on "
        "training episodes left out",
        "higher",
    ),
    Metric(
        "goal_rank",
        "Spearman's correlation of d(z, z_g) with the world's distance to the goal g, over the other frames of g's episode; mean "
        "over goals, then over episodes. Goals that every frame satisfies are left out",
        "higher",
    ),
    Metric("goal_rank_fresh", "the same over states that the world samples in a held-out episode's layout", "higher"),
    Metric(
        "time_neighbour",
        "share of an episode's pictures whose nearest other one by d is among the `time_window` before or after; pictures "
        "that are the same to the pixel are one",
        "higher",
    ),
    Metric("time_neighbour_chance", "the same for a picture drawn blindly", "-"),
    Metric(
        "shift_neighbour_{shift}",
        "share of states whose picture under the shift is nearest, by d, to the unshifted picture of the same state, among "
        "those of its episode",
        "higher",
    ),
    Metric("shift_neighbour", "the mean over shifts", "higher"),
    Metric("shift_neighbour_chance", "the same for a picture drawn blindly", "-"),
)
