"""The report is whole, honest and self-contained."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from experiments.comparison import compare
from experiments.figures import rollout_strip
from experiments.report import answer, differing_settings, render_report, write_report
from tests.experiments.test_comparison import METRIC, large_effect, make_record

VOID = {"meta", "img", "br", "wbr", "input", "link", "path", "use", "rect"}


class Outline(HTMLParser):
    """Collects tags with their attributes and checks that they nest."""

    def __init__(self):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def outline(html: str) -> Outline:
    parser = Outline()
    parser.feed(html)
    assert parser.open == []
    return parser


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    strip, video = folder / "strip.png", folder / "plan.mp4"
    strip.write_bytes(rollout_strip({"recorded": np.zeros((2, 8, 8, 3), np.uint8)}))
    video.write_bytes(b"not really a video")
    record = make_record()
    pictures = {"rollout_strip": str(strip), "plan_video": str(video), "lost": str(folder / "lost.png")}
    runs = [replace(run, pictures=pictures) if run.run_id == "align-0" else run for run in record.runs]
    path = folder / "deep" / "report.html"
    write_report(replace(record, runs=runs), path)
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    return path.read_text()


def test_it_refers_to_nothing_outside(html):
    assert "http" not in html
    assert "<script" not in html
    for reference in re.findall(r'(?:src|href)="([^"]*)"', html):
        assert reference.startswith(("data:", "#"))
    assert "url(" not in re.sub(r"url\(#", "", html)


def test_it_holds_the_numbers(html):
    for text in ("45 %", "25 %", "60 %", "10 %", "+15 points", "-49 to +79", "0.85", "n/a", "abc123", "2 cores"):
        assert text in html
    for difference in compare(make_record()).differences:
        assert difference.verdict in html
        assert f"{difference.p_holm:.3f}" in html
    assert "out of memory at step 40" in html
    assert "left out of every number" in html


def test_the_answer_comes_before_the_table(html):
    assert html.index("None of the 2 named comparisons is settled.") < html.index("<table>")
    assert html.index("<h1>") < html.index("None of the 2")


def test_everything_is_escaped(html):
    assert "Does &lt;reconstruction&gt; help?" in html
    assert "<reconstruction>" not in html


def test_it_is_accessible(html):
    page = outline(html)
    assert page.named("html") == [{"lang": "en"}]
    assert len(re.findall(r"<table", html)) == len(re.findall(r"<caption>", html))
    assert all(attributes["scope"] in ("col", "row") for attributes in page.named("th"))
    assert all(attributes["alt"] for attributes in page.named("img"))
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in page.named("svg"))
    assert "prefers-color-scheme: dark" in html
    assert any(attributes.get("name") == "viewport" for attributes in page.named("meta"))


def test_figures_and_pictures_are_embedded(html):
    page = outline(html)
    assert len(page.named("svg")) == 2  # success, copy ratio at 5
    (image,) = page.named("img")
    assert image["src"].startswith("data:image/png;base64,")
    assert image["alt"] == "align, case wall, seed 0: rollout strip"
    (video,) = page.named("video")
    assert {"controls", "loop", "muted"} <= set(video)
    assert video["src"].startswith("data:video/mp4;base64,")
    assert "lost.png is missing" in html


def test_pictures_of_one_kind_stand_together():
    record = make_record()
    pictures = {"strip": "/nowhere/strip.png", "video": "/nowhere/plan.mp4"}
    page = render_report(replace(record, runs=[replace(run, pictures=pictures) for run in record.runs]))
    captions = re.findall(r"(\w+), case wall, seed 0: (\w+)</figcaption>", page)
    variants = ["baseline", "align", "align_recon"]
    assert captions == [(variant, kind) for kind in pictures for variant in variants]


def test_settings_show_only_what_differs_between_variants():
    record = make_record()
    (settings,) = differing_settings(record)
    assert settings.variants == ["baseline", "align", "align_recon"]
    assert settings.rows == [("model.variant", ["baseline", "align", "align_recon"])]
    elsewhere = [replace(run, case="point_maze") for run in record.runs]
    (shared,) = differing_settings(replace(record, runs=[*record.runs, *elsewhere]))
    assert shared.cases == ["wall", "point_maze"]


def test_a_settled_answer_says_so():
    sentences = answer(compare(large_effect(3, 50)))
    assert sentences[0] == "Settled."
    assert "good" in sentences[1]


def test_a_record_of_failures_still_makes_a_page():
    record = make_record()
    runs = [replace(run, status="failed", failure="stopped", metrics={}, successes={}) for run in record.runs]
    page = render_report(replace(record, runs=runs, controls={}))
    assert "None of the named comparisons could be made." in page
    assert "baseline (wall) has no complete run." in page
    outline(page)


def test_two_cases_have_two_tables():
    record = make_record()
    elsewhere = [replace(run, case="point_maze") for run in record.runs]
    page = render_report(replace(record, runs=[*record.runs, *elsewhere]))
    assert "Case wall" in page
    assert "Case point_maze" in page
    assert "point_maze: align_recon - align" in page
    outline(page)


def test_other_metrics_leave_out_raw_losses():
    record = make_record()
    runs = [replace(run, metrics={**run.metrics, "val/loss": 0.123, "plan/plan_s": 0.5}) for run in record.runs]
    page = render_report(replace(record, runs=runs))
    assert "plan/plan_s" in page
    assert "val/loss" not in page
    assert METRIC in page


def test_a_failed_write_leaves_the_old_report(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(make_record(), path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
