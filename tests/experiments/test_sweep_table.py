"""What a sweep found, in words that claim no more than was measured."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from experiments.sweep_table import render_sweep, to_markdown
from experiments.sweep_text import best_text, count_states, format_setting, short_names, verdict_texts
from tests.experiments.test_comparison import large_effect, make_run
from tests.experiments.test_sweep_figures import DIM, END, KIND, START, degenerate, make_sweep


def text_of(record, top=5, width=80) -> str:
    console = Console(file=io.StringIO(), width=width)
    for part in render_sweep(record, top):
        console.print(part)
    return console.file.getvalue()


def confirmed(num_seeds=3, num_problems=50, mode="max", winner="best"):
    """A sweep whose confirmation came out far apart."""
    names = {"good": winner, "bad": "default" if winner == "best" else "best"}
    effect = large_effect(num_seeds, num_problems, mode)
    runs = [replace(run, variant=names[run.variant], seed=100 + run.seed) for run in effect.runs]
    confirmation = replace(effect, runs=runs, compare=["best - default"], reference="default")
    return replace(make_sweep(), confirmation=confirmation, mode=mode)


def test_states_are_counted_in_one_line():
    assert count_states(make_sweep()) == "5 trials: 3 complete, 1 pruned, 1 failed"
    assert (
        count_states(degenerate()["hundred"]) == "100 trials: 58 complete, 20 pruned, 19 failed, 1 running, 2 waiting"
    )
    assert count_states(degenerate()["one trial"]) == "1 trial: 1 complete"
    assert count_states(degenerate()["no trial"]) == "no trials"


def test_names_are_as_short_as_tells_them_apart():
    assert short_names([KIND, DIM, "seed"]) == {KIND: "weight.kind", DIM: "alignment.dim", "seed": "seed"}
    twins = ["model.a.weight.kind", "model.b.weight.kind", "weight.kind"]
    assert list(short_names(twins).values()) == ["a.weight.kind", "b.weight.kind", "weight.kind"]
    assert short_names(["x.a.b", "a.b", "y.b"]) == {"x.a.b": "x.a.b", "a.b": "a.b", "y.b": "y.b"}


def test_settings_read_as_in_a_space_file():
    values = (True, None, 8, 0.123456, 1.0, (1, "a"), "cosine")
    assert [format_setting(value) for value in values] == ["true", "null", "8", "0.1235", "1", "[1, a]", "cosine"]


def test_the_best_trials_come_best_first():
    text = " ".join(text_of(make_sweep()).split())
    assert text.index("62 % ± 18 50, 75 alignment.kind infonce") < text.index("40 % ± 14 30, 50")
    assert text.index("40 % ± 14") < text.index("25 % ± 7")
    assert "25 %" not in text_of(make_sweep(), top=2)
    assert "highest 2 of 3 complete trials" in text_of(make_sweep(), top=2)
    lowest = " ".join(text_of(replace(make_sweep(), mode="min")).split())
    assert lowest.index("25 % ± 7") < lowest.index("62 % ± 18")


def test_only_what_was_sampled_is_listed():
    record = make_sweep()
    names = short_names(record.scales)
    lines = [line for line in to_markdown(record).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    column = cells[0].index(names[END])
    assert [row[column] for row in cells[2:]] == ["1.5", "0.5", "not sampled"]
    assert [row[cells[0].index(names[START])] for row in cells[2:]] == ["0.1", "0.01", "10"]
    assert len({len(row) for row in cells if len(row) > 1}) == 1


def test_failures_are_listed_with_their_reasons():
    assert "Trial 2 failed: <script>alert(1)</script> at step 40" in text_of(make_sweep())
    assert "\\<script>" in to_markdown(make_sweep())


def test_an_unconfirmed_best_is_not_called_better():
    for text in (text_of(make_sweep(), width=200), to_markdown(make_sweep())):
        assert "Not settled: trial 4 is the best of 3 noisy measurements and has not been confirmed." in text
        assert "better" not in text


def test_a_settled_confirmation_names_the_winner():
    assert verdict_texts(confirmed())[0] == "Settled by the confirmation: best is better."
    assert verdict_texts(confirmed(winner="default"))[0] == "Settled by the confirmation: default is better."
    assert verdict_texts(confirmed(mode="min"))[0] == "Settled by the confirmation: default is better."
    text = text_of(confirmed(), width=300)
    assert "best - default: +" in text
    assert "quote the confirmation, not the search" in text


@pytest.mark.parametrize(("num_seeds", "num_problems"), [(2, 50), (1, 50), (5, 20)])
def test_a_thin_confirmation_settles_nothing(num_seeds, num_problems):
    text = text_of(confirmed(num_seeds, num_problems), width=300)
    assert "Not settled by the confirmation." in text
    assert "not settled" in text
    assert " is better" not in text


def test_a_confirmation_without_a_difference_settles_nothing():
    record = confirmed()
    runs = [make_run(variant, seed, [1, 0] * 25) for variant in ("default", "best") for seed in (7, 8, 9)]
    text = text_of(replace(record, confirmation=replace(record.confirmation, runs=runs)), width=300)
    assert "Not settled by the confirmation." in text
    assert " is better" not in text


def test_a_failed_confirmation_is_said():
    record = confirmed()
    runs = [
        replace(run, status="failed", failure="disk full") if run.variant == "best" else run
        for run in record.confirmation.runs
    ]
    text = text_of(replace(record, confirmation=replace(record.confirmation, runs=runs)), width=300)
    assert "Not settled by the confirmation." in text
    assert "best - default: n/a" in text
    assert "Confirmation: best (wall), seed 100: failed, disk full" in text
    assert " is better" not in text


def test_the_best_trial_in_a_sentence():
    assert best_text(make_sweep()).startswith(
        "Trial 4, the highest of 3: Success, goal 5 at 62 % ± 18 over 2 seeds, with "
    )
    assert best_text(degenerate()["all pruned"]) == "No trial is complete, so there is no best one."
    assert "the only one complete: Success, goal 5 at 50 % over 1 seed" in best_text(degenerate()["one seed"])


@pytest.mark.parametrize("name", degenerate())
def test_whatever_there_is_can_be_told(name):
    record = degenerate()[name]
    for text in (text_of(record), to_markdown(record)):
        assert "ot settled" in text
        assert "better" not in text
    assert max(len(line) for line in text_of(record).splitlines()) <= 80
