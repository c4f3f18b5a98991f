"""Entry points on Ray, and `wm`. Everything that imports ray is below this package."""

from __future__ import annotations

import os
import secrets

# Ray reads these when it is first imported. A cluster of our own asks for a token that lives as long as the command: without one
# Ray would write a token to the home folder, or let anyone on the machine run code. A cluster that is joined has its own rules.
_own_token: str | None = None
_token_before = os.environ.get("RAY_AUTH_TOKEN")
if os.environ.get("RAY_ADDRESS", "").strip() in ("", "local") and "RAY_AUTH_MODE" not in os.environ:
    _own_token = secrets.token_hex(32)
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=_own_token)

# glibc gives every thread an arena of its own; Ray's processes have dozens of threads, and dozens of processes add up.
os.environ.setdefault("MALLOC_ARENA_MAX", "2")


def use_configured_token() -> None:
    """Speak to a cluster that is not ours with the token a person configured, or none. Call before ray is imported."""
    if _own_token is not None and os.environ.get("RAY_AUTH_TOKEN") == _own_token:
        del os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"]
        if _token_before is not None:
            os.environ["RAY_AUTH_TOKEN"] = _token_before
    if "RAY_AUTH_MODE" not in os.environ and (
        os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    ):
        os.environ["RAY_AUTH_MODE"] = "token"  # without it Ray does not send the token that was given
