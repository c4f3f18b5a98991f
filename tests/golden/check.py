"""Ours against the golden numbers, case by case: `python -m tests.golden.check DIR`.

DIR holds the cases' .npz files, itself or in folders below. Exits with 1 when a case fails.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.golden.case import GOLDEN, Check, load_case
from tests.golden.data import check_dataset_slicing, check_preprocessor
from tests.golden.decoders import check_any_loss, check_metrics_image, check_transposed_conv, check_vqvae
from tests.golden.models import check_embed, check_encode, check_predictor, check_rollout
from tests.golden.planners import check_cem, check_gradient, check_objective
from tests.golden.worlds import check_metrics_success, check_wall, check_wall_edge
from tests.golden.worlds_maze import check_point_maze
from tests.golden.worlds_pusht import check_pusht, check_pusht_shapes

# By the case's name, or by the longest beginning of it: another set may hold predictor_hist5 or rollout_concat1_hist2.
CHECKS: dict[str, Check] = {
    "predictor": check_predictor,
    "embed": check_embed,
    "encode": check_encode,
    "loss": check_any_loss,
    "rollout": check_rollout,
    "objective": check_objective,
    "cem": check_cem,
    "gd": check_gradient,
    "dataset_slicing": check_dataset_slicing,
    "preprocessor": check_preprocessor,
    "decoder_vqvae": check_vqvae,
    "decoder_transposed_conv": check_transposed_conv,
    "metrics_image": check_metrics_image,
    "metrics_success": check_metrics_success,
    "wall_fixed": check_wall,
    "wall_random": check_wall,
    "wall_edge": check_wall_edge,
    "point_maze_umaze": check_point_maze,
    "pusht": check_pusht,
    "pusht_shapes": check_pusht_shapes,
}


def check_for(name: str, checks: dict[str, Check] = CHECKS) -> Check | None:
    """The check of a case by its name, or None."""
    fitting = [key for key in checks if name == key or name.startswith(f"{key}_")]
    return checks[max(fitting, key=len)] if fitting else None


class Result(NamedTuple):
    """One line of the report."""

    case: str
    verdict: str  # passed, failed, not covered yet
    note: str = ""

    def __str__(self) -> str:
        return f"{self.case:24} {self.verdict}{f' ({self.note})' if self.note else ''}"


def run_case(path: Path, checks: dict[str, Check] = CHECKS) -> Result:
    """Check one file, by its name."""
    check = check_for(path.stem, checks)
    if check is None:
        return Result(path.stem, "not covered yet")
    try:
        check(load_case(path))
    except Exception as error:  # whatever breaks, the other cases are still wanted
        return Result(path.stem, "failed", " ".join(f"{type(error).__name__}: {error}".split())[:200])
    return Result(path.stem, "passed")


def run_all(folder: Path) -> Iterator[Result]:
    """Every case below a folder, by name."""
    for path in sorted(folder.rglob("*.npz")):
        yield run_case(path)


def main(arguments: list[str], say: Callable[[str], None] = print) -> int:
    """Print the results; returns the exit code."""
    if len(arguments) > 1:
        say("usage: python -m tests.golden.check [DIR]")
        return 2
    import torch

    torch.set_num_threads(1)  # as the numbers were made
    folder = Path(arguments[0]) if arguments else GOLDEN
    verdicts: list[str] = []
    for result in run_all(folder):
        say(str(result))
        verdicts.append(result.verdict)
    if not verdicts:
        say(f"{folder}: no .npz files there")
        return 2
    passed, failed = verdicts.count("passed"), verdicts.count("failed")
    say(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
