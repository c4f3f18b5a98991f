"""A linear world with the sizes of the point maze: four state entries, two actions."""

from __future__ import annotations

from wm.config.worlds import LinearWorldConfig
from wm.envs.linear import LinearWorld


class MazelikeWorld(LinearWorld):
    def __init__(self, frame_size: int) -> None:
        super().__init__(LinearWorldConfig(frame_size=frame_size), state_dim=4, action_dim=2)
