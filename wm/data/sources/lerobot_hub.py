"""LeRobot data sets of the Hugging Face hub: only the files that are needed, once, into the folder where a local one would be."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.constants import HF_HUB_OFFLINE

from wm.config.errors import UserError
from wm.data.atomic import file_lock
from wm.data.sources.lerobot_layout import INFO

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Hub:
    """Where the files of one data set come from.

    Args:
        path: as the config gives it: a hub id (`lerobot/pusht`), or a folder, from which nothing is ever fetched.
        folder: where the files lie, or will.
        revision: of the repository; None for its main branch.
    """

    def __init__(self, path: str, folder: Path, revision: str | None) -> None:
        self.repository = path if REPOSITORY.fullmatch(path) else None
        self.folder = folder
        self.revision = revision

    def fetch_meta(self) -> None:
        """Its meta folder, whole or not at all. Raises UserError when it is not here and cannot be had."""
        if (self.folder / INFO).is_file():
            return
        if self.repository is None:
            raise UserError(f"{self.folder}: no LeRobot data set here ({INFO} is missing)")
        with file_lock(self.folder.parent / f".{self.folder.name}.lock"):
            if not (self.folder / INFO).is_file():
                partial = self.folder / ".meta"
                self._download(partial, ["meta/*"], INFO)
                (partial / "meta").replace(self.folder / "meta")

    def fetch(self, files: Iterable[str]) -> None:
        """These files, where they are missing; of a folder of one's own, none. Raises UserError when the hub has one not."""
        missing = self._missing(files)
        if not missing or self.repository is None:
            return
        with file_lock(self.folder.parent / f".{self.folder.name}.lock"):
            missing = self._missing(missing)
            if missing:
                self._download(self.folder, missing, missing[-1])

    def _missing(self, files: Iterable[str]) -> list[str]:
        return [file for file in files if not (self.folder / file).is_file()]

    def _download(self, target: Path, patterns: list[str], wanted: str) -> None:
        """Raises UserError when `wanted`, the last of them, is not there afterwards, for whatever reason."""
        assert self.repository is not None
        reason: Exception | None = None
        try:
            if HF_HUB_OFFLINE:
                raise ConnectionError("HF_HUB_OFFLINE is set")
            snapshot_download(
                self.repository, repo_type="dataset", revision=self.revision, local_dir=target, allow_patterns=patterns
            )
        except Exception as error:  # the client's own, its HTTP library's and the system's
            reason = error
        if reason is not None or not (target / wanted).is_file():
            said = (str(reason or "").strip().splitlines() or ["it has no such file, or did not answer"])[0][:160]
            raise UserError(
                f"{self.folder}: {wanted} is not here, and cannot be had from {self.repository} on the Hugging Face hub "
                f"({said}): put the data set there, give its folder as path, or run once online"
            ) from reason
