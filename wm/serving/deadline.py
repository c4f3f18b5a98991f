"""The moment after which nobody waits for a plan."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager

from torch import nn


class Deadline:
    """A clock that began when it was made.

    Args:
        timeout_s: seconds from now.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._at_s = time.monotonic() + timeout_s
        self._is_cancelled = False

    @property
    def left_s(self) -> float:
        """Seconds left, at least 0."""
        return max(0.0, self._at_s - time.monotonic())

    def cancel(self) -> None:
        """Nobody waits any more, whatever the clock says. From any thread."""
        self._is_cancelled = True

    def check(self) -> None:
        """Raises TimeoutError past the deadline, CancelledError when nobody waits."""
        if self._is_cancelled:
            raise CancelledError
        if self.left_s == 0:
            raise TimeoutError


@contextmanager
def watched(modules: Iterable[nn.Module], deadline: Deadline) -> Iterator[None]:
    """Inside, no layer of these modules starts past the deadline: `check` raises in its place.

    Asking the objective would be too coarse: between two of its calls lies a rollout of every candidate plan, minutes for a large
    model on a CPU.
    """

    def check(*_: object) -> None:
        deadline.check()

    with ExitStack() as hooks:
        for module in modules:
            for layer in module.modules():
                hooks.callback(layer.register_forward_pre_hook(check).remove)
        yield
