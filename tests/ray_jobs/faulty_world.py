"""A Wall world in which what a file asks for goes wrong, in the problems that it names."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from wm.config.worlds import WallWorldConfig
from wm.envs.wall import WallWorld

STEPS_BEFORE = 3  # steps of a faulty problem that go well


class FaultyWorld(WallWorld):
    """Follows a JSON file, which is read at every step: [[x of the start, fault], ...], or nothing where it is absent.

    Faults: `raises`; `misses a file`; `hangs` until the process is killed; `waits` writes its process id to FILE.pid and waits for
    FILE to go; `full` from here on lets the process write to a full disk, while FILE says so.
    """

    def __init__(self, frame_size: int, faults: str) -> None:
        super().__init__(WallWorldConfig(frame_size=frame_size, layout="random"))
        self._faults = Path(faults)
        self._began, self._steps = 0.0, 0

    def reset_to(self, state: np.ndarray) -> None:
        super().reset_to(state)
        self._began, self._steps = float(self.state[0]), 0

    def step(self, action: np.ndarray) -> np.ndarray:
        self._steps += 1
        if self._steps == STEPS_BEFORE + 1:
            for start, fault in asked_for(self._faults):
                if start == self._began:
                    self._go_wrong(fault)
        return super().step(action)

    def _go_wrong(self, fault: str) -> None:
        match fault:
            case "raises":
                raise RuntimeError("the solver did not converge")
            case "misses a file":
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "mesh.stl")
            case "hangs":
                time.sleep(3600)
            case "waits":
                partial = Path(f"{self._faults}.partial")
                partial.write_text(str(os.getpid()))
                partial.replace(f"{self._faults}.pid")
                while self._faults.exists():
                    time.sleep(0.02)
            case "full":
                fill_disk(self._faults)
            case _:
                raise AssertionError(fault)


def ask_for(file: Path, faults: dict[float, str]) -> None:
    """Let this go wrong from now on."""
    partial = file.with_suffix(".new")
    partial.write_text(json.dumps(list(faults.items())))
    partial.replace(file)


def asked_for(file: Path) -> list[tuple[float, str]]:
    return json.loads(file.read_text()) if file.is_file() else []


def fill_disk(faults: Path) -> None:
    """A write now fails as one to a full disk does, which names no file."""
    write_text = Path.write_text

    def full(self: Path, *arguments: Any, **named: Any) -> int:
        if any(fault == "full" for _, fault in asked_for(faults)):
            write_text(self, "{")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_text(self, *arguments, **named)

    Path.write_text = full  # type: ignore[method-assign]  # this process is an actor's, and ends with it
