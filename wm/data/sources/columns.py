"""Which columns of a recorded array are taken: `observation.state`, or some of it, `observation.state[:7]`."""

from __future__ import annotations

import re

from wm.config.errors import UserError


def parse_columns(text: str, where: str) -> tuple[str, slice]:
    """The key and its columns. Raises UserError, which begins with `where`, for anything else."""
    match = re.fullmatch(r"([^\[\]]+)(?:\[(\d*):(\d*)\])?", text)
    if match is None:
        raise UserError(f"{where}: '{text}' is neither a key nor a key with columns, as in object[:7]")
    first, last = (int(each) if each else None for each in (match[2], match[3]))
    return match[1], slice(first, last)
