"""A metric's name and values in words: labels, units, digits."""

from __future__ import annotations

import re

from wm.evaluation.statistics import Interval

SUCCESS_PREFIX = "plan/success_rate"
NOT_AVAILABLE = "n/a"
LABELS = {
    "val/state_probe_r2": "State probe R²",
    "val/effective_rank": "Effective rank",
    "train/time_s": "Training time",
}


def is_comparable(metric: str) -> bool:
    """Whether variants share a metric's scale: raw losses and latent errors live on each variant's own."""
    return re.search(r"loss|(^|[/_])z_|latent_(err|mse|dist)", metric) is None


def is_success(metric: str) -> bool:
    """Whether a metric is a proportion of solved problems, shown in percent."""
    return metric.startswith(SUCCESS_PREFIX)


def label(metric: str) -> str:
    """A metric's name as a column head: "Success, goal 5", "Copy ratio h10"."""
    if metric in LABELS:
        return LABELS[metric]
    if found := re.fullmatch(rf"{SUCCESS_PREFIX}(?:_gh(\d+))?(.*)", metric):
        goal, rest = found.groups()
        return "Success" + (f", goal {goal}" if goal else "") + rest.replace("_", " ").replace("/", ", ")
    if found := re.fullmatch(r"plan/state_distance_gh(\d+)", metric):
        return f"Distance goal {found.group(1)}"
    if found := re.fullmatch(r"val/copy_ratio_h(\d+)", metric):
        return f"Copy ratio h{found.group(1)}"
    return metric


def format_value(metric: str, value: float, like: float | None = None) -> str:
    """A metric's value with its unit and digits; those of `like` where given, so that a spread matches its mean."""
    size = abs(value if like is None else like)
    if is_success(metric):
        return f"{100 * value:.0f} %"
    if metric.endswith("_s"):
        unit, seconds = ("s", 1) if size < 120 else ("min", 60) if size < 7200 else ("h", 3600)
        return f"{value / seconds:.{0 if 10 <= size < 120 else 1}f} {unit}"
    return f"{value:.2f}" if 0.1 <= size < 100 or value == 0 else f"{value:.3g}"


def format_seeds(number: int) -> str:
    """A rough number of seeds, no more precise than it is: tens above twenty."""
    return str(number if number <= 20 else round(number, -1))


def format_difference(metric: str, value: float) -> str:
    """A signed difference with its unit: "+12 points", "-0.08"."""
    return format_signed(metric, value) + (" points" if is_success(metric) else "")


def format_signed(metric: str, value: float) -> str:
    """A signed difference without its unit."""
    return f"{100 * value:+.0f}" if is_success(metric) else f"{value:+.3g}"


def format_ends(metric: str, interval: Interval) -> str:
    """The two ends of a signed difference, in its unit: "-49 to +79"."""
    return f"{format_signed(metric, interval.low)} to {format_signed(metric, interval.high)}"


def count(number: int, noun: str) -> str:
    """A number of things: "1 seed", "3 seeds"."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def natural_key(text: str) -> list[tuple[int, str]]:
    """A sort key under which gh5 comes before gh10."""
    return [(int(part) if part.isdigit() else -1, part) for part in re.split(r"(\d+)", text)]
