"""The figure shows every row, marks the one where most is lost, and survives what is missing."""

from __future__ import annotations

import pytest

from experiments.diagnosis_figure import draw_diagnoses
from experiments.figures import COLOURS, to_png
from wm.evaluation.diagnosis import Row
from wm.evaluation.diagnosis_facts import ProblemFacts, Trajectory
from wm.evaluation.diagnosis_summary import Diagnosis, diagnosis, error_ratio, measures


def row(name: str, signs: str) -> Row:
    return Row(name, {str(number): sign == "x" for number, sign in enumerate(signs)})


def fact(problem: int, error: float = 1.0) -> ProblemFacts:
    way = Trajectory([3.0, 2.0, 0.0], [9.0, 4.0, 0.0], [False, False, True])
    return ProblemFacts(str(problem), {"oracle": way, "random": way}, [error, 2.0], [4.0, 4.0], 2.0, 0.0, [1.0, 3.0, 2.0, 9.0],
                        [1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0], [5.0, 0.1])  # fmt: skip


def made(**rows: str) -> Diagnosis:
    rows = {"oracle": "xxxx", "evaluated": "x...", **rows}
    shifts = {"light": row("light", "xx..")}
    return diagnosis(
        5, {name: row(name, signs) for name, signs in rows.items()}, [fact(n) for n in range(4)], shifts, "CEM of 2 x 2"
    )


def test_numbers_by_hand() -> None:
    assert error_ratio([fact(0, 1.0), fact(1, 3.0)]) == [0.5, 0.5]  # (1 + 3) / (4 + 4), not the mean of two ratios
    assert error_ratio([]) == []
    found = measures([fact(0), fact(1)])
    assert found["cheaper_imagined"].value == pytest.approx((1 + 0.5) / 4)  # 1 is cheaper than 2, and one is as dear
    assert found["cheaper_true"].value == 0
    assert found["order_true"].value == pytest.approx(-1)
    assert found["order_oracle"].value == pytest.approx(1)
    whole = made()
    assert whole.judge is not None
    assert whole.judge.threshold == 1.0
    assert whole.agreement is not None
    assert (whole.agreement.both, whole.agreement.imagined_only) == (1, 3)
    assert whole.shifts["light"].difference == 0.25


def test_every_row_is_drawn_and_the_worst_marked() -> None:
    found = made(true_states="xxxx", true_latents="xxxx", in_model="....", random="....")
    assert found.verdict.cause == "model"
    figure = draw_diagnoses([found, made()])
    labels = [text for text in figure.axes[0].get_yticklabels()]
    assert len(labels) == 7
    marked = [text.get_text() for text in labels if text.get_color() == COLOURS[1]]
    assert marked == ["model, latent objective"]
    assert to_png(figure)[:4] == b"\x89PNG"


def test_without_facts() -> None:
    bare = diagnosis(5, {"evaluated": row("evaluated", "x...")}, [], {}, "CEM of 2 x 2")
    assert bare.measures == {}
    assert to_png(draw_diagnoses([bare]))[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="needs a diagnosis"):
        draw_diagnoses([])
