"""What the model imagined while it planned, beside what was executed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wm.evaluation.outcomes import PlanOutcome
from wm.loaded import LoadedModel


@torch.no_grad()
def imagined_latents(
    model: LoadedModel, outcome: PlanOutcome, frames: np.ndarray, proprio: Sequence[np.ndarray | None]
) -> tuple[Tensor, list[int]]:
    """Latents of the frames that each plan promised, as far as it was executed.

    Args:
        frames, proprio: seen at every env step, (T, H, W, 3) and T vectors: what each plan started from is among them.

    Returns:
        latents (K, P, C) and the env step that each of them is about.
    """
    latents: list[Tensor] = []
    steps: list[int] = []
    here, last = 0, len(frames) - 1
    # All plans but the last were executed up to where the next began; each has the same number of executed steps.
    executed = last // len(outcome.plans)
    for plan in outcome.plans:
        actions = model.model_actions(np.asarray(plan))
        context = model.dynamics.encode(model.observe(frames[here], proprio[here]))
        promised = model.dynamics.rollout(context, actions[None].to(context.device))[0]
        count = executed // model.frameskip
        latents.append(promised[:count])
        steps += [here + (number + 1) * model.frameskip for number in range(count)]
        here += executed
    return torch.cat(latents), steps


def held(pictures: np.ndarray, steps: Sequence[int], first: np.ndarray, length: int) -> np.ndarray:
    """Pictures (K, H, W, 3) about some env steps as a film of `length` frames: each stays until the next."""
    film = [first]
    places = dict(zip(steps, pictures, strict=True))
    for step in range(1, length):
        film.append(places.get(step, film[-1]))
    return np.stack(film)
