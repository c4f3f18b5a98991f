"""What kind of data set a path is, by the files that only that kind has. Training never guesses; looking does."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from wm.config.errors import UserError
from wm.data.sources.tensor_file import load_tensor


class _Rule(NamedTuple):
    kind: str
    layout: str | None
    is_it: Callable[[Path], bool]


def _has(*names: str) -> Callable[[Path], bool]:
    return lambda path: all((path / name).exists() for name in names)


def _is_hdf5(path: Path) -> bool:
    return path.suffix in (".hdf5", ".h5") if path.is_file() else len(list(path.glob("*.hdf5"))) == 1


def _is_pusht(path: Path) -> bool:
    parts = [path, path / "train", path / "val"]
    return any((part / "seq_lengths.pkl").exists() and not (part / "proprios.pth").exists() for part in parts)


def _is_old_robomimic(path: Path) -> bool:
    """Without proprio; where lengths and a folder of videos are there, too, it could be pusht_noise, and a person must say."""
    if not (path / "states.pth").exists() or (path / "proprios.pth").exists():
        return False
    beside = any(path.glob("episode_*.mp4"))
    return beside or (any(path.glob("obses/episode_*.mp4")) and not (path / "seq_lengths.pkl").exists())


def _is_franka(path: Path) -> bool:
    """A step a motion, or a step a frame: a state is then a row of numbers, where deformable has a row a particle."""
    if not (path / "states.pth").is_file():
        return any(path.glob("[0-9]*/00.h5"))
    return (path / "000000/obses.pth").is_file() and load_tensor(path / "states.pth").ndim == 3


_RULES = (
    _Rule("lerobot", None, _has("meta/info.json")),
    _Rule("robomimic", None, _is_hdf5),
    _Rule("precomputed", None, lambda path: _has("features.npz")(path) or _has("features.npy")(path)),
    _Rule("dino_wm", "wall_single", _has("states.pth", "door_locations.pth")),
    _Rule("dino_wm", "robomimic", _has("states.pth", "proprios.pth")),
    _Rule("dino_wm", "robomimic", _is_old_robomimic),
    _Rule("dino_wm", "point_maze", _has("states.pth", "seq_lengths.pth", "obses")),
    _Rule("dino_wm", "franka", _is_franka),
    _Rule("dino_wm", "deformable", _has("states.pth", "000000/obses.pth")),
    _Rule("dino_wm", "pusht_noise", _is_pusht),
)


def detect(path: Path) -> dict[str, str]:
    """`kind`, `layout` where the kind has several, and `path`: the settings of a source config.

    Raises UserError when it is none that can be read.
    """
    try:
        if not path.exists():
            if path.is_symlink():
                raise UserError(f"{path}: a link that leads nowhere")
            raise UserError(f"{path}: no such data folder; `wm data make wall --out {path}` makes one")
        return _detected(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be looked at ({error.strerror})") from error


def _detected(path: Path) -> dict[str, str]:
    for rule in _RULES:
        if rule.is_it(path):
            layout = {} if rule.layout is None else {"layout": rule.layout}
            return {"kind": rule.kind, **layout, "path": str(path.absolute())}
    found = ", ".join(sorted(p.name for p in path.iterdir())[:6]) if path.is_dir() else "a file"
    kinds = ", ".join(dict.fromkeys(rule.layout or rule.kind for rule in _RULES))
    raise UserError(f"{path}: no data set that can be read (found {found or 'nothing'}); known: {kinds}")


def settings_of(path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a source config: those that are given, and what they leave open by looking at the files.

    Raises UserError when they leave it open, and nothing that can be read is there.
    """
    kind = given.get("kind")
    is_told = kind is not None and (kind != "dino_wm" or "layout" in given)
    if is_told and os.path.exists(path):  # noqa: PTH110  (False for a name that is too long, too)
        return {"path": str(path.absolute()), **given}
    return {**detect(path), **given}
