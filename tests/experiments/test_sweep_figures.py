"""A sweep's frames hold the numbers; its figures draw whatever there is."""

import re
from dataclasses import replace

import numpy as np
import pytest

from experiments.figures import COLOURS, to_svg
from experiments.sweep_coordinates import OBJECTIVE, SHADES, coordinate_caption, coordinate_frame, draw_coordinates
from experiments.sweep_figures import (
    BEST,
    draw_history,
    draw_importances,
    draw_pruning,
    history_caption,
    history_frame,
    importance_caption,
    importance_frame,
    pruning_caption,
    pruning_frame,
)
from experiments.sweep_record import SweepRecord, TrialRecord
from tests.experiments.test_comparison import METRIC

KIND, END, DIM = "model.alignment.weight.kind", "model.alignment.weight.end", "model.alignment.dim"
START, ALIGN = "model.alignment.weight.start", "model.alignment.kind"
PRUNE_ON = "val/copy_ratio_h5"


def make_trial(number: int, params: dict, values: tuple[float, ...] = (), state: str = "complete", **others):
    value = float(np.mean(values)) if values else None
    return TrialRecord(number, state, params, value, dict(enumerate(values)), **others)


def make_sweep() -> SweepRecord:
    """Two complete trials of two seeds, one pruned, one failed, then the best."""
    trials = [
        make_trial(
            0,
            {ALIGN: "infonce", DIM: 2, KIND: "cosine", START: 0.01, END: 0.5},
            (0.3, 0.5),
            pruning=[(1, 1.2), (2, 0.9)],
            seconds=100.0,
        ),
        make_trial(1, {ALIGN: "state_mse", DIM: 6, KIND: "constant", START: 1.0}, pruning=[(1, 1.4)], state="pruned"),
        make_trial(
            2,
            {ALIGN: "infonce", DIM: 8, KIND: "constant", START: 0.1},
            state="failed",
            failure="<script>alert(1)</script> at step 40",
        ),
        make_trial(3, {ALIGN: "state_mse", DIM: 10, KIND: "constant", START: 10.0}, (0.2, 0.3), pruning=[(1, 1.1)]),
        make_trial(
            4, {ALIGN: "infonce", DIM: 4, KIND: "cosine", START: 0.1, END: 1.5}, (0.5, 0.75), pruning=[(2, 0.7), (1, 1)]
        ),
    ]
    return SweepRecord(
        name="align_vs_align_recon/alignment",
        spec="align_vs_align_recon",
        base="align_recon",
        case="wall",
        space="alignment",
        objective=METRIC,
        mode="max",
        prune_on=PRUNE_ON,
        prune_mode="min",
        seeds=[0, 1],
        scales={ALIGN: "choice", DIM: "int", KIND: "choice", START: "loguniform", END: "uniform"},
        defaults={ALIGN: "infonce", DIM: 8, KIND: "constant", START: 1.0},
        trials=trials,
        importances={DIM: 0.2, START: 0.5, KIND: 0.3},
        facts={"git commit": "abc123"},
    )


def with_values(record: SweepRecord, change) -> SweepRecord:
    """The objective of every seed changed."""
    trials = [
        make_trial(t.number, t.params, tuple(change(v) for v in t.seed_values.values()), t.state, pruning=t.pruning)
        for t in record.trials
    ]
    return replace(record, trials=trials)


def ended(record: SweepRecord, state: str) -> SweepRecord:
    """No trial has an objective."""
    trials = [replace(t, state=state, value=None, seed_values={}, failure=None) for t in record.trials]
    return replace(record, trials=trials, importances={})


def many() -> SweepRecord:
    """A hundred trials of every state."""
    record, rng = make_sweep(), np.random.default_rng(0)
    trials = [
        replace(
            record.trials[n % 5], number=n, params={**record.trials[n % 5].params, DIM: 2 + n % 9}, value=float(value)
        )
        if n % 5 in (0, 3, 4)
        else replace(record.trials[n % 5], number=n)
        for n, value in enumerate(rng.random(100))
    ]
    states = ["running" if n == 97 else "waiting" if n > 97 else trial.state for n, trial in enumerate(trials)]
    trials = [
        replace(t, state=s, value=t.value if s == "complete" else None, params={} if s == "waiting" else t.params)
        for t, s in zip(trials, states, strict=True)
    ]
    return replace(record, trials=trials)


