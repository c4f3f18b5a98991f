"""The folder that a job runs in: the code as git sees it, where it came from, and the files a person named."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from experiments.provenance import REPOSITORY, versioned_files, write_provenance
from wm.config.errors import UserError

MAX_BYTES = 100 * 2**20  # Ray refuses 500 MiB; code is a few, and each node of a cluster copies it
GIVEN = "submitted"  # where files from outside the repository go
_IGNORE_FILES = (".gitignore", ".rayignore")


def stage(folder: Path, given: Mapping[str, Path]) -> None:
    """Copy the code, its provenance and `given` (path in the job -> file here) into an empty folder.

    Raises UserError when there is no git checkout to copy, or it is too large for code.
    """
    files = _code()
    sizes = {name: (REPOSITORY / name).stat().st_size for name in files}
    if sum(sizes.values()) > MAX_BYTES:
        largest = max(sizes, key=lambda name: sizes[name])
        raise UserError(
            f"{REPOSITORY}: {sum(sizes.values()) / 2**20:.0f} MiB are not ignored by git, more than {MAX_BYTES / 2**20:.0f} MiB "
            f"(the largest: {largest}); name data in .gitignore, a job reads it under storage.root"
        )
    for name in files:
        # They have been obeyed already; Ray would apply them again, to tracked files too.
        if Path(name).name not in _IGNORE_FILES:
            _copy(REPOSITORY / name, folder / name)
    for name, file in given.items():
        _copy(file, folder / name)
    write_provenance(folder)


def path_in_job(argument: str, kind: str) -> tuple[str, dict[str, Path]]:
    """How the job names a file or a shipped name given here, and what must be staged beside the code for it."""
    file = Path(argument)
    if not file.is_file():
        return argument, {}  # a shipped name
    file = file.resolve()
    if file.is_relative_to(REPOSITORY) and str(file.relative_to(REPOSITORY)) in _code():
        return str(file.relative_to(REPOSITORY)), {}
    name = f"{GIVEN}/{kind}/{file.name}"  # the stem names the experiment, so that it stays
    return name, {name: file}


def _code() -> list[str]:
    try:
        names = versioned_files()
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(
            f"{REPOSITORY}: not a git checkout, so what to submit is not known; clone wm with git"
        ) from error
    # What is deleted but not committed, nested repositories and links to folders are no files.
    return [name for name in names if (REPOSITORY / name).is_file()]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
