"""A sweep's report is whole, honest and self-contained."""

import re
from dataclasses import replace

import pytest

from experiments.sweep_report import question, render_sweep_report, write_sweep_figures, write_sweep_report
from tests.experiments.test_report import outline
from tests.experiments.test_sweep_figures import DIM, degenerate, make_sweep
from tests.experiments.test_sweep_table import confirmed


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "deep" / "sweep.html"
    write_sweep_report(confirmed(), path)
    assert [file.name for file in path.parent.iterdir()] == ["sweep.html"]
    return path.read_text()


def test_it_refers_to_nothing_outside(html):
    assert "http" not in html
    assert "<script" not in html
    assert "@import" not in html
    for reference in re.findall(r'(?:src|href)="([^"]*)"', html):
        assert reference.startswith("#")
    assert "url(" not in re.sub(r"url\(#", "", html)


def test_the_answer_comes_first(html):
    answer = html.index("Settled by the confirmation: best is better.")
    sections = ["<h2>Confirmation</h2>", "<h2>Best trials</h2>", "<h2>Figures</h2>", "<h2>All trials</h2>"]
    places = [answer, *(html.index(section) for section in sections), html.index("<h2>Conditions</h2>")]
    assert places == sorted(places)


def test_it_holds_the_numbers(html):
    for text in ("62 %", "± 18", "50, 75", "best - default: +", "100 s", "abc123", "100, 101, 102"):
        assert text in html
    assert "5 trials: 3 complete, 1 pruned, 1 failed" in html
    page = outline(html)
    assert len(page.named("svg")) == 5  # the confirmation and four of the search
    assert f'title="{DIM}"' in html


def test_everything_is_escaped(html):
    assert "Trial 2: &lt;script&gt;alert(1)&lt;/script&gt; at step 40" in html
    odd = "<b>$x$</b>"
    page = render_sweep_report(replace(make_sweep(), name=odd, base=odd, facts={odd: odd}))
    assert odd not in page
    outline(page)


def test_it_is_accessible(html):
    page = outline(html)
    assert page.named("html") == [{"lang": "en"}]
    assert len(re.findall(r"<table", html)) == len(re.findall(r"<caption>", html))
    assert all(attributes["scope"] in ("col", "row") for attributes in page.named("th"))
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in page.named("svg"))
    assert "prefers-color-scheme: dark" in html


def test_unconfirmed_is_said_and_nothing_is_called_better():
    page = render_sweep_report(make_sweep())
    assert "Not settled: trial 4 is the best of 3 noisy measurements and has not been confirmed." in page
    assert "There was none: no number below comes from fresh seeds." in page
    assert "better" not in page


def test_the_question_names_what_is_sought():
    assert question(make_sweep()) == "Which settings give align_recon the highest Success, goal 5 in wall?"
    lowest = replace(make_sweep(), mode="min", objective="val/copy_ratio_h5", case="")
    assert question(lowest) == "Which settings give align_recon the lowest Copy ratio h5?"


@pytest.mark.parametrize("name", ["no trial", "only waiting", "all pruned", "one trial", "odd values"])
def test_whatever_there_is_makes_a_page(name):
    page = render_sweep_report(degenerate()[name])
    outline(page)
    assert "ot settled" in page
    assert "<script" not in page


def test_a_missing_figure_is_explained():
    page = render_sweep_report(degenerate()["no pruning"])
    assert "Not drawn: no metric stops trials early." in page
    assert "Not drawn: it cannot be told" in render_sweep_report(degenerate()["one trial"])


def test_a_failed_write_leaves_the_old_report(tmp_path, monkeypatch):
    path = tmp_path / "sweep.html"
    path.write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_sweep_report(make_sweep(), path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["sweep.html"]


def test_figures_are_files_too(tmp_path):
    written = write_sweep_figures(make_sweep(), tmp_path / "figures")
    assert [file.stem for file in written] == ["history", "while_they_train", "parallel_coordinates", "importances"]
    for file in written:
        assert file.read_bytes().startswith(b"\x89PNG")
    assert write_sweep_figures(degenerate()["no trial"], tmp_path / "none") == []
