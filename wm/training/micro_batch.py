"""How many clips a worker computes at once: as the config says, or fewer where memory is short."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from wm.config.errors import UserError
from wm.data.atomic import write_json
from wm.losses.ranks import current_ranks

_FILE = "micro_batch.json"
_logger = logging.getLogger(__name__)


class MicroBatch:
    """The size that fits. The global batch, and so the result, stays what it was: smaller pieces, more of them.

    Args:
        size: clips at once, at first.
        unsplittable: the term whose loss is no mean over clips, if there is one.
        folder: of the run's checkpoints: where a worker that ran out of memory leaves the size for its successors.
    """

    def __init__(self, size: int, unsplittable: str | None, folder: Path | None) -> None:
        self._unsplittable = unsplittable
        self._folder = folder
        self.size = size if folder is None else min(size, _left_behind(folder) or size)
        self.changes: list[str] = []

    def shrink(self, num_clips: int, reason: str) -> None:
        """Half as many clips at once, after `num_clips` did not fit.

        Raises UserError when there is nothing left to halve. With several workers, which wait for each other in the middle of a
        step, raises RuntimeError: all start again from the newest checkpoint, with the smaller size.
        """
        size = min(self.size, num_clips)
        facts = reason.strip().splitlines()[0] if reason.strip() else "no details"
        if self._unsplittable is not None:
            raise UserError(
                f"train.batch_size: out of memory, and {self._unsplittable} looks at all clips of a batch together, which cannot "
                f"be split; lower train.batch_size or take another term ({facts})"
            )
        if size == 1:
            raise UserError(
                f"train.batch_size: out of memory with one clip at a time; take a smaller model, model.history_len or "
                f"train.rollout_horizon, or train.precision=bf16 ({facts})"
            )
        self.size = size // 2
        self.changes.append(
            f"out of memory with {size} clips at once; going on with {self.size} at once and the same global batch"
        )
        _logger.warning(self.changes[-1])
        if current_ranks().count > 1:
            if self._folder is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
                write_json(self._folder / _FILE, {"size": self.size})
            raise RuntimeError(f"{self.changes[-1]}, from the newest checkpoint")

    def take_changes(self) -> list[str]:
        """What to tell the person, once."""
        changes, self.changes = self.changes, []
        return changes


def _left_behind(folder: Path) -> int | None:
    file = folder / _FILE
    return json.loads(file.read_text(encoding="utf-8"))["size"] if file.is_file() else None
