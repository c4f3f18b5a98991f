"""What fine-tuning taught, and what was forgotten for it: the same held-out clips before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from wm.evaluation.validation import Validator
from wm.models.latent_model import LatentModel

Metrics = Mapping[str, float]


class Change(NamedTuple):
    """One metric before and after; None where the clips have none of it."""

    before: float | None
    after: float | None


@dataclass(frozen=True)
class Judged:
    """Validation metrics of two models on the same clips, by name."""

    before: Metrics
    after: Metrics

    def of(self, metric: str) -> Change:
        """One of them."""
        return Change(self.before.get(metric), self.after.get(metric))


@dataclass(frozen=True)
class Forgetting:
    """Of a run that started from another.

    Args:
        start: hash of the run that it started from.
        old: on what that run held out; None where its data are not here.
        new: on what this run holds out of the new episodes; None where it has no new ones.
        missing: why there is no `old`.
    """

    start: str
    old: Judged | None
    new: Judged | None
    missing: str | None = None

    @property
    def metrics(self) -> list[str]:
        """Every name once, in the order of validation."""
        judged = [each for each in (self.old, self.new) if each is not None]
        return list(dict.fromkeys(name for each in judged for name in (*each.before, *each.after)))

    @property
    def forgotten(self) -> dict[str, float]:
        """`forgetting/<metric>` = after - before on the old data: above 0 is worse for errors and ratios, better for R2 and rank."""
        if self.old is None:
            return {}
        changes = {name: self.old.of(name) for name in self.old.before}
        return {
            f"forgetting/{name.removeprefix('val/')}": after - before
            for name, (before, after) in changes.items()
            if before is not None and after is not None
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "forgotten": self.forgotten}

    @staticmethod
    def from_json(saved: Mapping[str, Any]) -> Forgetting:
        """The inverse of `to_json`."""
        old, new = (None if saved[key] is None else Judged(**saved[key]) for key in ("old", "new"))
        return Forgetting(saved["start"], old, new, saved["missing"])


def judge(validator: Validator, before: LatentModel, after: LatentModel) -> Judged:
    """Both models by the same validator."""
    return Judged(validator.metrics(before), validator.metrics(after))
