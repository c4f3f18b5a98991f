"""Who judges an encoder while it is trained and when it is done: the probes, on pictures prepared once."""

from __future__ import annotations

from collections.abc import Mapping

from wm.build import build_world
from wm.config.errors import UserError, nearest
from wm.config.pretrain import PretrainConfig
from wm.contracts import Encoder
from wm.data.dataset import Dataset
from wm.evaluation.encoder_probes import probe_metrics, tokens_of
from wm.evaluation.probe_frames import ProbeFrames, Progress, prepare_probes

_FEW = {
    "fit_frames": 8,
    "test_episodes": 2,
    "frames_per_episode": 4,
    "goals_per_episode": 1,
    "drawn_episodes": 1,
    "drawn_states": 2,
    "fresh_states": 2,
}


class ProbeJudge:
    """The probes' metrics of an encoder, `probe/...`."""

    def __init__(self, frames: ProbeFrames) -> None:
        self.frames = frames

    def __call__(self, encoder: Encoder) -> Mapping[str, float]:
        return probe_metrics(self.frames, tokens_of(encoder))


def build_judge(
    config: PretrainConfig, dataset: Dataset, progress: Progress = lambda done, total, source: None
) -> ProbeJudge | None:
    """None where `train.best_metric` is none, and nothing is to be judged."""
    if config.train.best_metric is None:
        return None
    return ProbeJudge(prepare_probes(dataset, config.probes, build_world, progress))


def check_judge(config: PretrainConfig, dataset: Dataset, encoder: Encoder) -> list[str]:
    """Judge once by very few pictures; what is left out and why, a line each.

    Raises:
        UserError: the probes will not report train.best_metric.
    """
    few = {key: min(value, getattr(config.probes, key)) for key, value in _FEW.items()}
    judge = build_judge(config.model_copy(update={"probes": config.probes.model_copy(update=few)}), dataset)
    if judge is None:
        return []
    found = [f"val/{name}" for name in judge(encoder)]
    if config.train.best_metric not in found:
        raise UserError(
            f"train.best_metric: these data have no '{config.train.best_metric}'.{nearest(str(config.train.best_metric), found)} "
            f"Or null: no probes, and the last weights are exported"
        )
    return list(judge.frames.notes)
