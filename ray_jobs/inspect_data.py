"""Looking at a data set before training on it, and encoding it ahead of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from errno import EISDIR
from pathlib import Path

import cv2
import numpy as np

from ray_jobs.runtime.progress import Narrator
from ray_jobs.runtime.runs import storage_root
from wm.build import build_dataset, build_encoder
from wm.config.catalogue import config_of, source_kinds
from wm.config.errors import UserError
from wm.config.resolve import Layer, resolve
from wm.config.yaml import parse_override
from wm.contracts import Source
from wm.data.atomic import atomic_file
from wm.data.checks import Finding, Report, check_source
from wm.data.dataset import open_source
from wm.data.normalization import vector_statistics
from wm.data.sources.detect import settings_of
from wm.data.sources.precomputed import PrecomputedSource
from wm.data.sources.wall_single import WallSingleSource

SHEET_ROWS = 8
MOST_COLUMNS = 32  # of a vector, on one line
Progress = Callable[[int, int], None]


def inspect_data(
    path: Path,
    sheet: Path | None,
    overrides: Sequence[str] = (),
    every_frame: bool = False,
    progress: Progress = lambda done, total: None,
) -> tuple[list[str], Report]:
    """What is there, one fact a line, findings last, and those findings apart.

    Args:
        sheet: where to write a contact sheet.
        overrides: FIELD=VALUE of the source's config, such as camera=front.
        every_frame: decode all of them, not three of each episode.

    Raises:
        UserError: it is no data set, or one that cannot be opened at all; or the sheet cannot be written.
    """
    if sheet is not None:
        with _writable(sheet):  # before minutes of looking
            sheet.parent.mkdir(parents=True, exist_ok=True)
            if sheet.is_dir():
                raise IsADirectoryError(EISDIR, "it is a folder")
    settings = settings_of(path, dict(map(parse_override, overrides)))
    found = {key: str(settings[key]) for key in ("kind", "layout") if key in settings}
    config = config_of(source_kinds(), str(settings.pop("kind")), settings, "source", "kind: unknown source")
    source = open_source(config, path.stem, path, max_faulty=1)
    has_frames = not isinstance(source, PrecomputedSource)
    report = check_source(source, every_frame=every_frame, has_frames=has_frames, progress=progress)
    lengths = source.lengths
    steps = f"{min(lengths)}" if min(lengths) == max(lengths) else f"{min(lengths)} to {max(lengths)}"
    shapes = ", ".join(" x ".join(map(str, shape)) for shape in sorted(report.frame_shapes))
    lines = [
        f"{path}: {' '.join(found.values())}, fingerprint {source.fingerprint}",
        f"episodes {len(source)}, {steps} steps each, {sum(lengths)} in all, {source.episode(0).fps:g} a second; frames "
        + (f"{shapes} uint8" if has_frames else "none, features (P, D) = " + str(source.token_shape)),
    ]
    lines += [line for key in ("action", "proprio", "state") for line in _vector_lines(key, source, report)]
    lines += [
        f"{tag}: {min(values):g} to {max(values):g}, {len(set(values))} different"
        for tag, values in report.tags.items()
    ]
    beside: Sequence[str] = getattr(source, "beside", ())
    if beside:
        lines.append(f"not read: {_listed(beside)}")
    if isinstance(source, WallSingleSource):
        report.findings += _other_rule(source)
    lines += [str(finding) for finding in report.findings] or ["nothing suspicious"]
    if sheet is not None and has_frames:
        lines.append(_contact_sheet(source, report, sheet))
    return lines, report


def tokenize_folder(path: Path, overrides: Sequence[str], narrator: Narrator) -> None:
    """Fill the token store under storage.root for one folder, in this process. Raises UserError for a bad folder or encoder."""
    given = Layer.from_tree("command line", dict(map(parse_override, overrides)))
    at = "data.sources.data."
    told = {key.removeprefix(at): value for key, value in given.values.items() if key.startswith(at)}
    seen = {f"{at}{key}": value for key, value in settings_of(path, told).items() if key not in told}
    config = resolve([Layer("command", {"encoder.kind": "tiny", **seen}), given])
    root = storage_root(config.storage.root)
    encoder = build_encoder(config.encoder)
    dataset = build_dataset(config, root, encoder.fingerprint)
    store, faulty = dataset.stores["data"], {each.episode for each in dataset.faulty}
    missing = [index for index in store.missing() if index not in faulty]
    with narrator.step(
        f"Encode {path} with {config.encoder.kind} ({encoder.dim} channels, {encoder.grid} patches)", "episodes"
    ) as stage:
        for number, _ in enumerate(store.write(encoder, missing)):
            stage.update(number + 1, len(missing))
    narrator.say(f"{len(missing)} episodes encoded; the store is {store.folder}")


def _vector_lines(key: str, source: Source, report: Report) -> list[str]:
    """Mean, spread and range of each column."""
    names: Sequence[str] = getattr(source, f"{key}_names")
    if key not in report.vectors:
        return [f"{key}: none"]
    values = report.vectors[key]
    statistics = vector_statistics([values])
    columns = [
        f"{name} {mean:.3f} +- {std:.3f} [{low:.2f}, {high:.2f}]"
        for name, mean, std, low, high in zip(
            names, statistics.mean, statistics.std, values.min(0), values.max(0), strict=True
        )
    ]
    constant = [name for name, low, high in zip(names, values.min(0), values.max(0), strict=True) if low == high]
    lines = [f"{key} ({len(names)}): {_listed(columns)}"]
    return lines + ([f"{key} that never changes ({len(constant)}): {_listed(constant)}"] if constant else [])


def _listed(words: Sequence[str]) -> str:
    more = len(words) - MOST_COLUMNS
    return ", ".join(words[:MOST_COLUMNS]) + (f", ... ({more} more)" if more > 0 else "")


def _other_rule(source: WallSingleSource) -> list[Finding]:
    """s' = s + 2 a in free space: data from another simulator breaks this (WORLDS section 1)."""
    worst = 0.0
    for index in range(len(source)):
        episode = source.episode(index)
        if episode.state is not None and episode.actions is not None:
            free = episode.state[:-1] + 2 * episode.actions[:-1]
            worst = max(worst, float((np.abs(episode.state[1:] - free).max(axis=1) > 1e-3).mean()))
    if worst <= 0.5:
        return []
    text = f"in one episode {worst:.0%} of steps are not state + 2 action: another simulator's rule?"
    return [Finding("all", text, is_error=False)]


@contextmanager
def _writable(sheet: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"--sheet: {sheet} cannot be written ({error.strerror})") from error


def _contact_sheet(source: Source, report: Report, sheet: Path) -> str:
    """The first, middle and last frame of up to eight episodes; returns what to say."""
    broken = {finding.episode for finding in report.errors}
    episodes = [episode for i in range(len(source)) if (episode := source.episode(i)).id not in broken][:SHEET_ROWS]
    if not episodes or len(report.frame_shapes) != 1:
        return f"no contact sheet: {'the frames have several sizes' if episodes else 'no episode can be read'}"
    rows = []
    for episode in episodes:
        frames = episode.frames([0, episode.length // 2, episode.length - 1])
        rows.append(np.concatenate(list(np.pad(frames, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=128)), axis=1))
    done, encoded = cv2.imencode(".png", np.concatenate(rows)[..., ::-1])
    if not done:
        raise UserError(f"{sheet}: the contact sheet could not be encoded")
    with _writable(sheet), atomic_file(sheet) as partial:
        partial.write_bytes(encoded.tobytes())
    return f"contact sheet: {sheet}"
