"""From a synthetic record to rows, differences and words."""

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from experiments.comparison import CONTROL, compare
from experiments.comparison_text import format_interval, render_text, to_markdown
from experiments.metric_text import format_value, is_comparable, label
from experiments.records import ExperimentRecord, RunRecord
from wm.evaluation.statistics import wilson

METRIC = "plan/success_rate_gh5"
SOLVED = {  # of ten problems, per seed
    "baseline": ([1, 0, 0, 0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0, 0, 1, 1]),
    "align": ([1, 1, 0, 0, 1, 0, 0, 1, 0, 0], [0, 1, 1, 0, 1, 0, 0, 0, 1, 1]),
    "align_recon": ([1, 1, 0, 1, 1, 0, 0, 1, 1, 0], [1, 1, 1, 0, 1, 0, 0, 1, 0, 1]),
}


def make_run(variant: str, seed: int, solved: list[int]) -> RunRecord:
    metrics = {METRIC: float(np.mean(solved)), "val/copy_ratio_h5": 0.8 + 0.1 * seed, "train/time_s": 90.0}
    metrics["val/state_probe_r2"] = 0.75
    if variant == "baseline":
        del metrics["val/state_probe_r2"]
    config = {"seed": seed, "model": {"variant": variant, "width": 128}, "train": {"steps": 100}}
    history = {"val/copy_ratio_h5": [(0, 1.2), (50, 1.0), (100, 0.8 + 0.1 * seed)]}
    return RunRecord(
        f"{variant}-{seed}",
        variant,
        "wall",
        seed,
        metrics=metrics,
        history=history,
        successes={METRIC: solved},
        config=config,
    )


def make_record() -> ExperimentRecord:
    runs = [make_run(variant, seed, solved) for variant, rows in SOLVED.items() for seed, solved in enumerate(rows)]
    runs.append(RunRecord("x", "align", "wall", 2, "failed", "out of memory at step 40", {METRIC: 1.0}))
    return ExperimentRecord(
        "demo",
        "Does <reconstruction> help?",
        "align",
        ["align_recon - align", "align - baseline"],
        METRIC,
        "max",
        runs,
        {"wall": {METRIC: [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]}},
        {"git commit": "abc123", "machine": "2 cores"},
    )


def row_of(table, variant):
    return next(row for row in table.rows if row.variant == variant)


def test_a_record_survives_json():
    record = make_record()
    odd = replace(record.runs[0], metrics={"val/a": float("inf")}, history={"val/a": [(0, float("-inf"))]})
    record = replace(record, runs=[odd, *record.runs[1:]])
    assert ExperimentRecord.from_json(record.to_json()) == record
    assert RunRecord.from_json(odd.to_json()) == odd
    assert "Infinity" not in record.to_json()


def test_rows_hold_means_counts_and_intervals():
    table = compare(make_record())
    row = row_of(table, "align")
    assert (row.num_seeds, row.num_problems) == (2, 10)
    estimate = row.estimates[METRIC]
    assert estimate.value == pytest.approx(0.45)
    assert estimate.per_seed == pytest.approx({0: 0.4, 1: 0.5})
    assert estimate.interval.low >= 0
    assert estimate.interval.high <= 1
    ratio = row.estimates["val/copy_ratio_h5"]
    assert (ratio.value, ratio.spread) == pytest.approx((0.85, 0.1 / 2**0.5))


def test_the_control_has_its_own_row():
    row = row_of(compare(make_record()), CONTROL)
    assert row.estimates[METRIC].value == pytest.approx(0.1)
    assert row.estimates[METRIC].interval == wilson(1, 10)


