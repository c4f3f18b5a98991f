"""Where success is lost: rows that differ in one thing each, the largest loss between them, and a verdict in words.

From top to bottom the search is handicapped by one thing more:

    oracle        the recorded actions
    true_states   a search in the simulator, judged by true distances
    true_latents  the same search in the simulator, judged by the latent objective
    in_model      the same search in the model, judged by the latent objective
    evaluated     the same with plan.planner: what `wm plan` reports
    random        no model: the floor
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wm.evaluation.statistics import Interval, paired_difference, wilson

# What each row lacks that the row above has; its loss is that cause's.
CAUSES = {
    "oracle": "problems",
    "true_states": "search",
    "true_latents": "objective",
    "in_model": "model",
    "evaluated": "planner",
}
ROWS = {
    "oracle": "recorded actions",
    "true_states": "simulator, true distance",
    "true_latents": "simulator, latent objective",
    "in_model": "model, latent objective",
    "evaluated": "as evaluated (plan.planner)",
    "random": "random actions",
}
ADVICE = {
    "problems": "their own recorded actions, replayed, do not reach the goals: is this the world that the data were recorded in?",
    "search": "raise --simulator-samples and --simulator-iterations; if it stays, plan.planner.horizon or plan.max_iterations "
    "are too short, or the world's distance leads into dead ends.",
    "objective": "compare plan.objective.space, alpha and frames=all, another encoder, or alignment (model.variant=align): "
    "the latents do not order states by their distance to the goal.",
    "model": "train longer or on more such states, raise train.rollout_horizon, replan more often (plan.execute_steps=1).",
    "planner": "plan.planner finds less in the model than a small CEM: more samples or iterations, another kind, plan.bounds=data.",
}


@dataclass(frozen=True)
class Row:
    """One row of the chain.

    Args:
        solved: by problem id. A problem that failed is not solved.
        failures: how many problems could not be completed.
    """

    name: str
    solved: Mapping[str, bool]
    failures: int = 0

    @property
    def rate(self) -> float:
        """Share solved."""
        return float(np.mean(list(self.solved.values())))

    @property
    def interval(self) -> Interval:
        """Wilson's."""
        return wilson(sum(self.solved.values()), len(self.solved))


@dataclass(frozen=True)
class Loss:
    """What is lost from one row to a lower one, on the problems that all rows have.

    Args:
        cause: key of ADVICE.
        upper: the row above; None: every problem, where there is no row above.
        spans: whether rows in between solve less than `lower` and were left out, so that the cause is not isolated.
        upper_rate, lower_rate, value: shares; value is their difference.
        interval: 95 %, paired by problem; None with one problem.
    """

    cause: str
    upper: str | None
    lower: str
    spans: bool
    upper_rate: float
    lower_rate: float
    value: float
    interval: Interval | None
    num_problems: int

    @property
    def is_certain(self) -> bool:
        """Whether the interval excludes no loss."""
        return self.interval is not None and self.interval.low > 0


@dataclass(frozen=True)
class Verdict:
    """The largest loss (None: nothing is lost), others that cannot be told from it, and both in words."""

    loss: Loss | None
    rivals: Sequence[Loss]
    words: Sequence[str]

    @property
    def cause(self) -> str | None:
        """Key of ADVICE, or None."""
        return None if self.loss is None else self.loss.cause


def losses(rows: Mapping[str, Row]) -> list[Loss]:
    """From every problem down to the row as evaluated, in order; gains and equals are not among them.

    A row that solves clearly less than one below it is left out: what the lower row manages all the same cannot be lost above it.
    Of the steps that such a gap spans, the one with the largest fall is named.
    """
    chain = [name for name in CAUSES if name in rows]
    common = _common([rows[name] for name in chain])
    if not common:
        return []
    solved = {name: np.array([float(rows[name].solved[key]) for key in common]) for name in chain}
    rates = {name: float(solved[name].mean()) for name in chain}
    kept = [
        name
        for place, name in enumerate(chain)
        if not any(_clearly_less(solved[name], solved[below]) for below in chain[place:])
    ]
    found: list[Loss] = []
    upper: str | None = None
    for lower in kept:
        above = np.ones(len(common)) if upper is None else solved[upper]
        difference = paired_difference(above[None], solved[lower][None])
        if difference.value > 0:
            first = 0 if upper is None else chain.index(upper) + 1
            spanned = chain[first : chain.index(lower) + 1]
            interval = difference.interval
            found.append(
                Loss(
                    cause=_cause(spanned, rates, 1.0 if upper is None else rates[upper]),
                    upper=upper,
                    lower=lower,
                    spans=len(spanned) > 1,
                    upper_rate=float(above.mean()),
                    lower_rate=rates[lower],
                    value=difference.value,
                    interval=interval,
                    num_problems=len(common),
                )
            )
        upper = lower
    return found


