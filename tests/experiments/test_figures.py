"""Frames hold the numbers, figures hold the frames."""

import io
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread

from experiments.comparison import CONTROL, compare
from experiments.figures import (
    COLOURS,
    curve_caption,
    curve_frame,
    draw_curves,
    draw_success,
    rollout_strip,
    success_caption,
    success_frame,
    to_png,
    to_svg,
)
from tests.experiments.test_comparison import METRIC, make_record, make_run


def test_success_frame_is_the_table():
    table = compare(make_record())
    frame = success_frame(table)
    assert [point.variant for point in frame] == ["baseline", "align", "align_recon", CONTROL]
    align = frame[1]
    interval = table.rows[1].estimates[METRIC].interval
    assert (align.mean, align.low, align.high) == pytest.approx((0.45, interval.low, interval.high))
    assert align.per_seed == pytest.approx({0: 0.4, 1: 0.5})
    assert [point.order for point in frame] == [0, 1, 2, -1]
    assert frame[-1].is_control


def test_success_figure_draws_every_number():
    frame = success_frame(compare(make_record()))
    (axes,) = draw_success(frame).axes
    drawn = np.concatenate([np.asarray(line.get_xdata(), dtype=float) for line in axes.lines])
    for point in frame:
        for value in (point.mean, point.low, point.high, *point.per_seed.values()):
            assert np.isclose(drawn, 100 * value).any()
    assert [text.get_text() for text in axes.get_yticklabels()] == [point.variant for point in frame]


def test_caption_names_seeds_and_method():
    caption = success_caption(success_frame(compare(make_record())))
    assert "mean over 2 seeds" in caption
    assert "Student t over 2 seeds" in caption
    assert CONTROL in caption


def test_curves_of_two_seeds_span_the_seeds():
    frame = curve_frame(make_record(), ("val/copy_ratio_h5",))
    last = next(point for point in frame if point.variant == "align" and point.step == 100)
    assert (last.mean, last.low, last.high, last.num_seeds) == pytest.approx((0.85, 0.8, 0.9, 2))
    assert "2 seeds (band from the lower to the higher seed)" in curve_caption(frame)


def test_curves_of_three_seeds_have_the_t_interval():
    record = make_record()
    record = replace(record, runs=[make_run("align", seed, [1, 0]) for seed in range(3)])
    last = curve_frame(record, ("val/copy_ratio_h5",))[-1]
    assert last.high - last.mean == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-5)


def test_curves_stop_where_a_seed_stops():
    record = make_record()
    short = replace(record.runs[2], history={"val/copy_ratio_h5": [(0, 1.2), (50, 1.0)]})
    frame = curve_frame(replace(record, runs=[short, *record.runs[3:]]), ("val/copy_ratio_h5",))
    assert [point.step for point in frame if point.variant == "align"] == [0, 50]


def test_a_loss_cannot_share_axes():
    with pytest.raises(ValueError, match="own scale"):
        curve_frame(make_record(), ("train/loss",))


def test_a_variant_keeps_its_colour_where_another_is_missing():
    record = make_record()
    runs = [
        replace(run, history={"val/state_probe_r2": [(0, 0.1), (9, 0.5)]}) if run.variant != "baseline" else run
        for run in record.runs
    ]
    (axes,) = draw_curves(curve_frame(replace(record, runs=runs), ("val/state_probe_r2",))).axes
    assert [(line.get_label(), line.get_color()) for line in axes.lines] == [
        ("align", COLOURS[1]),
        ("align_recon", COLOURS[2]),
    ]


def test_svg_takes_its_ink_from_the_page_and_names_no_address():
    record = make_record()
    runs = [replace(run, variant=run.variant.replace("align", "$a<b>$")) for run in record.runs]
    svg = to_svg(draw_success(success_frame(compare(replace(record, runs=runs, compare=[])))), 'a "title" <x>')
    assert svg.startswith('<svg role="img" aria-label="a &quot;title&quot; &lt;x>"')
    assert "currentColor" in svg
    assert "http" not in svg
    assert "$a&lt;b&gt;$" in svg
    assert "<b>" not in svg


def test_figures_are_drawn_without_pyplot_state():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    before = pyplot.get_fignums()
    image = imread(io.BytesIO(to_png(draw_curves(curve_frame(make_record())))), format="png")
    assert image.shape[2] == 4
    assert image[0, 0].tolist() == [1, 1, 1, 1]
    assert pyplot.get_fignums() == before


def test_strip_shows_every_frame():
    red = np.zeros((3, 8, 8, 3), np.uint8)
    red[..., 0] = 255
    blue = np.zeros((2, 8, 8, 3))
    blue[..., 2] = 1.0
    image = imread(io.BytesIO(rollout_strip({"recorded": red, "rolled $out": blue})), format="png")[..., :3]
    areas = [float((np.abs(image - colour).max(axis=2) < 0.02).mean()) for colour in ([1, 0, 0], [0, 0, 1])]
    assert areas[0] > 0.1
    assert areas[1] == pytest.approx(areas[0] * 2 / 3, rel=0.05)


def test_strip_refuses_other_shapes():
    for rows in ({}, {"a": np.zeros((8, 8, 3))}, {"a": np.zeros((1, 8, 8, 3)), "b": np.zeros((1, 9, 8, 3))}):
        with pytest.raises(ValueError, match="strip needs"):
            rollout_strip(rows)