@pytest.mark.parametrize(
    ("solved", "chance", "words"),
    [
        (1, 1, "cannot be told from random actions: its interval includes the control's value"),
        (1, 9, "does worse than random actions: its interval is below the control's value"),
        (9, 1, None),
    ],
)
def test_what_random_actions_would_do_as_well_is_said(solved: int, chance: int, words: str | None) -> None:
    record = make_record()
    run = make_run("align", 0, [1] * solved + [0] * (10 - solved))
    controls = {"wall": {METRIC: [1] * chance + [0] * (10 - chance)}}
    notes = compare(replace(record, runs=[run], compare=[], controls=controls)).notes
    assert [note for note in notes if CONTROL in note] == ([f"align (wall) {words}."] if words else [])


def test_distances_are_paired_by_problem_and_lower_is_better():
    """Ten problems, all nearer by .4 under align_recon; the control's mean lies above both."""
    metric, record = "plan/state_distance_gh5", make_record()
    far = {"baseline": 1.0, "align": 0.9, "align_recon": 0.5}
    runs = [
        replace(run, distances={metric: [far[run.variant] + 0.01 * i + 0.02 * run.seed for i in range(10)]})
        for run in record.runs
    ]
    chance = {"wall": {metric: [1.2 + 0.01 * i for i in range(10)]}}
    table = compare(replace(record, runs=runs, metric=metric, mode="min", controls=chance))
    assert row_of(table, "align_recon").estimates[metric].num_problems == 10
    difference = next(d for d in table.differences if d.name == "align_recon - align")
    assert difference.value == pytest.approx(-0.4)
    assert difference.num_problems == 10
    assert difference.leader("min") == "align_recon"
    assert not [note for note in table.notes if CONTROL in note]
    near = {"wall": {metric: [0.2 + 0.01 * i for i in range(10)]}}
    notes = compare(replace(record, runs=runs, metric=metric, mode="min", controls=near)).notes
    assert any(note.startswith("align (wall) does worse than random actions: its interval is above") for note in notes)


def test_failed_runs_are_listed_and_count_nowhere():
    table = compare(make_record())
    assert [run.run_id for run in table.failures] == ["x"]
    assert 2 not in row_of(table, "align").estimates[METRIC].per_seed
    assert "1 run did not complete and is left out of every number." in table.notes


def test_differences_are_paired_and_worded():
    first, second = compare(make_record()).differences
    assert first.value == pytest.approx(0.15)
    assert (first.num_seeds, first.num_problems) == (2, 10)
    assert first.verdict.startswith("align_recon - align: +15 points, 95 % interval -49 to +79; 2 seeds")
    assert "10 shared problems: not settled (indicative)" in first.verdict
    assert f"about {first.seeds_needed} seeds" in first.verdict
    smaller, larger = sorted([first, second], key=lambda difference: difference.p_value)
    assert smaller.p_holm == pytest.approx(min(1.0, 2 * smaller.p_value))
    assert larger.p_holm >= larger.p_value


def test_pairs_use_shared_seeds_only():
    record = make_record()
    runs = [run for run in record.runs if (run.variant, run.seed) != ("align", 0)]
    first = compare(replace(record, runs=runs)).differences[0]
    assert first.num_seeds == 1
    assert first.value == pytest.approx(0.1)
    assert "one seed" in first.verdict
    assert not first.settled


def large_effect(num_seeds: int, num_problems: int, mode: str = "max") -> ExperimentRecord:
    rng = np.random.default_rng(0)
    runs = [
        make_run(variant, seed, (rng.random(num_problems) < rate).astype(int).tolist())
        for variant, rate in (("good", 0.9), ("bad", 0.1))
        for seed in range(num_seeds)
    ]
    return replace(make_record(), runs=runs, compare=["good - bad"], mode=mode, controls={})


def test_a_large_effect_settles_with_enough_seeds_and_problems():
    settled = compare(large_effect(3, 50)).differences[0]
    assert settled.settled
    assert "settled, good is better (supports only large effects)" in settled.verdict
    assert "settled, bad is better" in compare(large_effect(3, 50, mode="min")).differences[0].verdict


