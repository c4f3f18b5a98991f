"""What a pass of the backbone over one new frame must compute and read: the floor under every rollout.

Shape legend: N tokens a frame, P patches, C channels, W width, H query heads, G key-value heads, d head dim, S frames seen.
"""

from __future__ import annotations

from typing import NamedTuple

from wm.config.backbone import BackboneConfig


class PassCost(NamedTuple):
    """One pass over a new frame of each sample.

    Args:
        flops: of matrix products, two for a multiply-add.
        weight_bytes: read once, whatever the samples.
        cache_bytes: keys and values of the frames before, of all samples; a shared prefix counts once.
    """

    flops: float
    weight_bytes: float
    cache_bytes: float


def pass_cost(
    config: BackboneConfig,
    channels: int,
    num_patches: int,
    *,
    num_weights: int,
    prefix: int,
    suffix: int = 0,
    num_samples: int = 1,
    number_bytes: int = 4,
) -> PassCost:
    """The cost of one pass.

    Args:
        num_weights: parameters of the backbone.
        prefix: earlier frames that all samples share.
        suffix: earlier frames of each sample's own.
        number_bytes: of a weight, a key and a value.
    """
    tokens = config.registers + num_patches + 2
    inner, shared = config.heads * config.head_dim, 2 * config.kv_heads * config.head_dim
    layer = tokens * config.width * (2 * (inner + shared) + 2 * inner + 6 * config.mlp_dim)
    ends = 2 * 2 * num_patches * channels * config.width
    space = 4 * tokens * tokens * inner
    time = 4 * tokens * (prefix + suffix + 1) * inner
    times = config.num_time_layers
    flops = config.depth * layer + ends + (config.depth - times) * space + times * time
    kept = times * tokens * shared * number_bytes
    return PassCost(
        float(num_samples * flops), float(num_weights * number_bytes), float(kept * (prefix + num_samples * suffix))
    )


def frame_floor_s(cost: PassCost, sampling_steps: int, peak_flops: float, peak_bandwidth: float) -> float:
    """Least seconds for a frame of every sample: K passes that each read everything, and the commit's work beside the first.

    max(work / peak, bytes / bandwidth) with (K + 1) frames computed in K passes.

    Args:
        peak_flops, peak_bandwidth: of the device, a second.
    """
    work_s = (sampling_steps + 1) * cost.flops / peak_flops
    read_s = sampling_steps * (cost.weight_bytes + cost.cache_bytes) / peak_bandwidth
    return max(work_s, read_s)
