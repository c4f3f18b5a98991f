"""Where everything is kept. Imports nothing heavy: what only looks there answers at once."""

from __future__ import annotations

import os
from pathlib import Path

from wm.config.errors import UserError


def make_out(folder: Path) -> None:
    """A folder for what --out names. Raises UserError when there cannot be one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be made ({error.strerror})") from error


def storage_root(configured: str | None) -> Path:
    """storage.root, else WM_HOME, else ./wm_home; absolute.

    Raises UserError when it cannot be written, or would lie in the folder of a Ray job, which is removed after it.
    """
    given = Path(configured or os.environ.get("WM_HOME") or "wm_home").expanduser()
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and not given.is_absolute():  # Ray sets it for a job's driver alone
        raise UserError(
            f"storage.root={given}: the folder of a Ray job is temporary; start the head with WM_HOME=/absolute/folder, pass "
            "WM_HOME in the job's runtime env (env_vars), or set storage.root to an absolute path"
        )
    root = given.absolute()
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / f".write_{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"storage.root={root}: cannot be written ({error.strerror}); set storage.root or WM_HOME"
        ) from error
    return root
