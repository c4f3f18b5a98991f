"""Looking at a data set before training on it, and encoding it ahead of time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ray_jobs.runtime.progress import Narrator
from ray_jobs.runtime.runs import storage_root
from wm.build import build_dataset, build_encoder
from wm.config.data import DinoWmSourceConfig
from wm.config.errors import UserError
from wm.config.resolve import Layer, resolve
from wm.config.yaml import parse_override
from wm.data.atomic import atomic_file
from wm.data.normalization import vector_statistics
from wm.data.sources.wall_single import WallSingleSource


def inspect_folder(path: Path, sheet: Path | None) -> list[str]:
    """What the folder holds, one fact a line; every frame file is opened. Raises UserError when it is not a data set."""
    source = WallSingleSource(DinoWmSourceConfig(path=str(path)), path.name, path)
    frame_shapes: set[tuple[int, ...]] = set()
    worst = 0.0
    for index in range(len(source)):
        frames = source.episode(index).frames([0, source.lengths[index] - 1])
        frame_shapes.add(frames.shape[1:])
        # s' = s + 2 a in free space: data from another simulator breaks this (WORLDS section 1).
        free = source.states[index, :-1] + 2 * source.actions[index, :-1]
        worst = max(worst, float((np.abs(source.states[index, 1:] - free).max(axis=1) > 1e-3).mean()))
    lines = [
        f"{path}: DINO-WM wall_single layout, fingerprint {source.fingerprint}",
        f"episodes {len(source)}, {source.lengths[0]} steps each; frames {_shapes(frame_shapes)} uint8",
    ]
    for name, names, values in (
        ("state", source.state_names, source.states),
        ("action", source.action_names, source.actions),
    ):
        statistics = vector_statistics(values)
        columns = ", ".join(
            f"{key} {mean:.3f} +- {std:.3f} [{low:.2f}, {high:.2f}]"
            for key, mean, std, low, high in zip(
                names, statistics.mean, statistics.std, values.min((0, 1)), values.max((0, 1)), strict=True
            )
        )
        lines.append(f"{name}: {columns}")
    layouts = {(float(x), float(y)) for x, y in zip(source.wall_x, source.door_y, strict=True)}
    walls, doors = source.wall_x, source.door_y
    lines.append(
        f"layouts {len(layouts)}: wall x {walls.min():g}..{walls.max():g}, door y {doors.min():g}..{doors.max():g}"
    )
    lines.extend(_suspicions(source, frame_shapes, worst))
    if sheet is not None and len(frame_shapes) > 1:
        lines.append("no contact sheet: the frames have several sizes")
    elif sheet is not None:
        _contact_sheet(source, sheet)
        lines.append(f"contact sheet: {sheet}")
    return lines


def tokenize_folder(path: Path, overrides: Sequence[str], narrator: Narrator) -> None:
    """Fill the token store under storage.root for one folder, in this process. Raises UserError for a bad folder or encoder."""
    given = dict(map(parse_override, overrides))
    layers = [
        Layer("command", {"encoder.kind": "tiny", "data.sources.data.path": str(path.absolute())}),
        Layer.from_tree("command line", given),
    ]
    config = resolve(layers)
    root = storage_root(config.storage.root)
    encoder = build_encoder(config.encoder)
    store = build_dataset(config, root, encoder.fingerprint).stores["data"]
    missing = store.missing()
    with narrator.step(
        f"Encode {path} with {config.encoder.kind} ({encoder.dim} channels, {encoder.grid} patches)", "episodes"
    ) as stage:
        for number, _ in enumerate(store.write(encoder, missing)):
            stage.update(number + 1, len(missing))
    narrator.say(f"{len(missing)} episodes encoded; the store is {store.folder}")


def _suspicions(source: WallSingleSource, shapes: set[tuple[int, ...]], collided: float) -> list[str]:
    found: list[str] = []
    if len(shapes) > 1:
        found.append(f"suspicious: frames of {len(shapes)} sizes")
    if collided > 0.5:
        found.append(
            f"suspicious: in one episode {collided:.0%} of steps are not state + 2 action: another simulator's rule?"
        )
    still = int((np.ptp(source.actions, axis=1).max(axis=1) == 0).sum())
    if still:
        found.append(f"suspicious: {still} episodes have one constant action")
    repeated = len(source) - len({values.tobytes() for values in source.states})
    if repeated:
        found.append(f"suspicious: {repeated} episodes repeat another's states")
    return found or ["nothing suspicious"]


def _shapes(shapes: set[tuple[int, ...]]) -> str:
    return ", ".join(" x ".join(map(str, shape)) for shape in sorted(shapes))


def _contact_sheet(source: WallSingleSource, sheet: Path) -> None:
    """The first, middle and last frame of up to eight episodes."""
    rows = []
    for index in range(min(8, len(source))):
        length = source.lengths[index]
        frames = source.episode(index).frames([0, length // 2, length - 1])
        rows.append(np.concatenate(list(np.pad(frames, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=128)), axis=1))
    done, encoded = cv2.imencode(".png", np.concatenate(rows)[..., ::-1])
    if not done:
        raise UserError(f"{sheet}: the contact sheet could not be encoded")
    with atomic_file(sheet) as partial:
        partial.write_bytes(encoded.tobytes())
