"""The one exception whose message is meant for a person."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake the user can mend: one line that says what, where, and what was expected.

    The commands print it without a traceback and exit with 2.
    """


def nearest(name: str, valid: Iterable[str]) -> str:
    """' Did you mean X?' for the closest valid name, else ' Valid: a, b, c.'."""
    names = sorted(str(v) for v in valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f" Did you mean '{close[0]}'?"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f" Valid: {shown}." if names else ""
