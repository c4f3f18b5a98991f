"""One plan at a time, and a short line of those who wait for theirs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from http import HTTPStatus
from threading import Lock
from typing import TypeVar

from wm.serving.deadline import Deadline
from wm.serving.refused import Refused

_Result = TypeVar("_Result")


class PlanQueue:
    """Work on a thread of its own, so that who asked can stop waiting while the work has not noticed yet.

    Args:
        max_waiting: requests that may wait beside the one that is planned; a robot is better told than kept.
    """

    def __init__(self, max_waiting: int = 4) -> None:
        self.max_waiting = max_waiting
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="plan")
        self._lock = Lock()
        self._live: set[Deadline] = set()  # of the work that has not ended
        self._is_ending = False

    @property
    def num_waiting(self) -> int:
        """Beside the one that is planned."""
        return max(0, len(self._live) - 1)

    @property
    def is_busy(self) -> bool:
        """Whether something is planned now."""
        return bool(self._live)

    def run(self, work: Callable[[Deadline], _Result], timeout_s: float) -> _Result:
        """`work`'s result, in its turn; the clock runs from now.

        Raises:
            Refused: 503 when too many wait or the server ends, 504 past `timeout_s`.
        """
        deadline = Deadline(timeout_s)
        with self._lock:
            if self._is_ending:
                raise _ending()
            if len(self._live) > self.max_waiting:
                raise Refused(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    f"busy: one plan at a time, and {self.num_waiting} requests wait already; ask again later",
                    Retry_After="1",
                )
            self._live.add(deadline)
            future = self._worker.submit(work, deadline)
        future.add_done_callback(lambda _: self._live.discard(deadline))
        try:
            return future.result(deadline.left_s)
        except TimeoutError as error:
            deadline.cancel()
            future.cancel()
            raise Refused(
                HTTPStatus.GATEWAY_TIMEOUT,
                f"no plan within {timeout_s:g} s (timeout_s); ask for longer, or start the server with a smaller planner",
            ) from error
        except CancelledError as error:
            raise _ending() from error

    def close(self) -> None:
        """End what runs at its next look at the clock, and forget what waits: each gets a 503."""
        with self._lock:
            self._is_ending = True
            for deadline in list(self._live):
                deadline.cancel()
        self._worker.shutdown(wait=False, cancel_futures=True)


def _ending() -> Refused:
    return Refused(HTTPStatus.SERVICE_UNAVAILABLE, "the server is ending")
