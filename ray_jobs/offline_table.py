"""The table of `wm plan --offline`, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from experiments.offline_figures import WORDS
from wm.evaluation.offline import MEAN, OTHER, PLANNED, RANDOM, RECORDED
from wm.evaluation.offline_metrics import Estimate

_COLUMNS = (PLANNED, RECORDED, OTHER, RANDOM, MEAN)
_ROWS = {
    "cosine": "direction, model step",
    "cosine_clip": "direction, whole clip",
    "r2": "R², model step",
    "r2_clip": "R², whole clip",
    "magnitude": "magnitude / recorded",
    "jerk": "jerk",
    "cost": "cost",
}
_FIXED = ("cosine", "cosine_clip", "r2", "r2_clip", "magnitude")  # two decimals say enough, however small they are
_MOST_NAMES = 24


def render_offline(
    metrics: Mapping[str, Estimate], horizons: Sequence[int], names: Sequence[str], clips: Mapping[int, str]
) -> list[RenderableType]:
    """For each goal horizon: what was planned beside what was recorded and the controls, then cost, latents, seconds.

    Args:
        names: of the action columns.
        clips: goal horizon -> what it rests on, in words.
    """
    shown: list[RenderableType] = []
    for horizon in horizons:
        suffix = f"gh{horizon}"
        shown.append(_actions(metrics, suffix, f"Goal {horizon} model steps away: {clips[horizon]}"))
        shown.append(_errors(metrics, suffix, names))
        shown += [Text(line) for line in _sentences(metrics, suffix)]
    return [*shown, Text("docs/offline.md says what each number means.", style="dim")]


def _actions(metrics: Mapping[str, Estimate], suffix: str, title: str) -> Table:
    view = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1), min_width=len(title) + 2)
    view.add_column("normalised units", no_wrap=True)
    for who in _COLUMNS:
        view.add_column(WORDS[who], justify="right")
    for name, words in _ROWS.items():
        view.add_row(words, *(_cell(metrics.get(_key(name, who, suffix)), name in _FIXED) for who in _COLUMNS))
    return view


def _errors(metrics: Mapping[str, Estimate], suffix: str, names: Sequence[str]) -> Table:
    kinds = [who for who in _COLUMNS if who != RECORDED]
    title = "Mean absolute difference from the recorded action, raw units"
    view = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1), min_width=len(title) + 2)
    view.add_column("action", no_wrap=True)
    for who in kinds:
        view.add_column(WORDS[who], justify="right")
    for name in names[:_MOST_NAMES]:
        view.add_row(name, *(_cell(metrics.get(f"{_key('mae', who, suffix)}/{name}")) for who in kinds))
    if len(names) > _MOST_NAMES:
        view.add_row(f"... {len(names) - _MOST_NAMES} more in offline.json")
    return view


def _sentences(metrics: Mapping[str, Estimate], suffix: str) -> list[str]:
    def value(name: str) -> str:
        found = metrics[f"plan/offline_{name}_{suffix}"]
        ends = "" if found.interval is None else f" [{_number(found.interval.low)}, {_number(found.interval.high)}]"
        return _number(found.value) + ends

    lines: list[str] = []
    if f"plan/offline_cost_ratio_{suffix}" in metrics:
        lines.append(
            f"  cost, planned / recorded: {value('cost_ratio')}; {value('cheaper')} of the plans cost less than what was recorded "
            "(far below 1: the plan exploits the model)"
        )
    if f"plan/offline_copy_ratio_{suffix}" in metrics:
        lines.append(
            f"  latent at the goal under the recorded actions: error {value('latent_err')}, copying the start {value('copy_err')}; "
            f"ratio {value('copy_ratio')}"
        )
    if f"plan/offline_jerk_ratio_{suffix}" in metrics:
        lines.append(f"  jerk, planned / recorded: {value('jerk_ratio')}")
    if f"plan/offline_plan_s_{suffix}" in metrics:
        lines.append(
            f"  seconds a plan: median {value('plan_s')}, 95th percentile {value('plan_s_p95')}; the first of each length left out"
        )
    else:
        lines.append("  seconds a plan: none was timed, the first of each length is left out")
    return lines


def _key(name: str, who: str, suffix: str) -> str:
    return f"plan/offline_{name}" + ("" if who == PLANNED else f"_{who}") + f"_{suffix}"


def _cell(estimate: Estimate | None, fixed: bool = False) -> Text:
    if estimate is None:
        return Text("-", style="dim")
    cell = Text(_number(estimate.value, fixed))
    if estimate.interval is not None:
        ends = (_number(end, fixed) for end in (estimate.interval.low, estimate.interval.high))
        cell.append(f"\n[{', '.join(ends)}]", style="dim")
    return cell


def _number(value: float, fixed: bool = False) -> str:
    if abs(value) >= 100:
        return f"{value:.0f}"
    if fixed or value == 0 or abs(value) >= 0.1:
        return f"{round(value, 2) + 0.0:.2f}"  # never -0.00
    return f"{value:.2g}"
