"""Everything that is measured on held-out clips while a model trains."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from wm.config.train import EvaluateConfig
from wm.evaluation.health import latent_health
from wm.evaluation.latent import copy_ratio, imagine, squared_errors
from wm.evaluation.probe import StateProbe
from wm.evaluation.quality import take
from wm.models.latent_model import LatentModel
from wm.types import Batch

_CLIPS_AT_ONCE = 64


class Validator:
    """Latent metrics of a model, on the same clips every time.

    Args:
        held_out: clips of H + max(horizons) frames from held-out episodes.
        probe: clips from training episodes, any length: what the state probe is fitted on.
    """

    def __init__(self, config: EvaluateConfig, held_out: Batch, probe: Batch) -> None:
        self.config = config
        self.held_out = held_out
        self.probe = probe

    @torch.no_grad()
    def metrics(self, model: LatentModel) -> dict[str, float]:
        """`val/...` metrics; the model's mode is restored afterwards."""
        training = model.training
        model.eval()
        try:
            metrics = self._errors(model)
            visual = model.visual(_content(model, self.held_out))
            metrics |= latent_health(visual)
            if self.held_out.has_state.any() and self.probe.has_state.any():
                metrics |= self._probes(model, visual)
        finally:
            model.train(training)
        return {f"val/{key}": value for key, value in metrics.items()}

    @torch.no_grad()
    def health(self, model: LatentModel) -> dict[str, float]:
        """Those of `metrics` that say whether latents still carry anything, for a fraction of the time."""
        training = model.training
        model.eval()
        try:
            visual = model.visual(_content(model, self.held_out))
        finally:
            model.train(training)
        return {f"val/{key}": value for key, value in latent_health(visual).items()}

    def _errors(self, model: LatentModel) -> dict[str, float]:
        """As `rollout_errors` of all clips at once: a ratio of means, not a mean of the pieces' ratios.

        Where some clips have actions and some have none, also of each kind: `labelled/...`, `unlabelled/...`.
        """
        kinds = {"labelled/": self.held_out.has_actions, "unlabelled/": ~self.held_out.has_actions}
        if not all(rows.any() for rows in kinds.values()):
            return self._named("", self._means(model, self.held_out))
        found = {kind: self._means(model, take(self.held_out, rows)) for kind, rows in kinds.items()}
        both = np.average(list(found.values()), axis=0, weights=[int(rows.sum()) for rows in kinds.values()])
        metrics = self._named("", both)
        for kind, means in found.items():
            metrics |= self._named(kind, means)
        return metrics

    def _means(self, model: LatentModel, batch: Batch) -> np.ndarray:
        """(horizons, 2): mean squared error of the rollout and of the copied last frame."""
        pieces = list(_pieces(model, batch))
        errors = [squared_errors(model, piece, self.config.horizons) for piece in pieces]
        return np.average(errors, axis=0, weights=[piece.num_clips for piece in pieces])

    def _named(self, kind: str, means: np.ndarray) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for horizon, (error, copy) in zip(self.config.horizons, means.tolist(), strict=True):
            metrics[f"{kind}z_visual_err_rollout_h{horizon}"] = error
            metrics[f"{kind}copy_ratio_h{horizon}"] = copy_ratio(error, copy)
        return metrics

    def _probes(self, model: LatentModel, visual: Tensor) -> dict[str, float]:
        """R2 of the state: from encoded latents, from the aligned channels, and from latents rolled out to each horizon.

        Of the clips that have it.
        """
        fit, held_out = take(self.probe, self.probe.has_state), take(self.held_out, self.held_out.has_state)
        visual = visual[self.held_out.has_state.to(visual.device)]
        if fit.state is None or held_out.state is None:
            raise ValueError("clips without a state have nothing to probe for")
        fit_content = _content(model, fit)
        fit_states = _rows(fit.state)
        states = _rows(held_out.state)
        probe = StateProbe(_rows(model.visual(fit_content).flatten(2)), fit_states)
        metrics = _mean("state_probe_r2", probe.r2(_rows(visual.flatten(2)), states))
        if model.is_aligned:
            aligned = StateProbe(_rows(model.aligned(fit_content)), fit_states)
            metrics |= _mean("aligned_probe_r2", aligned.r2(_rows(model.aligned(visual)), states))
        longest = max(self.config.horizons)
        imagined = torch.cat([model.visual(imagine(model, piece, longest)[1]) for piece in _pieces(model, held_out)])
        for horizon in self.config.horizons:
            truth = held_out.state[:, model.history_len - 1 + horizon].numpy()
            latents = imagined[:, horizon - 1].flatten(1).cpu().numpy()
            metrics |= _mean(f"state_probe_rollout_r2_h{horizon}", probe.r2(latents, truth))
        return metrics


def _mean(name: str, r2: np.ndarray) -> dict[str, float]:
    """Over the entries that vary; nothing where none does."""
    known = r2[~np.isnan(r2)]
    return {name: float(known.mean())} if len(known) else {}


def _pieces(model: LatentModel, batch: Batch) -> Iterator[Batch]:
    """A few clips at a time, where the model is."""
    device = next(model.parameters()).device
    return (piece.to(device) for piece in batch.chunks(_CLIPS_AT_ONCE))


def _content(model: LatentModel, batch: Batch) -> Tensor:
    return torch.cat([model.encode_content(piece.obs) for piece in _pieces(model, batch)])


def _rows(values: Tensor) -> np.ndarray:
    return values.flatten(0, 1).cpu().numpy()
