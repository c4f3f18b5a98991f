"""A student network and its teacher: the student's own average, which sees everything."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from wm.config.pretrain import SelfDistillationConfig
from wm.config.schedule import value_at
from wm.losses.distillation import (
    balanced_targets,
    distillation_loss,
    identification_loss,
    motion_loss,
    near_in_time,
    spread_loss,
)
from wm.losses.ranks import ALONE, Alone, weighted_mean
from wm.models.trainable import Trainable
from wm.pretraining.heads import PrototypeHead
from wm.pretraining.views import View, Views
from wm.types import Batch, LossTerms


class Features(NamedTuple):
    """Of N frames, after the final norm: `image` is CLS and the mean patch side by side."""

    image: Float[Tensor, "N 2*D"]
    patches: Float[Tensor, "N P D"]


class _Branch(nn.Module):
    """A network and its two heads."""

    def __init__(self, network: Any, config: SelfDistillationConfig) -> None:
        super().__init__()
        dim = network.config.hidden_size
        self.network = network
        self.image_head = PrototypeHead(2 * dim, config.head_hidden, config.head_dim, config.prototypes)
        self.patch_head = PrototypeHead(dim, config.head_hidden, config.head_dim, config.prototypes)

    def features(self, view: View, hide: bool) -> Features:
        hidden = view.hidden.flatten(0, 1) if hide else None
        found = self.network(pixel_values=view.pictures.flatten(0, 1), bool_masked_pos=hidden).last_hidden_state
        patches = found[:, 1:]
        return Features(torch.cat([found[:, 0], patches.mean(dim=1)], dim=-1), patches)


class SelfDistillation(Trainable):
    """Image-level and patch-level self-distillation on clips.

    For two views a, b of each frame, with teacher targets p and student logits s:

        image    = CE(p(a), s(b)) + CE(p(b), s(a)), halved; p balanced over the batch
        identity = CE of naming a frame's other view among all frames by the distance of their patch tokens; frames near it
                   in time count in part
        patch    = CE(p(a)_i, s(a)_i) over the hidden patches i of both views; p balanced over them
        motion   = share of what moves in a clip that a linear layer of the student's seen patch tokens does not restore;
                   only with motion_weight > 0
        spread   = KoLeo of the student's image features

    Source: DINO (Caron et al. 2021), iBOT (Zhou et al. 2022), DINOv2 (Oquab et al. 2023).
    Differences: docs/encoder.md lists them; the losses `identity` and `motion` and one draw of a view for a clip are additions.
    """

    def __init__(self, network: Any, config: SelfDistillationConfig, views: Views) -> None:
        super().__init__()
        self.config = config
        self._views = views
        self.log_scale = nn.Parameter(torch.tensor(math.log(config.identity_scale)))
        self.student = _Branch(network, config)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self._patch_size: int = network.config.patch_size
        # Drawn only where it is asked for: what is drawn after it would be other numbers.
        size = network.config.hidden_size, 3 * self._patch_size**2
        self.motion_head = nn.Linear(*size) if config.motion_weight > 0 else None

    @property
    def hot_part(self) -> nn.Module:
        return self.student.network

    def losses(self, batch: Batch, progress: float = 0.0, ranks: Alone = ALONE) -> LossTerms:
        """Of pixel clips (B, T, H, W, 3)."""
        frames = batch.obs.visual
        config, time = self.config, frames.shape[1]
        views = self._views.pair(frames)
        hidden = [view.hidden.flatten(0, 1) for view in views]
        temperature = value_at(config.teacher_temperature, progress)
        with torch.no_grad():
            taught = [self.teacher.features(view, hide=False) for view in views]
            logits = torch.cat([self.teacher.image_head(found.image) for found in taught])
            targets = balanced_targets(logits, temperature, ranks=ranks).chunk(2)
            named = [ranks.gather(found.patches.flatten(1)) for found in taught]
            seen = torch.cat([found.patches[where] for found, where in zip(taught, hidden, strict=True)])
            patch_targets = balanced_targets(self.teacher.patch_head(seen), temperature)  # ranks hide unlike numbers
        learnt = [self.student.features(view, hide=True) for view in views]
        image, identity, motion = [], [], []
        near = near_in_time(len(frames), time, config.identity_blur).to(frames.device)
        for found, view, target, (rows, first) in zip(learnt, views, reversed(targets), reversed(named), strict=True):
            said = self.student.image_head(found.image)
            image.append(distillation_loss(said, target, config.student_temperature))
            names = functional.pad(near, (first, len(rows) - first - len(near)))
            identity.append(identification_loss(found.patches.flatten(1), rows, names, self.log_scale.exp()))
            if self.motion_head is not None:
                motion.append(self._motion(self.motion_head, found, view))
        guessed = torch.cat([found.patches[where] for found, where in zip(learnt, hidden, strict=True)])
        patch = distillation_loss(self.student.patch_head(guessed), patch_targets, config.student_temperature)
        weights = batch.weights.repeat_interleave(time)
        hidden_weights = torch.cat([weights[:, None].expand_as(where)[where] for where in hidden])
        parts = {
            "image": weighted_mean(torch.cat(image), weights.repeat(2), ranks),
            "identity": weighted_mean(torch.cat(identity), weights.repeat(2), ranks),
            "patch": weighted_mean(patch, hidden_weights, ranks),
            "spread": torch.stack([spread_loss(found.image) for found in learnt]).mean(),
        }
        if motion:
            parts["motion"] = weighted_mean(torch.cat(motion), batch.weights.repeat(2), ranks)
        weighted = {name: getattr(config, f"{name}_weight") * value for name, value in parts.items()}
        return LossTerms(weighted, {name: value.detach() for name, value in parts.items()})

    def _motion(self, head: nn.Module, found: Features, view: View) -> Float[Tensor, "B"]:
        size, time = self._patch_size, view.plain.shape[1]
        pixels = rearrange(view.plain, "b t c (h p) (w q) -> b t (h w) (c p q)", p=size, q=size)
        said = head(found.patches).unflatten(0, (-1, time))
        return motion_loss(said, pixels, ~view.hidden)

    @torch.no_grad()
    def after_step(self, progress: float, parts: Mapping[str, Tensor], ranks: Alone = ALONE) -> None:
        """The teacher moves towards the student."""
        decay = value_at(self.config.teacher_decay, progress)
        for slow, fast in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            slow.lerp_(fast, 1 - decay)
