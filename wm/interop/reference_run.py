"""A DINO-WM run folder: its hydra.yaml beside one checkpoint, whose modules become state dicts and sizes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from wm.config.errors import UserError, nearest
from wm.interop import names
from wm.interop.hydra_config import HydraRun
from wm.interop.modules import attribute, module_state
from wm.interop.pickles import Name, Record
from wm.interop.torch_file import read_torch_file

HYDRA = "hydra.yaml"
_EXPECTED = {
    "predictor": (names.PREDICTOR,),
    "action_encoder": (names.EMBEDDING,),
    "proprio_encoder": (names.EMBEDDING,),
    "decoder": (names.VQVAE, names.TRANSPOSED_CONV),
}


@dataclass(frozen=True)
class ReferenceCheckpoint:
    """One model_*.pth, read.

    Args:
        states: state dict of each module it holds, under the reference's names.
        heads: of the predictor's attention, as the module recorded it; no tensor's shape shows it.
        sha256: of the file.
    """

    file: Path
    epoch: int
    states: dict[str, dict[str, Tensor]]
    heads: int
    sha256: str


def find_run(source: Path) -> tuple[Path, Path]:
    """(hydra.yaml, checkpoint) of a run folder, or of a .pth whose hydra.yaml lies beside or above it.

    Raises UserError saying what was looked for.
    """
    if source.is_dir():
        checkpoints = source / "checkpoints"
        if not (source / HYDRA).is_file():
            raise UserError(
                f"{source}: no {HYDRA} in it; expected a DINO-WM run folder, or a folder of `wm export-checkpoint`"
            )
        latest = checkpoints / "model_latest.pth"
        numbered = sorted(checkpoints.glob("model_*.pth"), key=lambda file: _epoch_of(file))
        if not latest.is_file() and not numbered:
            raise UserError(f"{checkpoints}: no model_latest.pth and no model_*.pth in it")
        return source / HYDRA, latest if latest.is_file() else numbered[-1]
    if not source.is_file():
        raise UserError(f"{source}: no such file or folder")
    for folder in (source.parent, source.parent.parent):
        if (folder / HYDRA).is_file():
            return folder / HYDRA, source
    raise UserError(f"{source}: no {HYDRA} beside it or in the folder above; a checkpoint alone does not say its sizes")


def read_checkpoint(file: Path, run: HydraRun) -> ReferenceCheckpoint:
    """Its modules as state dicts. Raises UserError for a part that is missing or of another class."""
    content = read_torch_file(file)
    if not isinstance(content, dict):
        raise UserError(f"{file}: expected a dict of modules, found a {type(content).__name__}")
    parts = cast(dict[Any, Any], content)
    for part in ("epoch", "predictor", "action_encoder", "proprio_encoder"):
        if part not in parts:
            raise UserError(f"{file}: it holds no '{part}'.{nearest(part, map(str, parts))}")
    if not isinstance(parts["epoch"], int):
        raise UserError(f"{file}: epoch: expected a whole number")
    records = {part: _record(file, part, parts[part]) for part in _EXPECTED if parts.get(part) is not None}
    heads = attribute(records["predictor"], "transformer.layers.0.0.heads", f"{file}: predictor")
    if heads != run.count("predictor.heads"):
        raise UserError(
            f"{file}: its attention has {heads} heads, but {run.file} says predictor.heads {run.count('predictor.heads')}"
        )
    states = {part: module_state(record, file, part) for part, record in records.items()}
    with file.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    return ReferenceCheckpoint(file, parts["epoch"], states, heads, digest)


def _record(file: Path, part: str, value: Any) -> Record:
    if not isinstance(value, Record) or value.name.key not in _EXPECTED[part]:
        wanted = " or ".join(str(Name(*name)) for name in _EXPECTED[part])
        found = str(value.name) if isinstance(value, Record) else f"a {type(value).__name__}"
        raise UserError(f"{file}: {part}: expected {wanted}, found {found}")
    return value


def _epoch_of(file: Path) -> int:
    word = file.stem.removeprefix("model_")
    return int(word) if word.isdecimal() else -1
