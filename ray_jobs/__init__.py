"""Entry points on Ray, and `wm`. Everything that imports ray is below this package."""

from __future__ import annotations

import os
import secrets

# Ray reads these when it is first imported. A cluster of our own asks for a token that lives as long as the command: without one
# Ray would write a token to the home folder, or let anyone on the machine run code. A cluster that is joined has its own rules.
if os.environ.get("RAY_ADDRESS", "").strip() in ("", "local") and "RAY_AUTH_MODE" not in os.environ:
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))

# glibc gives every thread an arena of its own; Ray's processes have dozens of threads, and dozens of processes add up.
os.environ.setdefault("MALLOC_ARENA_MAX", "2")