def verdict(rows: Mapping[str, Row], search: str) -> Verdict:
    """Where the largest loss is, with what must be said beside it.

    Args:
        search: the small search in words: "CEM of 64 x 5".
    """
    found = losses(rows)
    words: list[str] = []
    if not found:
        evaluated = rows["evaluated"]
        words.append(f"Nothing is lost: {_percent(evaluated.rate)} of {len(evaluated.solved)} problems are solved.")
        return Verdict(None, [], words)
    largest = max(found, key=lambda loss: loss.value)
    rivals = [loss for loss in found if loss is not largest and _overlap(loss, largest)]
    words.append(_sentence(largest, search))
    if largest.spans:
        words.append(
            f"Rows between solve clearly less than a row below them, so that this cause is not isolated: {search} may be too small "
            "a search (--simulator-samples, --simulator-iterations)."
        )
    if not largest.is_certain:
        words.append("The interval includes no loss: this may be chance; take more problems (--simulator-problems).")
    if rivals:
        others = ", ".join(f"the {loss.cause} ({_points(loss.value)})" for loss in rivals)
        words.append(f"With {largest.num_problems} problems it cannot be told from {others}: the intervals overlap.")
    if at_floor := _floor(rows):
        words.append(at_floor)
    words.append(f"To try: {ADVICE[largest.cause]}")
    return Verdict(largest, rivals, words)


def _clearly_less(row: np.ndarray, other: np.ndarray) -> bool:
    """By more than one standard error of the paired difference, sqrt(discordant) problems: one problem more is chance."""
    wins, defeats = int((other > row).sum()), int((other < row).sum())
    return wins - defeats > np.sqrt(wins + defeats)


def _cause(spanned: Sequence[str], rates: Mapping[str, float], begin: float) -> str:
    before = [begin, *(rates[name] for name in spanned[:-1])]
    falls = [high - rates[name] for high, name in zip(before, spanned, strict=True)]
    return CAUSES[spanned[int(np.argmax(falls))]]


def _common(rows: Sequence[Row]) -> list[str]:
    """Problems that every row has, in the order of the first."""
    return [key for key in rows[0].solved if all(key in row.solved for row in rows)] if rows else []


def _overlap(loss: Loss, largest: Loss) -> bool:
    return loss.interval is None or largest.interval is None or loss.interval.high >= largest.interval.low


def _floor(rows: Mapping[str, Row]) -> str | None:
    """A sentence where planning is not above random actions."""
    if "random" not in rows:
        return None
    common = _common([rows["evaluated"], rows["random"]])
    both = [[float(rows[name].solved[key]) for key in common] for name in ("evaluated", "random")]
    difference = paired_difference([both[0]], [both[1]])
    if difference.interval is not None and difference.interval.low > 0:
        return None
    rates = [_percent(float(np.mean(each))) for each in both]
    word = "worse than" if difference.value < 0 else "not surely better than"
    return f"As evaluated it is {word} random actions: {rates[0]} and {rates[1]}."


def _sentence(loss: Loss, search: str) -> str:
    high, low = _percent(loss.upper_rate), _percent(loss.lower_rate)
    match loss.cause:
        case "problems":
            text = f"The problems: their own recorded actions solve only {low}"
        case "search" if loss.upper is None:
            text = (
                f"The search: even in the simulator and by true distances only {low} are solved, if all can be solved"
            )
        case "search":
            text = f"The search: even in the simulator and by true distances {low} are solved; the recorded actions solve {high}"
        case "objective":
            text = f"The objective: with true distances in its place {high} are solved instead of {low}, both in the simulator"
        case "model":
            text = f"The model: with the simulator in its place {high} are solved instead of {low}"
        case _:
            text = f"The planner: with {search} in place of plan.planner {high} are solved instead of {low}"
    if loss.spans:  # the rows are not neighbours: their own names are more honest than the cause's sentence
        upper = "every problem" if loss.upper is None else f"'{ROWS[loss.upper]}'"
        text = f"Probably the {loss.cause}: from {upper} to '{ROWS[loss.lower]}' success falls from {high} to {low}"
    ends = (
        ""
        if loss.interval is None
        else f", 95 % interval {100 * loss.interval.low:.0f} to {100 * loss.interval.high:.0f}"
    )
    return f"{text} ({_points(loss.value)} on {loss.num_problems} problems{ends})."


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _points(share: float) -> str:
    return f"{100 * share:.0f} points"
