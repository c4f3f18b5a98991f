"""One self-contained HTML page per experiment: the answer first, then what it rests on."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import figures
from experiments.comparison import ComparisonTable, compare
from experiments.comparison_text import standings
from experiments.metric_text import NOT_AVAILABLE, format_value, is_comparable, label
from experiments.page import Panel, make_panel, render_page, success_panels, write_page
from experiments.records import ExperimentRecord

TEMPLATE = "report.html.j2"
MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".gif": "image/gif",
    ".svg": "image/svg+xml",
    ".mp4": "video/mp4",
}
MAX_PICTURE_BYTES = 20 * 1024**2
ABSENT = "not set"


@dataclass(frozen=True)
class Picture:
    """A picture or video of one run, embedded; `source` is None with the reason in `missing`."""

    case: str
    variant: str
    seed: int
    kind: str
    source: str | None
    missing: str = ""

    @property
    def is_video(self) -> bool:
        return self.source is not None and self.source.startswith("data:video")

    @property
    def caption(self) -> str:
        return f"{self.variant}, case {self.case}, seed {self.seed}: {self.kind.replace('_', ' ')}"


@dataclass(frozen=True)
class SettingTable:
    """The settings in which variants differ, one column per variant, for the cases where they differ so."""

    cases: list[str]
    variants: list[str]
    rows: list[tuple[str, list[str]]]


def write_report(record: ExperimentRecord, path: Path) -> None:
    """Write the report of an experiment; a reader never sees half a file."""
    write_page(render_report(record), path)


def render_report(record: ExperimentRecord) -> str:
    """The report as HTML text: no script, no external reference, everything embedded and escaped."""
    table = compare(record)
    return render_page(
        TEMPLATE,
        record=record,
        table=table,
        answer=answer(table),
        panels=_panels(record, table),
        pictures=_pictures(record),
        settings=differing_settings(record),
        other_metrics=_other_metrics(record, table),
    )


def answer(table: ComparisonTable) -> list[str]:
    """The answer in sentences: how much is settled, what each comparison says, and where each case stands."""
    made = [difference for difference in table.differences if difference.value is not None]
    settled = [difference for difference in made if difference.settled]
    sentences: list[str] = []
    if not table.differences:
        sentences.append("No comparison was named before the runs, so none is tested.")
    elif not made:
        sentences.append("None of the named comparisons could be made.")
    elif not settled:
        sentences.append("Not settled." if len(made) == 1 else f"None of the {len(made)} named comparisons is settled.")
    else:
        sentences.append("Settled." if len(made) == 1 else f"{len(settled)} of {len(made)} named comparisons settled.")
    for case in table.cases:
        if shown := standings(table, case):
            sentences.append(f"{label(table.metric)} in {case}: {shown}.")
    return sentences


def differing_settings(record: ExperimentRecord) -> list[SettingTable]:
    """Settings whose value differs between variants of a case; what varies between seeds of one variant is left out."""
    tables: list[SettingTable] = []
    for case in record.cases:
        variants = [v for v in record.variants if any(r.case == case and r.variant == v for r in record.runs)]
        found: dict[str, list[dict[str, Any]]] = {
            variant: [_flatten(r.config) for r in record.runs if r.case == case and r.variant == variant and r.config]
            for variant in variants
        }
        paths = list(dict.fromkeys(path for configs in found.values() for config in configs for path in config))
        rows: list[tuple[str, list[str]]] = []
        for path in paths:
            values = {
                v: {str(config.get(path, ABSENT)) for config in configs} for v, configs in found.items() if configs
            }
            if all(len(seen) == 1 for seen in values.values()) and len(set.union(*values.values())) > 1:
                rows.append((path, [next(iter(values[v])) if v in values else ABSENT for v in variants]))
        same = next((i for i, t in enumerate(tables) if (t.variants, t.rows) == (variants, rows)), None)
        if same is not None:
            tables[same].cases.append(case)
        elif rows:
            tables.append(SettingTable([case], variants, rows))
    return tables


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested config -> path -> value."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        flat |= _flatten(value, f"{path}.") if isinstance(value, Mapping) and value else {path: value}
    return flat


def _panels(record: ExperimentRecord, table: ComparisonTable) -> list[Panel]:
    panels = success_panels(table)
    names = [name for name in dict.fromkeys((*figures.CURVES, record.metric)) if is_comparable(name)]
    curves = figures.curve_frame(record, tuple(names))
    for case in table.cases:
        for name in names:
            frame = [point for point in curves if point.case == case and point.metric == name]
            if len({point.step for point in frame}) > 1:
                caption = figures.curve_caption(frame)
                panels.append(make_panel(case, figures.draw_curves(frame), caption))
    return panels


def _pictures(record: ExperimentRecord) -> list[Picture]:
    """The pictures of the lowest seed that has any, per case and variant: chosen before looking, not by result."""
    pictures: list[Picture] = []
    for case in record.cases:
        for variant in record.variants:
            run = next((run for run in record.complete_runs(case, variant) if run.pictures), None)
            for kind, name in (run.pictures if run else {}).items():
                source, missing = _embed(Path(name))
                pictures.append(Picture(case, variant, run.seed if run else 0, kind, source, missing))
    kinds = list(dict.fromkeys(picture.kind for picture in pictures))
    return sorted(pictures, key=lambda picture: (record.cases.index(picture.case), kinds.index(picture.kind)))


def _embed(path: Path) -> tuple[str | None, str]:
    media = MEDIA_TYPES.get(path.suffix.lower())
    if media is None or not path.is_file():
        return None, f"{path} {'is missing' if media else 'is of a kind that a page cannot show'}"
    if path.stat().st_size > MAX_PICTURE_BYTES:
        return None, f"{path} is larger than {MAX_PICTURE_BYTES // 1024**2} MiB and was not embedded"
    return f"data:{media};base64,{base64.b64encode(path.read_bytes()).decode()}", ""


def _other_metrics(record: ExperimentRecord, table: ComparisonTable) -> list[tuple[str, list[str]]]:
    """Final values of all other metrics that may be compared: name, then the mean of each row but the control's."""
    names = sorted({name for run in record.runs for name in run.metrics} - set(table.columns))
    rows = [row for row in table.rows if not row.is_control]
    result: list[tuple[str, list[str]]] = []
    for name in names:
        if is_comparable(name):
            cells: list[str] = []
            for row in rows:
                runs = record.complete_runs(row.case, row.variant)
                values = [run.metrics[name] for run in runs if name in run.metrics]
                cells.append(format_value(name, sum(values) / len(values)) if values else NOT_AVAILABLE)
            result.append((name, cells))
    return result
