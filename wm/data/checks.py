"""What is wrong or odd about a data set, episode by episode, whatever its layout."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from wm.config.errors import UserError
from wm.contracts import Episode, Source
from wm.data.sources.file_source import FileSource
from wm.data.sources.precomputed import PrecomputedSource

FRAMES_AT_ONCE = 64
DARK = 2  # mean of a frame below which it is black


class Finding(NamedTuple):
    """One thing to know before training.

    Args:
        is_error: the episode cannot be used; otherwise it is only odd.
    """

    episode: str
    text: str
    is_error: bool

    def __str__(self) -> str:
        return f"{'error' if self.is_error else 'suspicious'}: {self.episode}: {self.text}"


@dataclass
class Report:
    """What was found.

    Args:
        frame_shapes: (H, W, 3) -> episodes.
        vectors: `action`, `proprio`, `state` -> every row of every episode (N, size), where there are any.
    """

    findings: list[Finding] = field(default_factory=list)
    frame_shapes: Counter[tuple[int, ...]] = field(default_factory=Counter)
    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    tags: dict[str, list[float]] = field(default_factory=dict)

    @property
    def errors(self) -> list[Finding]:
        """Those that no training can use."""
        return [finding for finding in self.findings if finding.is_error]


def check_source(
    source: FileSource,
    *,
    every_frame: bool,
    has_frames: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Look at every episode: its vectors whole, its frames at both ends and in the middle, or all of them.

    Args:
        has_frames: False for features.
        progress: hears how many of how many episodes are done.
    """
    report = Report()
    rows: dict[str, list[np.ndarray]] = {}
    seen: dict[str, str] = {}
    for index in range(len(source)):
        episode = source.episode(index)
        if index in source.faults:
            report.findings.append(Finding(episode.id, source.faults[index], True))
            continue
        content = hashlib.sha256(str(episode.length).encode())
        known = _check_vectors(episode, source, report, rows, content)
        if has_frames:
            known |= _check_frames(episode, every_frame, report, content)
        elif isinstance(source, PrecomputedSource):
            try:
                content.update(source.read(index, np.arange(episode.length)).tobytes())
            except UserError as error:
                report.findings.append(Finding(episode.id, str(error), True))
        twin = seen.setdefault(content.hexdigest(), episode.id)
        if known and twin != episode.id:
            report.findings.append(Finding(episode.id, f"repeats {twin}", False))
        for name, value in episode.tags.items():
            report.tags.setdefault(name, []).append(value)
        progress(index + 1, len(source))
    report.vectors = {name: np.concatenate(values) for name, values in rows.items()}
    if "action" in report.vectors:
        still = np.flatnonzero(np.ptp(report.vectors["action"], axis=0) == 0)
        if still.size:
            unused = ", ".join(source.action_names[i] for i in still)
            report.findings.append(Finding("all", f"actions that never change: {unused}", False))
    if len(report.frame_shapes) > 1:
        common, _ = report.frame_shapes.most_common(1)[0]
        others = sum(report.frame_shapes.values()) - report.frame_shapes[common]
        report.findings.append(
            Finding("all", f"{others} episodes have frames of another size than {_x(common)}", False)
        )
    return report


def _vectors(episode: Episode) -> Mapping[str, np.ndarray | None]:
    return {"action": episode.actions, "proprio": episode.proprio, "state": episode.state}


def _check_vectors(
    episode: Episode, source: Source, report: Report, rows: dict[str, list[np.ndarray]], content: Any
) -> bool:
    """Whether there are any; `content` hashes them."""
    any_there = False
    names = {"action": source.action_names, "proprio": source.proprio_names, "state": source.state_names}
    for key, values in _vectors(episode).items():
        if values is None:
            continue
        any_there = True
        content.update(np.ascontiguousarray(values).tobytes())
        if values.shape != (episode.length, len(names[key])):
            text = f"{key} is {values.shape}, expected ({episode.length}, {len(names[key])})"
            report.findings.append(Finding(episode.id, text, True))
            continue
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if bad.size:
            text = f"{key} holds NaN or infinity at step {bad[0]} ({bad.size} such steps)"
            report.findings.append(Finding(episode.id, text, True))
            continue
        rows.setdefault(key, []).append(values)
        if key == "action" and len(values) > 1 and not np.ptp(values, axis=0).any():
            report.findings.append(Finding(episode.id, "one constant action", False))
    return any_there


def _check_frames(episode: Episode, every_frame: bool, report: Report, content: Any) -> bool:
    """Whether they can be read; `content` hashes them."""
    last = episode.length - 1
    wanted = np.arange(episode.length) if every_frame else np.unique([0, last // 2, last])
    moved, first = False, None
    try:
        for start in range(0, len(wanted), FRAMES_AT_ONCE):
            frames = episode.frames(wanted[start : start + FRAMES_AT_ONCE])
            if first is None:
                first = frames[0]
                report.frame_shapes[first.shape] += 1
            content.update(frames.tobytes())
            moved = moved or bool((frames != first).any())
            dark = np.flatnonzero(frames.reshape(len(frames), -1).mean(axis=1) < DARK)
            if dark.size:
                text = f"frame {wanted[start + dark[0]]} is black"
                report.findings.append(Finding(episode.id, text, False))
                break
    except (UserError, IndexError, OSError) as error:
        report.findings.append(Finding(episode.id, (str(error).splitlines() or [type(error).__name__])[0], True))
        return False
    acted = episode.actions is not None and bool(np.ptp(episode.actions, axis=0).any())
    if acted and not moved and episode.length > 1:
        report.findings.append(Finding(episode.id, "nothing moves in its frames, but its actions differ", False))
    return True


def _x(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