def test_many_comparisons_unsettle_what_one_would_settle():
    differences = compare(replace(large_effect(3, 50), compare=["good - bad"] * 100)).differences
    assert differences[0].p_value < 0.05 < differences[0].p_holm
    assert not any(difference.settled for difference in differences)
    assert "in favour of good, but not after Holm's correction" in differences[0].verdict


def test_two_seeds_or_few_problems_never_settle():
    two = compare(large_effect(2, 50)).differences[0]
    few = compare(large_effect(5, 20)).differences[0]
    assert not two.settled
    assert not few.settled
    assert "in favour of good, but a claim needs 50 problems" in few.verdict


def test_a_missing_metric_is_shown_and_said():
    table = compare(make_record())
    assert "val/state_probe_r2" not in row_of(table, "baseline").estimates
    assert any(note.startswith("baseline (wall) did not record: ") and "State probe R²" in note for note in table.notes)
    assert "n/a" in to_markdown(table)


def test_any_metric_may_decide():
    record = replace(make_record(), metric="val/copy_ratio_h5", mode="min")
    difference = compare(record).differences[0]
    assert difference.value == pytest.approx(0.0)
    assert difference.num_problems == 1
    missing = compare(replace(make_record(), metric="val/absent"))
    assert "n/a" in missing.differences[0].verdict
    assert missing.differences[0].p_holm is None


def test_a_single_number_does_not_cut_the_problems_of_others():
    record = make_record()
    runs = [replace(run, successes={}) if run.run_id == "align-0" else run for run in record.runs]
    table = compare(replace(record, runs=runs))
    assert row_of(table, "align").estimates[METRIC].value == pytest.approx(0.45)
    assert table.differences[0].value == pytest.approx(0.15)


def test_raw_latent_errors_never_cross_variants():
    for name in ("val/loss", "train/loss_prediction", "val/z_visual_err_rollout", "val/latent_error_h5"):
        assert not is_comparable(name)
    for name in (METRIC, "val/copy_ratio_h5", "val/state_probe_r2", "val/img_ssim_pred", "plan/state_distance"):
        assert is_comparable(name)
    difference = compare(replace(make_record(), metric="val/loss")).differences[0]
    assert difference.value is None
    assert "own scale" in difference.verdict


def test_a_run_that_only_copies_is_named():
    record = make_record()
    runs = [replace(record.runs[0], metrics={**record.runs[0].metrics, "val/copy_ratio_h5": 1.3}), *record.runs[1:]]
    notes = compare(replace(record, runs=runs)).notes
    assert any("baseline (wall) predicts no better than copying" in note for note in notes)
    assert not any("align (wall) predicts" in note for note in notes)


def test_words_and_units():
    assert label("plan/success_rate_gh10") == "Success, goal 10"
    assert label("val/copy_ratio_h10") == "Copy ratio h10"
    assert label("val/anything") == "val/anything"
    assert [format_value("train/time_s", value) for value in (42.0, 600.0, 9000.0)] == ["42 s", "10.0 min", "2.5 h"]
    assert format_value(METRIC, 0.62) == "62 %"
    time = compare(make_record()).rows[0].estimates["train/time_s"]
    assert format_interval("train/time_s", time) == "± 0"


def test_the_terminal_shows_it_all_in_80_columns():
    console = Console(file=io.StringIO(), width=80)
    for part in render_text(compare(make_record())):
        console.print(part)
    text = console.file.getvalue()
    for word in ("align_recon", "random actions", "45 %", "n/a", "out of memory at step 40", "not settled", "Holm"):
        assert word in " ".join(text.split())


def test_markdown_is_a_table_of_equal_rows():
    lines = [line for line in to_markdown(compare(make_record())).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 4
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_a_collapsed_run_is_named():
    record = make_record()
    runs = [
        replace(run, warning="the latents have collapsed") if run.run_id == "align-1" else run for run in record.runs
    ]
    notes = compare(replace(record, runs=runs)).notes
    assert "align (wall), seed 1: the latents have collapsed." in notes
    assert not any("collapsed" in note for note in compare(record).notes)
