"""A Wall world whose simulator breaks: by an exception, or by taking its process down."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from wm.config.worlds import WallWorldConfig
from wm.envs.wall import WallWorld

STEPS_BEFORE = 3  # steps since the last reset that it survives


class CrashingWorld(WallWorld):
    """Breaks when an episode began right of `beyond`.

    Args:
        frame_size: of the frames.
        beyond: pixels.
        dies: end the process, instead of raising.
        spared_pid: a process that is left alone.
        once: a file that remembers that it broke, so that it breaks only once; empty: every time.
    """

    def __init__(self, frame_size: int, beyond: float, dies: bool = True, spared_pid: int = 0, once: str = "") -> None:
        super().__init__(WallWorldConfig(frame_size=frame_size, layout="random"))
        self.beyond, self.dies, self.spared_pid, self.once = beyond, dies, spared_pid, once
        self._began, self._steps = 0.0, 0

    def reset_to(self, state: np.ndarray) -> None:
        super().reset_to(state)
        self._began, self._steps = float(self.state[0]), 0

    def step(self, action: np.ndarray) -> np.ndarray:
        self._steps += 1
        due = self._steps > STEPS_BEFORE and self._began > self.beyond and os.getpid() != self.spared_pid
        if due and not (self.once and Path(self.once).exists()):
            if self.once:
                Path(self.once).touch()
            if self.dies:
                os._exit(1)
            raise RuntimeError("the solver did not converge")
        return super().step(action)
