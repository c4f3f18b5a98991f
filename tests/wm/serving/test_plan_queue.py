"""One at a time, in order, and nobody waits longer than was said."""

from __future__ import annotations

import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from threading import Event

import pytest
import torch
from torch import nn

from wm.serving.deadline import Deadline, watched
from wm.serving.plan_queue import PlanQueue
from wm.serving.refused import Refused


def test_what_waits_too_long_is_never_begun() -> None:
    queue, release, begun = PlanQueue(), Event(), []

    def first(deadline: Deadline) -> str:
        begun.append("first")
        assert release.wait(10)
        return "done"

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(queue.run, first, 30)
        while not begun:
            time.sleep(0.01)
        with pytest.raises(Refused) as refused:
            queue.run(lambda deadline: begun.append("second"), 0.1)
        assert refused.value.status == 504
        assert queue.num_waiting == 0  # it left the line at once
        release.set()
        assert running.result(10) == "done"
    assert queue.run(lambda deadline: "third", 5) == "third"
    assert begun == ["first"]
    assert not queue.is_busy


def test_work_that_fails_is_told_to_who_asked() -> None:
    queue = PlanQueue()
    with pytest.raises(ZeroDivisionError):
        queue.run(lambda deadline: 1 / 0, 5)
    assert queue.run(lambda deadline: 1, 5) == 1


def test_nothing_is_begun_after_the_end() -> None:
    queue = PlanQueue()
    queue.close()
    with pytest.raises(Refused) as refused:
        queue.run(lambda deadline: 1, 5)
    assert refused.value.status == 503
    assert "Retry-After" not in refused.value.headers


def test_no_layer_starts_past_the_deadline() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    late = Deadline(0.0)
    with watched([network], late), pytest.raises(TimeoutError):
        network(torch.zeros(1, 2))
    network(torch.zeros(1, 2))  # nothing stays behind
    cancelled = Deadline(100.0)
    with watched([network], cancelled):
        network(torch.zeros(1, 2))
        cancelled.cancel()
        with pytest.raises(CancelledError):
            network[0](torch.zeros(1, 2))  # the innermost looks, too
    assert 99 < cancelled.left_s <= 100
    assert late.left_s == 0