def degenerate() -> dict[str, SweepRecord]:
    record = make_sweep()
    alone = replace(record, trials=[t for t in record.trials if t.number == 4], importances={})
    single = [replace(t, params={DIM: t.params[DIM]}) for t in record.trials]
    return {
        "no trial": replace(record, trials=[], importances={}, seeds=[]),
        "only waiting": replace(ended(record, "waiting"), trials=[TrialRecord(0, "waiting")]),
        "all pruned": ended(record, "pruned"),
        "all failed": ended(record, "failed"),
        "one trial": alone,
        "one seed": replace(alone, trials=[make_trial(0, alone.trials[0].params, (0.5,))]),
        "constant objective": with_values(record, lambda _: 0.5),
        "zero objective": with_values(record, lambda _: 0.0),
        "negative objective": replace(with_values(record, lambda v: -10 * v), objective="val/score", mode="min"),
        "one path": replace(record, trials=single, scales={DIM: "int"}, defaults={DIM: 3}, importances={DIM: 0.0}),
        "no pruning": replace(record, prune_on=None, trials=[replace(t, pruning=[]) for t in record.trials]),
        "odd values": replace(
            record,
            scales={"a.b": "choice", START: "loguniform"},
            defaults={"a.b": None, START: 0.0},
            trials=[
                make_trial(0, {"a.b": (64, 128), START: 0.03}, (0.5,)),
                make_trial(1, {"a.b": True, START: 0.03}, (0.4,)),
                make_trial(2, {"a.b": "$x$ <b> and a very long name"}, (0.1,)),
            ],
        ),
        "hundred": many(),
    }


def test_the_best_so_far_only_rises():
    frame = history_frame(make_sweep())
    assert [point.number for point in frame] == [0, 1, 2, 3, 4]
    assert [point.value for point in frame] == [0.4, None, None, 0.25, 0.625]
    assert [point.best_so_far for point in frame] == [0.4, 0.4, 0.4, 0.4, 0.625]
    assert (frame[0].low, frame[0].high) == (0.3, 0.5)
    falling = history_frame(replace(make_sweep(), mode="min"))
    assert [point.best_so_far for point in falling] == [0.4, 0.4, 0.4, 0.25, 0.25]


def test_nothing_is_best_before_the_first_objective():
    record = make_sweep()
    frame = history_frame(replace(record, trials=list(reversed(record.trials[1:]))))
    assert [point.best_so_far for point in frame] == [None, None, 0.25, 0.625]


def test_the_history_draws_percent_and_marks_along_the_bottom():
    (axes,) = draw_history(history_frame(make_sweep())).axes
    drawn = {(x, y) for line in axes.lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)}
    for place in ((0, 40.0), (3, 25.0), (4, 62.5), (0, 30.0), (0, 50.0)):
        assert any(np.allclose(place, found) for found in drawn)
    marks = [line for line in axes.lines if line.get_transform() != axes.transData]
    assert [list(line.get_xdata()) for line in marks] == [[1], [2]]
    assert min(axes.get_yticks()) >= 0


def test_coordinates_have_an_axis_for_each_path_and_the_objective():
    frame = coordinate_frame(make_sweep())
    assert [axis.path for axis in frame] == [ALIGN, DIM, KIND, START, END, METRIC]
    assert [axis.name for axis in frame[:5]] == [
        "alignment.kind",
        "alignment.dim",
        "weight.kind",
        "weight.start",
        "weight.end",
    ]
    dim, start, end, last = frame[1], frame[3], frame[4], frame[5]
    assert dim.heights == {0: 0.0, 1: 0.5, 2: 0.75, 3: 1.0, 4: 0.25}
    assert dim.default == 0.75
    assert start.heights == pytest.approx({0: 0.0, 1: 2 / 3, 2: 1 / 3, 3: 1.0, 4: 1 / 3})
    assert [text for _, text in start.ticks] == ["0.01", "0.1", "1", "10"]
    assert end.heights == {0: 0.0, 1: None, 2: None, 3: None, 4: 1.0}
    assert end.default is None
    assert last.heights == pytest.approx({0: 0.4, 3: 0.0, 4: 1.0})
    assert (last.scale, last.best, last.is_falling) == (OBJECTIVE, 4, False)


