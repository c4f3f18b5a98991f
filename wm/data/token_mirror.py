"""Tokens on another filesystem: whoever has encoded an episode spares the others the work.

URL/<key>/episode_000123.safetensors, as under storage.root/tokens, from where alone training reads.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import fsspec.core

from wm.config.errors import UserError
from wm.data.atomic import atomic_file


class TokenMirror:
    """Copies episodes from and to any filesystem that fsspec knows.

    Args:
        url: s3://bucket/folder, gs://..., sftp://..., file:///...; some need a package of their own (s3fs, gcsfs).

    Raises:
        UserError: no such protocol, or its package is not installed.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        try:
            found: tuple[Any, str] = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise UserError(f"storage.tokens={url}: {_line(error)}") from error
        self._files, self._root = found

    def fetch(self, key: str, path: Path) -> bool:
        """Copy a store's file to `path`, whole or not at all; False when it is not there. Raises UserError when it cannot be asked."""
        there = f"{self._root}/{key}/{path.name}"
        try:
            with atomic_file(path) as partial:
                self._files.get_file(there, str(partial))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise UserError(f"storage.tokens={self._url}: {path.name} cannot be read: {_line(error)}") from error
        return True

    def put(self, key: str, path: Path) -> None:
        """Copy a file there; it gets its name when it is whole. Raises UserError when it cannot be written."""
        folder = f"{self._root}/{key}"
        partial = f"{folder}/.{path.name}.{uuid.uuid4().hex[:8]}.partial"
        try:
            self._files.makedirs(folder, exist_ok=True)
            self._files.put_file(str(path), partial)
            self._files.mv(partial, f"{folder}/{path.name}")
        except OSError as error:
            raise UserError(f"storage.tokens={self._url}: {path.name} cannot be written: {_line(error)}") from error


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