def test_choices_stand_in_order():
    record = make_sweep()
    values = (10, 2, True, "b", "a")
    mixed = [make_trial(n, {"a.x": value}, (0.1,)) for n, value in enumerate(values)]
    (axis, _) = coordinate_frame(replace(record, scales={"a.x": "choice"}, defaults={}, trials=mixed))
    assert [text for _, text in axis.ticks] == ["10", "2", "a", "b", "true"]
    (axis, _) = coordinate_frame(replace(record, scales={"a.x": "choice"}, defaults={"a.x": 4}, trials=mixed[:2]))
    assert axis.ticks == [(0.0, "2"), (0.5, "4"), (1.0, "10")]
    assert axis.default == 0.5


def test_coordinates_mark_what_was_not_sampled_and_highlight_the_best():
    axes = draw_coordinates(coordinate_frame(make_sweep())).axes[0]
    assert [text.get_text() for text in axes.texts].count("not sampled") == 1
    (best,) = [line for line in axes.lines if line.get_linewidth() > 3]
    assert best.get_color() == SHADES(1.0)
    constant = next(
        line for line in axes.lines if len(line.get_xdata()) == 6 and line is not best and line.get_ydata()[4] < 0
    )
    assert constant.get_color() == SHADES(0.0)
    assert sum(len(line.get_xdata()) == 5 and line.get_linestyle() == "--" for line in axes.lines) == 2


def test_the_lowest_is_orange_where_it_is_sought():
    frame = coordinate_frame(replace(make_sweep(), mode="min"))
    assert frame[-1].best == 3
    (best,) = [line for line in draw_coordinates(frame).axes[0].lines if line.get_linewidth() > 3]
    assert best.get_color() == SHADES(1.0)


def test_importances_fall():
    frame = importance_frame(make_sweep())
    assert [(bar.name, bar.share) for bar in frame] == [
        ("weight.start", 0.5),
        ("weight.kind", 0.3),
        ("alignment.dim", 0.2),
    ]
    (axes,) = draw_importances(frame).axes
    assert [bar.get_width() for bar in axes.patches] == [50, 30, 20]
    low, high = axes.get_ylim()
    assert low > high


def test_curves_end_where_the_trial_ended():
    frame = pruning_frame(make_sweep())
    assert [(curve.number, curve.points) for curve in frame] == [
        (0, [(1, 1.2), (2, 0.9)]),
        (1, [(1, 1.4)]),
        (3, [(1, 1.1)]),
        (4, [(1, 1), (2, 0.7)]),
    ]
    assert [curve.is_best for curve in frame] == [False, False, False, True]
    (axes,) = draw_pruning(frame).axes
    colours = [line.get_color() for line in axes.lines if len(line.get_xdata()) > 1 and line.get_marker() == "o"]
    assert colours == [BEST]
    assert any(line.get_marker() == "v" and list(line.get_xdata()) == [1] for line in axes.lines)
    assert pruning_frame(replace(make_sweep(), prune_on=None)) == []


def test_captions_count_trials_and_seeds():
    record = make_sweep()
    for caption in (history_caption, coordinate_caption, importance_caption, pruning_caption):
        assert "5 trials: 3 complete, 1 pruned, 1 failed" in caption(record)
        assert "better" not in caption(record)
    for caption in (history_caption, coordinate_caption, importance_caption):
        assert "2 seeds" in caption(record)
    assert "first seed" in pruning_caption(record)
    assert "lower is sought" in pruning_caption(record)


@pytest.mark.parametrize("name", degenerate())
def test_whatever_there_is_can_be_drawn(name):
    record = degenerate()[name]
    for make_frame, draw, caption in (
        (history_frame, draw_history, history_caption),
        (coordinate_frame, draw_coordinates, coordinate_caption),
        (importance_frame, draw_importances, importance_caption),
        (pruning_frame, draw_pruning, pruning_caption),
    ):
        assert caption(record).endswith(".")
        if frame := make_frame(record):
            svg = to_svg(draw(frame), caption(record))
            assert svg.startswith("<svg")
            assert "http" not in svg
            assert "nan" not in re.sub(r"<style.*?</style>", "", svg).lower()


def test_labels_hide_the_lines_behind_them_in_the_colour_of_the_page():
    svg = to_svg(draw_coordinates(coordinate_frame(make_sweep())), "x")
    assert "var(--paper, white)" in svg
    assert "<image" not in svg
    assert COLOURS[1] in svg
